//! How far something has come, for those who wait until it has come further.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Notify;

/// A number that only goes up.
#[derive(Debug, Default)]
pub(crate) struct Watermark {
    reached: AtomicU64,
    progress: Notify,
}

impl Watermark {
    /// It has come this far, and wakes who waits for that.
    pub(crate) fn reach(&self, mark: u64) {
        self.reached.fetch_max(mark, Ordering::AcqRel);
        self.progress.notify_waiters();
    }

    /// How far it has come.
    pub(crate) fn reached(&self) -> u64 {
        self.reached.load(Ordering::Acquire)
    }

    /// Waits until it has come this far. Cancel safe.
    pub(crate) async fn wait_for(&self, mark: u64) {
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
