//! Keeping the ring. Each node does it by itself, without phases; the order is what counts, any other loses last
//! values (found by search):
//!
//! subscribe at the new owner and wait -> raise the epoch at every earlier owner within reach -> gap (the engine reads
//! the cache) -> drop the old subscription -> republish (the engine publishes the last of its own users again, by the
//! new ring: who has left an owner out of its reach hears in no other way what was published there until now).
//!
//! An epoch that is absent was lost with its server, and with it the fence. It is written again only after discovery
//! was read *after* its absence was seen, and only on the connection that saw it: another restart in between breaks
//! that connection.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ports::PortError;
use protocol::ring::Ring;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, sleep, timeout, timeout_at};

use super::publisher::Reply;
use super::view::{Nodes, PubSubNode, Unfenced, View};
use super::{Break, Shared, probe, unavailable};

/// How often discovery is asked.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// After a look for a suspected ring: a node that is down makes every publication suspicious, and discovery is to live.
const REST: Duration = Duration::from_millis(100);
/// How long discovery may take.
const DISCOVERY: Duration = Duration::from_millis(500);
/// How long the acknowledgements of new owners are waited for; who comes later tells a gap.
const ACKNOWLEDGEMENTS: Duration = Duration::from_millis(500);
/// How long an earlier owner that cannot be reached is tried.
const FENCE: Duration = Duration::from_secs(120);
/// How long connections may take at the start.
const START: Duration = Duration::from_secs(2);

/// `KEYS` epoch and document, `ARGV` the same and whether an absent one is written. Never goes down; answers the epoch.
const RAISE: &[u8] = b"local kept = redis.call('GET', KEYS[1])
if not kept and ARGV[3] ~= 'absent' then return false end
if (tonumber(kept or '') or 0) >= tonumber(ARGV[1]) then return kept end
redis.call('MSET', KEYS[1], ARGV[1], KEYS[2], ARGV[2])
return ARGV[1]";

/// Looks for a new ring until the broker ends.
pub(super) async fn run(shared: Arc<Shared>) {
    let mut tick = interval(ASK_EVERY);
    loop {
        tokio::select! {
            biased;
            () = shared.stop.cancelled() => return,
            () = shared.suspicion.notified() => {
                shared.learn().await;
                sleep(REST).await;
            }
            _ = tick.tick() => shared.learn().await,
        }
    }
}

/// Probes every node through the way that messages go, until the broker ends.
pub(super) async fn keep_probing(shared: Arc<Shared>) {
    let mut tick = interval(probe::EVERY);
    let mut under_way = JoinSet::new();
    for number in 1u64.. {
        tokio::select! {
            biased;
            () = shared.stop.cancelled() => return,
            _ = tick.tick() => {}
        }
        // Each ends by its own deadline, before the next one begins.
        while under_way.try_join_next().is_some() {}
        for node in shared.view().iter().flat_map(|view| &view.nodes) {
            under_way.spawn(probe_one(shared.clone(), node.clone(), number));
        }
    }
}

async fn probe_one(shared: Arc<Shared>, node: Arc<PubSubNode>, number: u64) {
    let Some(view) = shared.view() else { return };
    let mut bytes = bytes::BytesMut::new();
    super::wire::command(&mut bytes, &[b"PUBLISH", &shared.names.probe(), number.to_string().as_bytes()]);
    super::wire::command(&mut bytes, &[b"GET", &shared.names.epoch()]);
    let begun = Instant::now();
    let Some(reply) = node.publisher.start(bytes, 2, None) else { return };
    let reply = reply.await.ok();
    if reply.is_some() {
        node.subscriber.probe.published(number, begun);
    }
    shared.is_current(&node, &view, reply.as_ref());
}

impl Shared {
    /// At the start: the ring of discovery, whose nodes are told its epoch before anybody subscribes.
    pub(super) async fn first_ring(self: &Arc<Self>) -> Result<(), PortError> {
        let ring =
            self.ask_discovery(0).await.flatten().ok_or_else(|| unavailable("discovery has no ring document"))?;
        // Nothing is subscribed yet: this connects, and waits for nobody.
        drop(self.nodes.lock().begin(ring, self));
        let all: Vec<Arc<PubSubNode>> = self.nodes.lock().all.values().cloned().collect();
        let until = Instant::now() + START;
        while Instant::now() < until && !all.iter().all(|node| node.is_connected()) {
            sleep(Duration::from_millis(5)).await;
        }
        self.fence(all, None).await;
        self.learn().await;
        self.nodes.lock().finish();
        Ok(())
    }

    /// Learns the newest ring, and tells it who lacks it.
    pub(super) async fn learn(self: &Arc<Self>) {
        let nodes: Vec<Arc<PubSubNode>> = self.nodes.lock().all.values().cloned().collect();
        // Noted before discovery is read.
        let absent: Vec<_> = nodes.iter().filter_map(|node| Some((node.clone(), node.absent_on()?))).collect();
        let epoch = self.view().map_or(0, |view| view.ring.epoch());
        let authority = self.ask_discovery(epoch).await;
        let is_authority = authority.is_some();
        let newer = match authority {
            Some(ring) => ring,
            None => self.ask_nodes(&nodes, epoch).await,
        };
        if let Some(ring) = newer {
            self.adopt(ring).await;
        }
        if is_authority {
            for (node, connection) in absent {
                if self.raise(&node, Some(connection)).await.is_some() {
                    node.epoch_is_there(connection);
                }
            }
        }
        self.fence_late().await;
    }

    /// What it has that is newer than this epoch; `None` if it does not say what it has.
    async fn ask_discovery(&self, epoch: u64) -> Option<Option<Ring>> {
        let document = timeout(DISCOVERY, self.discovery.document(&self.document)).await.ok()?.ok()?;
        if document.version == 0 { None } else { self.read(&document.text, epoch) }
    }

