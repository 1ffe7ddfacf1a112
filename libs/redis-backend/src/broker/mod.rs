//! The broker on plain pub/sub servers.
//!
//! To each of them one [`publisher`] connection and one [`subscriber`] connection, with tasks of their own, so that a
//! frozen server holds up nothing but its own channels. [`steward`] keeps the ring. Our own connections in place of
//! the driver's: what was lost when, and whether an acknowledgement came, is all that matters here.

mod counters;
mod dial;
mod failover;
mod names;
mod planted;
mod probe;
mod publisher;
mod status;
mod steward;
mod subscriber;
mod view;
mod wanted;
mod wire;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::BytesMut;
use model::NodeId;
use ports::broker::{Inbox, InboxSender, Unconfirmed, inbox};
use ports::{Broker, Channel, Clock, Discovery, PortError, Publication};
use protocol::record;
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

pub use counters::BrokerCounters;
use counters::Counters;
use dial::Tcp;
pub use dial::{Connection, Dial, Stream};
use failover::Votes;
use names::Names;
pub use planted::Break;
use publisher::{Identity, Reply};
pub use status::{PubSubAnswer, PubSubStatus, Unreachable, announce_ring, pubsub_status};
use view::{Current, Nodes, PubSubNode, View};

const BACKEND: &str = "pub/sub";

/// How long a subscribe waits for acknowledgements; what comes later is told as a gap.
const ACKNOWLEDGEMENT: Duration = Duration::from_millis(150);

/// What a broker needs to know.
pub struct BrokerSettings {
    /// Whose connection this is.
    pub node: NodeId,
    /// Batches in its inbox.
    pub inbox_batches: usize,
    /// Goes before every name on the pub/sub nodes; empty outside of tests.
    pub prefix: String,
    /// The document with the ring.
    pub document: String,
    /// The clock of received positions.
    pub clock: Clock,
}

/// One node's connection to the pub/sub nodes of the ring. Ends with its last clone of the `Arc`.
pub struct RedisBroker {
    shared: Arc<Shared>,
    tasks: TaskTracker,
    _stop: DropGuard,
}

