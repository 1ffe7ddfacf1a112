//! What the engine counts. Every drop is counted: marked = delivered + replaced + dropped + queued.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::shard::{Sent, Tally};

/// What became of a reported position; in the order of its counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It is the user's newest.
    Newest,
    /// Older than the user's newest: to the history only.
    Late,
    /// Older than positions are shown: to the history only.
    TooOld,
    /// Above the rate limit.
    RateLimited,
    /// Out of bounds.
    Bad,
    /// Another device of the user shares.
    NotSharing,
}

/// A label with one name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Label {
    kind: &'static str,
}

/// The counters of a family whose labels are known: a look at the family for each count costs a lock and a hash.
#[derive(Clone, Debug)]
struct Kinds<const N: usize> {
    family: Family<Label, Counter>,
    counters: [Counter; N],
}

impl<const N: usize> Kinds<N> {
    fn of(kinds: [&'static str; N]) -> Kinds<N> {
        let family = Family::<Label, Counter>::default();
        let counters = kinds.map(|kind| family.get_or_create(&Label { kind }).clone());
        Kinds { family, counters }
    }
}

/// The engine's counters; clones share them.
#[derive(Clone, Debug)]
pub struct Metrics {
    updates: Kinds<6>,
    news: Kinds<4>,
    outgoing: Kinds<4>,
    outgoing_queued: Gauge,
    /// Users whose newest position the location cache or the broker did not take yet.
    pub(crate) outgoing_owed: Gauge,
    /// News that wait.
    pub(crate) queued: Gauge,
    /// Distances compared with a radius.
    pub(crate) checks: Counter,
    /// From receipt to the socket, seconds.
    pub(crate) age: Histogram,
    /// Connections.
    pub(crate) viewers: Gauge,
    /// Users watched.
    pub(crate) watched: Gauge,
    /// Channels subscribed to.
    pub(crate) subscriptions: Gauge,
    /// Channels whose subscription or read is still to be done.
    pub(crate) owed: Gauge,
    failures: Family<Label, Counter>,
    /// Gaps told by the broker.
    pub(crate) gaps: Counter,
    /// Points that wait for the history.
    pub(crate) history_queued: Gauge,
    history: Family<Label, Counter>,
}

/// Seconds. The promises are 50 ms at the 99th percentile on one node, and 10 ms at half load.
const AGE_BUCKETS: [f64; 12] = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0];

impl Metrics {
    /// Registers the engine's metrics.
    pub fn register(registry: &mut Registry) -> Metrics {
        let metrics = Metrics {
            updates: Kinds::of(["newest", "late", "too_old", "rate_limited", "bad", "not_sharing"]),
            news: Kinds::of(["marked", "delivered", "replaced", "dropped"]),
            outgoing: Kinds::of(["queued", "replaced", "taken", "dropped"]),
            outgoing_queued: Gauge::default(),
            outgoing_owed: Gauge::default(),
            queued: Gauge::default(),
            checks: Counter::default(),
            age: Histogram::new(AGE_BUCKETS),
            viewers: Gauge::default(),
            watched: Gauge::default(),
            subscriptions: Gauge::default(),
            owed: Gauge::default(),
            failures: Family::default(),
            gaps: Counter::default(),
            history_queued: Gauge::default(),
            history: Family::default(),
        };
        let r = registry.sub_registry_with_prefix("nearby");
        r.register("updates", "Positions reported by devices, by what became of them", metrics.updates.family.clone());
        r.register(
            "news",
            "News of a friend for a viewer: marked = delivered + replaced + dropped + queued",
            metrics.news.family.clone(),
        );
        r.register(
            "outgoing",
            "Positions to be sent to cache and broker: queued = replaced + taken + dropped + nearby_outgoing_queued",
            metrics.outgoing.family.clone(),
        );
        r.register("outgoing_queued", "Positions queued to be sent", metrics.outgoing_queued.clone());
        r.register(
            "outgoing_owed",
            "Users whose newest position the location cache or the broker did not take yet",
            metrics.outgoing_owed.clone(),
        );
        r.register("news_queued", "News that wait to be written", metrics.queued.clone());
        r.register("checks", "Distances compared with a radius", metrics.checks.clone());
        r.register_with_unit(
            "update_age",
            "From the receipt of a position to its writing to a friend's socket",
            Unit::Seconds,
            metrics.age.clone(),
        );
        r.register("viewers", "Connections that watch", metrics.viewers.clone());
        r.register("watched_users", "Users watched by a connection, per shard", metrics.watched.clone());
        r.register("subscriptions", "Channels subscribed to", metrics.subscriptions.clone());
        r.register("subscriptions_owed", "Channels to be subscribed to or read", metrics.owed.clone());
        r.register("backend_failures", "Failed or timed out calls, by backend", metrics.failures.clone());
        r.register("gaps", "Gaps told by the broker", metrics.gaps.clone());
        r.register("history_queued", "Points that wait for the history", metrics.history_queued.clone());
        r.register("history_points", "Points for the history, by what became of them", metrics.history.clone());
        metrics
    }

    /// A device reported a position.
    pub fn update(&self, outcome: Outcome) {
        self.updates.counters[outcome as usize].inc();
    }

    pub(crate) fn failure(&self, backend: &'static str) {
        self.failures.get_or_create(&Label { kind: backend }).inc();
    }

    pub(crate) fn history(&self, kind: &'static str, points: usize) {
        self.history.get_or_create(&Label { kind }).inc_by(points as u64);
    }

    /// What became of positions to be sent, since the start, over all shards.
    pub(crate) fn outgoing(&self, sent: Sent, queued: u64) {
        let counts = [sent.queued, sent.replaced, sent.taken, sent.dropped];
        for (counter, count) in self.outgoing.counters.iter().zip(counts) {
            counter.inc_by(count.saturating_sub(counter.get()));
        }
        self.outgoing_queued.set(queued as i64);
    }

    pub(crate) fn tally(&self, tally: Tally) {
        self.checks.inc_by(tally.checks);
        let counts = [tally.marked, tally.delivered, tally.replaced, tally.dropped];
        for (counter, count) in self.news.counters.iter().zip(counts).filter(|(_, count)| *count > 0) {
            counter.inc_by(count);
        }
    }
}
