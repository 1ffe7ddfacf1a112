//! What an operator may want to know of the broker.

use std::sync::atomic::{AtomicU64, Ordering};

#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) published: AtomicU64,
    pub(crate) unconfirmed: AtomicU64,
    pub(crate) received: AtomicU64,
    pub(crate) poisoned: AtomicU64,
    pub(crate) reconnects: AtomicU64,
    pub(crate) rings: AtomicU64,
    pub(crate) gaps: AtomicU64,
    pub(crate) deaf: AtomicU64,
}

/// Counts since the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BrokerCounters {
    /// Messages that were given to `publish`, each time that they were.
    pub published: u64,
    /// Those of them that were answered as unconfirmed.
    pub unconfirmed: u64,
    /// Messages that arrived on channels that were wanted.
    pub received: u64,
    /// Messages that were no record of their channel's user, and ring documents that were none.
    pub poisoned: u64,
    /// Subscriber connections that were lost.
    pub reconnects: u64,
    /// Rings that were adopted after the first.
    pub rings: u64,
    /// Gaps that were told, each in any number of channels; without those of a full inbox.
    pub gaps: u64,
    /// Probes that did not come back in time.
    pub probe_failures: u64,
}

impl Counters {
    pub(crate) fn read(&self) -> BrokerCounters {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        BrokerCounters {
            published: of(&self.published),
            unconfirmed: of(&self.unconfirmed),
            received: of(&self.received),
            poisoned: of(&self.poisoned),
            reconnects: of(&self.reconnects),
            rings: of(&self.rings),
            gaps: of(&self.gaps),
            probe_failures: of(&self.deaf),
        }
    }
}