    /// For who is cut off from discovery: the document lies beside the epoch.
    async fn ask_nodes(self: &Arc<Self>, nodes: &[Arc<PubSubNode>], epoch: u64) -> Option<Ring> {
        let mut asked = JoinSet::new();
        for node in nodes {
            let (node, name) = (node.clone(), self.names.document());
            asked.spawn(async move { node.publisher.ask(&[b"GET", &name], None).await?.last });
        }
        let mut newest = None;
        for text in asked.join_all().await.into_iter().flatten() {
            let Ok(text) = std::str::from_utf8(&text) else { continue };
            let known = newest.as_ref().map_or(epoch, Ring::epoch);
            newest = self.read(text, known).flatten().or(newest);
        }
        newest
    }

    /// The ring of a text if it is newer than this epoch; `None` if the text is no ring.
    fn read(&self, text: &str, epoch: u64) -> Option<Option<Ring>> {
        Ring::parse_newer(text, epoch)
            .inspect_err(|error| {
                self.counters.poisoned.fetch_add(1, Ordering::Relaxed);
                tracing::error!(%error, "a ring document that is none");
            })
            .ok()
    }

    async fn adopt(self: &Arc<Self>, ring: Ring) {
        let epoch = ring.epoch();
        let before = self.view();
        let waiting = self.nodes.lock().begin(ring, self);
        self.say_who_we_are();
        if self.plants(Break::DropBeforeSubscribing) {
            self.nodes.lock().finish();
        }
        let (channels, until) = (waiting.len(), Instant::now() + ACKNOWLEDGEMENTS);
        for receiver in waiting {
            // Who is late, or has to connect again, tells another gap.
            let _ = timeout_at(until, receiver).await;
        }
        if self.plants(Break::ReadBeforeFencing) {
            self.nodes.lock().gap_in_moved(before.as_deref(), None, self);
        }
        let all = self.nodes.lock().all.values().cloned().collect();
        self.fence(all, before.as_ref()).await;
        {
            let mut nodes = self.nodes.lock();
            if !self.plants(Break::DropBeforeSubscribing) && !self.plants(Break::ReadBeforeFencing) {
                nodes.gap_in_moved(before.as_deref(), None, self);
            }
            nodes.finish();
            self.republish_moved(&nodes, before.as_deref(), None);
            nodes.sweep();
        }
        tracing::info!(epoch, new_owners = channels, "adopted a ring");
        self.counters.rings.fetch_add(1, Ordering::Relaxed);
    }

    fn republish_moved(&self, nodes: &Nodes, before: Option<&View>, fenced: Option<&Arc<PubSubNode>>) {
        if !self.plants(Break::NeverPublishAgain) {
            nodes.republish_moved(before, fenced, &self.inbox);
        }
    }

    /// Each connection says it for itself when it begins; from now on it is another epoch.
    fn say_who_we_are(&self) {
        let identity = self.identity();
        for node in self.nodes.lock().all.values() {
            drop(node.publisher.start(identity.command(), 1, None));
        }
    }

    /// Raises the epoch at all of them at once, and notes who was not reached.
    async fn fence(self: &Arc<Self>, nodes: Vec<Arc<PubSubNode>>, before: Option<&Arc<View>>) {
        let mut under_way = JoinSet::new();
        for node in nodes {
            let (shared, before) = (self.clone(), before.cloned());
            under_way.spawn(async move {
                let reached = shared.raise(&node, None).await.is_some() || shared.plants(Break::DeadIsFenced);
                let mut unfenced = node.unfenced.lock();
                // What an earlier change owes it is of another ring.
                let before = if unfenced.is_some() { None } else { before };
                *unfenced = (!reached).then(|| Unfenced { until: Instant::now() + FENCE, before });
            });
        }
        under_way.join_all().await;
    }

    /// Those that could not be reached when the ring changed: until they are, others may publish there by the earlier
    /// ring. Then what was theirs and is elsewhere now has to be read again.
    async fn fence_late(self: &Arc<Self>) {
        let nodes: Vec<Arc<PubSubNode>> = self.nodes.lock().all.values().cloned().collect();
        for node in nodes {
            if node.unfenced.lock().is_none() {
                continue;
            }
            let reached = self.raise(&node, None).await.is_some();
            let owed = node.unfenced.lock().take_if(|owed| reached || Instant::now() > owed.until);
            if reached && let Some(owed) = owed {
                let nodes = self.nodes.lock();
                nodes.gap_in_moved(owed.before.as_deref(), Some(&node), self);
                self.republish_moved(&nodes, owed.before.as_deref(), Some(&node));
            }
        }
        self.nodes.lock().sweep();
    }

    /// Raises a node's epoch to that of the ring in use. `only_on` also writes an absent one; without it absence is
    /// noted, and is as good as raised: nobody takes it for current.
    async fn raise(&self, node: &PubSubNode, only_on: Option<u64>) -> Option<Reply> {
        let view = self.view()?;
        let (epoch, text) = (view.ring.epoch().to_string(), view.ring.document().text());
        let absent: &[u8] = if only_on.is_some() { b"absent" } else { b"" };
        let (epoch_name, document_name) = (self.names.epoch(), self.names.document());
        let words: [&[u8]; 8] =
            [b"EVAL", RAISE, b"2", &epoch_name, &document_name, epoch.as_bytes(), text.as_bytes(), absent];
        let reply = node.publisher.ask(&words, only_on).await?;
        self.is_current(node, &view, Some(&reply));
        Some(reply)
    }
}
