//! A wake-up for one task: rung by anybody, as often as they like, and heard once.

use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;

use futures_util::task::AtomicWaker;

/// What tokio's `Notify` is for a single listener, without its list of listeners and that list's lock.
#[derive(Debug, Default)]
pub(crate) struct Bell {
    rung: AtomicBool,
    task: AtomicWaker,
}

impl Bell {
    /// There is something to do.
    pub(crate) fn ring(&self) {
        self.rung.store(true, Ordering::Release);
        self.task.wake();
    }

    /// Waits for the next ring; one that came before is not lost. Cancel safe. Only one task may wait.
    pub(crate) async fn rung(&self) {
        poll_fn(|cx| {
            if self.take() {
                return Poll::Ready(());
            }
            // Registered before another look, or a ring between the two would be missed.
            self.task.register(cx.waker());
            if self.take() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    fn take(&self) -> bool {
        self.rung.swap(false, Ordering::AcqRel)
    }
}
