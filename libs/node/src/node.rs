//! One node: its tasks, from start to stop.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use model::{NodeId, UserId};
use parking_lot::Mutex;
use ports::{Clock, Inbox, PortError};
use prometheus_client::registry::Registry;
use protocol::close::CloseCode;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::breaker::Breaker;
use crate::control::{self, RightToSend};
use crate::courier::{self, Courier};
use crate::erasure::{self, Erasures};
use crate::feed::Feed;
use crate::interest::Interest;
use crate::metrics::Metrics;
use crate::pairs::{self, PairReads};
use crate::pump::{self, Pump};
use crate::rate::CallRates;
use crate::recorder::{self, Recorder};
use crate::registry::{self, Members, StalePositions};
use crate::session::Session;
use crate::settings::Settings;
use crate::shard::{Sent, Shard};
use crate::shared::{Backends, Shared};
use crate::subscriptions::{self, Subscriptions};
use crate::{fanout, limits};

/// A running engine.
pub struct Node {
    pub(crate) shared: Arc<Shared>,
    tasks: TaskTracker,
    /// Ends what feeds the shards and reads the control log.
    stop: CancellationToken,
    /// Ends the way to cache, broker and history, after everything else.
    stop_pumps: CancellationToken,
}

impl Node {
    /// Joins the other nodes and starts the engine. An error if control log or discovery cannot be reached: a node
    /// that does not know what was revoked may not begin.
    pub async fn start(
        id: NodeId,
        settings: Settings,
        backends: Backends,
        inbox: Inbox,
        clock: Clock,
        registry: &mut Registry,
    ) -> Result<Node, PortError> {
        assert!((1..=limits::SHARDS).contains(&settings.shards), "shards: 1 to {}", limits::SHARDS);
        let metrics = Metrics::register(registry);
        let shared = Arc::new(Shared {
            id,
            settings,
            clock,
            backends,
            shards: (0..settings.shards).map(|_| Mutex::new(Shard::default().with_ttl(settings.ttl))).collect(),
            pumps: (0..settings.shards).map(|_| Pump::default()).collect(),
            couriers: (0..settings.shards).map(|_| Courier::default()).collect(),
            interest: Interest::new(),
            subscriptions: Subscriptions::default(),
            recorder: Recorder::new(metrics.clone()),
            right: RightToSend::default(),
            pair_reads: PairReads::default(),
            erasures: Erasures::default(),
            metrics,
            breaker: Breaker::default(),
            sessions_begun: AtomicU64::new(0),
            last_sequence: AtomicU64::new(0),
            call_rates: CallRates::default(),
            members: Members::default(),
            stale: StalePositions::default(),
            deleted: Mutex::default(),
            closing: AtomicBool::new(false),
        });
        let applied = control::begin(&shared).await?;
        let node = Node {
            shared,
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
            stop_pumps: CancellationToken::new(),
        };
        node.spawn(fanout::run(node.shared.clone(), inbox, node.stop.clone()));
        node.spawn(control::run(node.shared.clone(), applied, node.stop.clone()));
        node.spawn(pairs::run(node.shared.clone(), node.stop.clone()));
        node.spawn(erasure::run(node.shared.clone(), node.stop.clone()));
        node.spawn(subscriptions::run(node.shared.clone(), node.stop.clone()));
        node.spawn(subscriptions::give_up(node.shared.clone(), node.stop.clone()));
        node.spawn(registry::listen(node.shared.clone(), node.stop.clone()));
        node.spawn(registry::renew(node.shared.clone(), node.stop.clone()));
        node.spawn(registry::look_up_stale(node.shared.clone(), node.stop.clone()));
        node.spawn(tick(node.shared.clone(), node.stop.clone()));
        node.spawn(keep_history_short(node.shared.clone(), node.stop.clone()));
        for shard in 0..settings.shards {
            node.spawn(courier::run(node.shared.clone(), shard, node.stop.clone()));
            node.spawn(pump::run(node.shared.clone(), shard, node.stop_pumps.clone()));
        }
        node.spawn(recorder::run(node.shared.clone(), node.stop_pumps.clone()));
        Ok(node)
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        match self.shared.settings.freezer {
            None => self.tasks.spawn(task),
            Some(freezer) => self.tasks.spawn(freezer.around(task)),
        };
    }

    /// This process's id.
    pub fn id(&self) -> NodeId {
        self.shared.id
    }

    /// The settings it runs with.
    pub fn settings(&self) -> &Settings {
        &self.shared.settings
    }

    /// The clock it runs by.
    pub fn clock(&self) -> Clock {
        self.shared.clock
    }

    /// Its counters.
    pub fn metrics(&self) -> &Metrics {
        &self.shared.metrics
    }

    /// Whether it may send positions at the moment; false means control log or discovery are out of reach.
    pub fn may_send(&self) -> bool {
        self.shared.right.holds(self.shared.clock.monotonic())
    }

