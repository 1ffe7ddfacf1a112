//! How the engine reaches a connection: a wake-up, a reason to close, and the account of what has been handed over.

use std::fmt;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::sync::{OnceLock, Weak};

use model::MonotonicMs;
use protocol::close::{CLOSE_CODES, CloseCode};

use crate::bell::Bell;
use crate::courier::{Outlet, Space};
use crate::watermark::Watermark;

/// One connection's bell. The shard rings it; the connection's task listens. News go to the connection's [`Outlet`], if
/// it has one, and ring the bell if not.
///
/// `drained` counts how often positions were taken out of the shard for this connection, `flushed` up to which of
/// these they have been handed to the kernel. A revoke is confirmed only when `flushed` has caught up with what was
/// drained before the edge was removed, or the connection is no more.
///
/// What a push touches comes first, on one line of the cache.
#[repr(C)]
pub struct Signal {
    outlet: OnceLock<Weak<dyn Outlet>>,
    drained: AtomicU64,
    flushed: Watermark,
    bell: Bell,
    cut: Bell,
    deadline: AtomicU64,
    close: AtomicU16,
}

const ENDED: u64 = u64::MAX;
const NO_CLOSE: u16 = 0;

impl Default for Signal {
    fn default() -> Signal {
        Signal {
            outlet: OnceLock::new(),
            drained: AtomicU64::new(0),
            flushed: Watermark::default(),
            bell: Bell::default(),
            cut: Bell::default(),
            deadline: AtomicU64::new(u64::MAX),
            close: AtomicU16::new(NO_CLOSE),
        }
    }
}

impl fmt::Debug for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Signal { drained, flushed, .. } = self;
        f.debug_struct("Signal").field("drained", drained).field("flushed", flushed).finish_non_exhaustive()
    }
}

impl Signal {
    /// From now on news go there, as long as it lives. The first one stays.
    pub fn news_to(&self, outlet: Weak<dyn Outlet>) {
        let _ = self.outlet.set(outlet);
    }

    /// Whether there is a connection to write to.
    pub(crate) fn has_outlet(&self) -> bool {
        self.outlet.get().is_some_and(|outlet| outlet.strong_count() > 0)
    }

    /// There is news; for the rest as [`Outlet::deliver`].
    pub(crate) fn tell(&self, now: MonotonicMs, space: &mut Space) {
        match self.outlet.get() {
            None => self.ring(),
            Some(outlet) => outlet.upgrade().into_iter().for_each(|outlet| outlet.deliver(now, space)),
        }
    }

    /// There is something to do: news to drain, a reason to close, a deadline.
    pub fn ring(&self) {
        self.bell.ring();
    }

    /// Waits for the next ring; one that came before is not lost. Cancel safe. Only one task may wait.
    pub async fn rung(&self) {
        self.bell.rung().await;
    }

    /// Asks the connection to close; the first reason stays, except that any reason outranks a restart, which waits.
    pub fn close(&self, code: CloseCode) {
        for replaceable in [NO_CLOSE, CloseCode::Restart.code()] {
            let _ = self.close.compare_exchange(replaceable, code.code(), Ordering::AcqRel, Ordering::Acquire);
        }
        self.ring();
    }

    /// Why the connection has to close, if it has to.
    pub fn closing(&self) -> Option<CloseCode> {
        let code = self.close.load(Ordering::Acquire);
        CLOSE_CODES.into_iter().find(|close| close.code() == code)
    }

    /// Tells the connection to drop its socket with all that is buffered for it.
    pub fn cut(&self) {
        self.cut.ring();
    }

    /// Waits for [`Signal::cut`], which is told once. Cancel safe. Only one task may wait.
    pub async fn is_cut(&self) {
        self.cut.rung().await;
    }

    /// When the connection next wants to be rung whatever happens.
    pub fn wake_at(&self, deadline: MonotonicMs) {
        self.deadline.store(deadline.0, Ordering::Relaxed);
    }

    pub(crate) fn is_due(&self, now: MonotonicMs) -> bool {
        self.deadline.load(Ordering::Relaxed) <= now.0
    }

    /// Called under the shard's lock, with the positions that are taken out.
    pub(crate) fn drained(&self) {
        self.drained.fetch_add(1, Ordering::AcqRel);
    }

    /// Everything drained so far is in the kernel's hands.
    pub fn flushed(&self) {
        // Only the owner of the feed drains, so nothing is drained between the two.
        self.flushed.reach(self.drained.load(Ordering::Acquire));
    }

    /// Nothing will be written any more.
    pub(crate) fn ended(&self) {
        self.flushed.reach(ENDED);
    }

    /// What is under way now, if anything: to be waited for with [`Signal::settled`]. Called under the shard's lock.
    pub(crate) fn in_flight(&self) -> Option<u64> {
        let drained = self.drained.load(Ordering::Acquire);
        (self.flushed.reached() < drained).then_some(drained)
    }

    /// Waits until what was under way has been handed over or dropped.
    pub(crate) async fn settled(&self, drained: u64) {
        self.flushed.wait_for(drained).await;
    }
}