struct Shared {
    names: Names,
    document: String,
    clock: Clock,
    inbox: InboxSender,
    discovery: Arc<dyn Discovery>,
    dial: Arc<dyn Dial>,
    planted: Option<Break>,
    counters: Arc<Counters>,
    /// Of the ring in use.
    epoch: Arc<AtomicU64>,
    nodes: parking_lot::Mutex<Nodes>,
    current: Current,
    votes: Arc<Votes>,
    /// Rung by whoever has reason to think that the ring is another one.
    suspicion: Notify,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl RedisBroker {
    /// Learns the ring and connects. An error if there is no ring to learn.
    pub async fn connect(
        settings: BrokerSettings,
        discovery: Arc<dyn Discovery>,
    ) -> Result<(Arc<RedisBroker>, Inbox), PortError> {
        RedisBroker::simulated(settings, discovery, Arc::new(Tcp), None).await
    }

    /// The same over connections of another kind, and perhaps with a planted break, for tests.
    pub async fn simulated(
        settings: BrokerSettings,
        discovery: Arc<dyn Discovery>,
        dial: Arc<dyn Dial>,
        planted: Option<Break>,
    ) -> Result<(Arc<RedisBroker>, Inbox), PortError> {
        let (sender, inbox) = inbox(settings.inbox_batches);
        let stop = CancellationToken::new();
        let shared = Arc::new(Shared {
            names: Names::new(&settings.prefix, settings.node),
            document: settings.document,
            clock: settings.clock,
            inbox: sender,
            discovery,
            dial,
            planted,
            counters: Arc::default(),
            epoch: Arc::default(),
            nodes: parking_lot::Mutex::default(),
            current: Current::default(),
            votes: Arc::default(),
            suspicion: Notify::new(),
            tasks: TaskTracker::new(),
            stop: stop.clone(),
        });
        let guard = stop.drop_guard();
        shared.first_ring().await?;
        shared.tasks.spawn(steward::keep_probing(shared.clone()));
        shared.tasks.spawn(steward::run(shared.clone()));
        shared.tasks.spawn(failover::run(shared.clone()));
        let tasks = shared.tasks.clone();
        Ok((Arc::new(RedisBroker { shared, tasks, _stop: guard }), inbox))
    }

    /// Ends all connections, and waits until they have ended.
    pub async fn close(&self) {
        self.shared.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// The epoch of the ring in use.
    pub fn epoch(&self) -> u64 {
        self.shared.epoch.load(Ordering::Acquire)
    }

    /// The pub/sub nodes of the ring in use through which no message goes at the moment, and for how long: no publishing
    /// connection is up, or no probe has come back for longer than it may take. Those out of service are no matter.
    pub fn unhealthy(&self) -> Vec<String> {
        let Some(view) = self.shared.view() else { return Vec::new() };
        let document = view.ring.document();
        let nodes = view.nodes.iter().zip(&document.nodes).filter(|(_, named)| !document.down.contains(&named.name));
        nodes
            .filter_map(|(node, named)| {
                let silence = node.unhealthy_for()?;
                Some(format!("{} at {} (for {:.1} s)", named.name, node.address, silence.as_secs_f64()))
            })
            .collect()
    }

    /// What has happened so far.
    pub fn counters(&self) -> BrokerCounters {
        self.shared.counters.read()
    }

    /// The name of its subscriber connections in `CLIENT LIST`, for operators.
    pub fn client_name(&self) -> String {
        String::from_utf8_lossy(&self.shared.names.client()).into_owned()
    }
}

/// The messages of one call that go to one node.
#[derive(Default)]
struct Share {
    bytes: BytesMut,
    indexes: Vec<usize>,
}

#[async_trait]
impl Broker for RedisBroker {
    async fn publish(&self, batch: &[Publication]) -> Result<(), Unconfirmed> {
        if batch.is_empty() {
            return Ok(());
        }
        let Some(view) = self.shared.view() else {
            return Err(Unconfirmed { indexes: (0..batch.len()).collect(), cause: unavailable("no ring") });
        };
        let shares = self.shared.shares(&view, batch);
        let started: Vec<_> = shares
            .into_iter()
            .enumerate()
            .filter(|(_, share)| !share.indexes.is_empty())
            .map(|(owner, share)| {
                let node = &view.nodes[owner];
                (node, self.shared.send(node, share.bytes, share.indexes.len()), share.indexes)
            })
            .collect();
        let mut indexes = Vec::new();
        for (node, reply, share) in started {
            if !self.shared.is_current(node, &view, reply.await.as_ref()) {
                indexes.extend(share);
            }
        }
        indexes.sort_unstable();
        self.shared.counters.published.fetch_add(batch.len() as u64, Ordering::Relaxed);
        self.shared.counters.unconfirmed.fetch_add(indexes.len() as u64, Ordering::Relaxed);
        match indexes.is_empty() {
            true => Ok(()),
            false => Err(Unconfirmed { indexes, cause: unavailable("not confirmed by the owner under this ring") }),
        }
    }

    async fn subscribe(&self, channels: &[Channel]) -> Result<(), PortError> {
        let waiting = self.shared.nodes.lock().want(channels);
        acknowledged(waiting).await;
        Ok(())
    }

    async fn unsubscribe(&self, channels: &[Channel]) -> Result<(), PortError> {
        let waiting = self.shared.nodes.lock().drop_all(channels);
        self.shared.inbox.forget(channels);
        // What arrives until the acknowledgement is dropped, for it is not wanted.
        acknowledged(waiting).await;
        Ok(())
    }
}

/// Waits a little. Who is not told in time, or whose connection is lost, has a gap coming.
async fn acknowledged(waiting: Vec<oneshot::Receiver<()>>) {
    let until = Instant::now() + ACKNOWLEDGEMENT;
    for receiver in waiting {
        let _ = timeout_at(until, receiver).await;
    }
}

fn unavailable(reason: &str) -> PortError {
    PortError::Unavailable { backend: BACKEND, reason: reason.to_owned() }
}

impl Shared {
    fn identity(&self) -> Identity {
        Identity { names: self.names.clone(), epoch: self.epoch.clone() }
    }

    fn view(&self) -> Option<Arc<View>> {
        self.current.read().clone()
    }

    fn plants(&self, broken: Break) -> bool {
        self.planted == Some(broken)
    }

    /// Sends some messages, and asks for the epoch last: whatever changed it before then is seen.
    fn send(&self, node: &PubSubNode, mut bytes: BytesMut, messages: usize) -> impl Future<Output = Option<Reply>> {
        let mut ask = BytesMut::new();
        wire::command(&mut ask, &[b"GET", &self.names.epoch()]);
        let asked_before = self.plants(Break::AskBeforePublishing).then(|| node.publisher.start(ask.split(), 1, None));
        bytes.unsplit(ask);
        let answers = messages + usize::from(asked_before.is_none());
        let sent = node.publisher.start(bytes, answers, None);
        async move {
            let sent = sent?.await.ok()?;
            match asked_before {
                Some(asked) => asked?.await.ok(),
                None => Some(sent),
            }
        }
    }

    /// Sorts a batch by owner.
    fn shares(&self, view: &View, batch: &[Publication]) -> Vec<Share> {
        let now = self.clock.monotonic();
        let mut shares: Vec<Share> = view.nodes.iter().map(|_| Share::default()).collect();
        for (index, message) in batch.iter().enumerate() {
            let channel = message.channel();
            let share = &mut shares[view.owner(channel)];
            let words: [&[u8]; 3] = [b"PUBLISH", &self.names.channel(channel), &record::encode(message.fix(), now)];
            wire::command(&mut share.bytes, &words);
            share.indexes.push(index);
        }
        shares
    }

    /// Whether an answer to `GET ring:epoch` says that the ring in use is still the newest. An older epoch is fine:
    /// whoever raises it reads the cache afterwards.
    fn is_current(&self, node: &PubSubNode, view: &View, reply: Option<&Reply>) -> bool {
        let Some(reply) = reply else {
            self.suspicion.notify_one();
            return false;
        };
        let epoch = reply.last.as_ref().and_then(|text| std::str::from_utf8(text).ok()?.parse::<u64>().ok());
        if epoch.is_some_and(|epoch| epoch <= view.ring.epoch()) {
            return true;
        }
        if epoch.is_none() && self.plants(Break::AbsentIsCurrent) {
            return true;
        }
        if epoch.is_none() {
            node.epoch_is_absent(reply.connection);
        }
        self.suspicion.notify_one();
        false
    }
}
