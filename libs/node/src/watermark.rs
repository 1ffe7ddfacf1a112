//! How far something has come, for those who wait until it has come further.

use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicU64, AtomicUsize};

use tokio::sync::Notify;

/// A number that only goes up.
#[derive(Debug, Default)]
pub(crate) struct Watermark {
    reached: AtomicU64,
    /// So many wait: hardly ever anybody, and to look costs less than to wake nobody.
    waiting: AtomicUsize,
    progress: Notify,
}

/// Somebody waits.
struct Waiting<'a>(&'a Watermark);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, SeqCst);
    }
}

impl Watermark {
    /// It has come this far, and wakes who waits for that.
    pub(crate) fn reach(&self, mark: u64) {
        // One order for all: either who waits is seen here, or sees this.
        self.reached.fetch_max(mark, SeqCst);
        if self.waiting.load(SeqCst) > 0 {
            self.progress.notify_waiters();
        }
    }

    /// How far it has come.
    pub(crate) fn reached(&self) -> u64 {
        self.reached.load(SeqCst)
    }

    /// Waits until it has come this far. Cancel safe.
    pub(crate) async fn wait_for(&self, mark: u64) {
        self.waiting.fetch_add(1, SeqCst);
        let _waiting = Waiting(self);
        loop {
            let progress = self.progress.notified();
            tokio::pin!(progress);
            // Registered before the look, or progress between the two would be missed.
            progress.as_mut().enable();
            if self.reached() >= mark {
                return;
            }
            progress.await;
        }
    }
}
