//! What tests do to a node on purpose. In production both are absent.
//!
//! A test that searches for violations of a protocol shows nothing unless it finds those that were planted: each
//! [`Break`] takes away one thing that a protocol rests on. A [`Freezer`] stops a node's tasks as SIGSTOP stops a
//! process: nothing of it runs, and the world goes on.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;

/// One thing that a protocol rests on, and that this node does not do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Break {
    /// Connect: reads the friends as if it registered only afterwards.
    ReadBeforeRegistering,
    /// Connect: applies what was read although entries of the control log arrived meanwhile.
    IgnoreEntries,
    /// Write order: publishes, and only then puts into the cache.
    PublishBeforeCache,
    /// Write order: reads the cache, and only then subscribes.
    ReadBeforeSubscribed,
    /// Write order: does not read the cache after a gap.
    NoReadAfterGap,
    /// Write order: sends positions out ordered by the wall clock of the node that took them in.
    OrderByWallClock,
    /// Revoke: confirms what it read, and only then applies it.
    ConfirmBeforeApplying,
    /// Revoke: confirms without waiting for what was taken out and may not have reached the kernel.
    ConfirmUnderWay,
    /// Revoke: goes on with what was allowed before when the control log begins after its own place.
    KeepAfterCompaction,
    /// Changes of a pair: takes each entry for what is, as it comes.
    ObeyEntries,
    /// Changes of a pair: applies what was read although another entry came since the read began.
    ReadDespiteEntry,
    /// Changes of a pair: does not read the pair again after an end.
    EndWithoutRead,
    /// Right to send: counts from the answer of the poll instead of its start.
    CountFromAnswer,
    /// Right to send: takes the lease of a keepalive that was answered after the poll began.
    LeaseDuringPoll,
    /// Right to send: forgets the lease.
    NoLease,
    /// Right to send: drains and writes without asking for it.
    NeverAsk,
    /// Right to send: asks when draining, and not again when the socket is ready.
    WriteWithoutAsking,
}

/// Holds up what runs within [`Freezer::around`] while it is frozen.
#[derive(Debug, Default)]
pub struct Freezer {
    frozen: AtomicBool,
    held_up: Mutex<Vec<Waker>>,
}

impl Freezer {
    /// Nothing runs from now on.
    pub fn freeze(&self) {
        self.frozen.store(true, Ordering::Release);
    }

    /// Everything goes on where it was.
    pub fn thaw(&self) {
        self.frozen.store(false, Ordering::Release);
        let held_up = std::mem::take(&mut *self.held_up.lock());
        held_up.into_iter().for_each(Waker::wake);
    }

    /// Whether nothing runs.
    pub fn is_frozen(&self) -> bool {
        self.frozen.load(Ordering::Acquire)
    }

    /// Runs a part of the node.
    pub async fn around<T>(&self, part: impl Future<Output = T>) -> T {
        let mut part = pin!(part);
        poll_fn(|cx| if self.holds_up(cx) { Poll::Pending } else { part.as_mut().poll(cx) }).await
    }

    fn holds_up(&self, cx: &Context<'_>) -> bool {
        // The fast path needs no lock: tests freeze and thaw from the one thread that also runs the node.
        if !self.is_frozen() {
            return false;
        }
        self.held_up.lock().push(cx.waker().clone());
        true
    }
}
