//! What an operator may want to know of the broker.

use std::sync::atomic::{AtomicU64, Ordering};

#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) poisoned: AtomicU64,
    pub(crate) reconnects: AtomicU64,
    pub(crate) rings: AtomicU64,
}

/// Counts since the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BrokerCounters {
    /// Messages that were no record of their channel's user, and ring documents that were none.
    pub poisoned: u64,
    /// Subscriber connections that were lost.
    pub reconnects: u64,
    /// Rings that were adopted.
    pub rings: u64,
}

impl Counters {
    pub(crate) fn read(&self) -> BrokerCounters {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        BrokerCounters { poisoned: of(&self.poisoned), reconnects: of(&self.reconnects), rings: of(&self.rings) }
    }
}