    /// A connection of this user begins: what it says goes to the [`Session`], what it is told comes from the [`Feed`].
    pub fn open(&self, user: UserId) -> (Session, Feed) {
        Session::open(self.shared.clone(), user)
    }

    /// Whether every connection was asked to close: no new one is to begin.
    pub fn is_closing(&self) -> bool {
        self.shared.closing.load(Ordering::Acquire)
    }

    /// Asks every connection to close with this code.
    pub fn close_all(&self, code: CloseCode) {
        // First: a connection that begins too late to be asked sees it.
        self.shared.closing.store(true, Ordering::Release);
        for shard in 0..self.shared.shards.len() {
            self.shared.with_shard(shard, |shard| shard.close_all(code));
        }
    }

    /// News that wait to be written, over all shards.
    pub fn queued(&self) -> u64 {
        self.shared.shards.iter().map(|shard| shard.lock().queued()).sum()
    }

    /// What became of positions that were to be sent, over all shards, and how many are queued; and of how many users the
    /// location cache or the broker did not take the newest yet.
    pub fn outgoing(&self) -> (Sent, u64, u64) {
        let (mut sent, mut queued) = (Sent::default(), 0);
        for shard in &self.shared.shards {
            let shard = shard.lock();
            sent = sent.and(shard.sent());
            queued += shard.outgoing();
        }
        (sent, queued, self.shared.metrics.outgoing_owed.get() as u64)
    }

    /// Channels subscribed to, and channels whose subscription or read is still owed.
    pub fn subscriptions(&self) -> (usize, usize) {
        self.shared.interest.counts()
    }

    /// Sends and writes what waits, leaves the other nodes, ends all tasks. To be called when the connections are
    /// closed: no position is handed to a connection any more. What cannot be written within `patience` is given up,
    /// and that is an error, which says how many points of the history it was.
    pub async fn stop(&self, patience: Duration) -> Result<(), PortError> {
        // First: nobody who revokes waits for a node that has left.
        self.shared.right.end();
        self.stop.cancel();
        let deadline = Instant::now() + patience;
        // Not longer than half of it: what a broker that hangs leaves undone must not take the history's time.
        let flushed = timeout(patience / 2, self.flush()).await;
        self.stop_pumps.cancel();
        self.tasks.close();
        let ended = timeout_at(deadline, self.tasks.wait()).await;
        let lost = self.shared.recorder.give_up();
        let left = control::patiently(self.shared.backends.discovery.leave(self.shared.id)).await;
        if lost > 0 {
            let reason = format!("did not take {lost} points before the deadline of the stop");
            return Err(PortError::Unavailable { backend: "history", reason });
        }
        flushed.and(ended).map_err(|_| PortError::Unavailable {
            backend: "cache, broker or history",
            reason: "did not take everything before the deadline of the stop".into(),
        })?;
        left
    }

    async fn flush(&self) {
        for shard in 0..self.shared.pumps.len() {
            pump::flush(&self.shared, shard).await;
        }
    }
}

/// One ticker for all deadlines and expiry: no timer per connection.
async fn tick(shared: Arc<Shared>, stop: CancellationToken) {
    let mut ticks = interval(limits::TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let now = shared.clock.monotonic();
        let (mut viewers, mut watched, mut queued) = (0, 0, 0);
        let (mut sent, mut outgoing) = (Sent::default(), 0);
        for shard in 0..shared.shards.len() {
            let mut silent = Vec::new();
            let mut due = Vec::new();
            shared.with_shard(shard, |shard| {
                shard.expire(now, &mut silent);
                shard.ring_due(now, &mut due);
                let population = shard.population();
                viewers += population.0;
                watched += population.1;
                queued += shard.queued();
                sent = sent.and(shard.sent());
                outgoing += shard.outgoing();
            });
            due.iter().for_each(|signal| signal.ring());
            silent.iter().for_each(|&user| shared.interest.lost(user));
            shared.subscriptions.submit(silent);
        }
        shared.metrics.viewers.set(viewers as i64);
        shared.metrics.watched.set(watched as i64);
        shared.metrics.queued.set(queued as i64);
        shared.metrics.outgoing(sent, outgoing);
    }
}

/// How often old days are looked for.
const RETENTION_SWEEP: Duration = Duration::from_secs(3_600);

async fn keep_history_short(shared: Arc<Shared>, stop: CancellationToken) {
    let mut sweeps = interval(RETENTION_SWEEP);
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            _ = sweeps.tick() => {}
        }
        let oldest = shared.clock.wall().before(shared.settings.retention).day();
        if let Err(error) = shared.backends.history.drop_days_before(oldest).await {
            shared.metrics.failure("history");
            tracing::warn!(%error, "old days of the history could not be dropped and will be tried again");
        }
    }
}
