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

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Waker};

    use super::*;

    #[test]
    fn rings_before_anybody_listens_are_heard_once() {
        let bell = Bell::default();
        let mut cx = Context::from_waker(Waker::noop());
        bell.ring();
        bell.ring();
        assert!(pin!(bell.rung()).poll(&mut cx).is_ready());
        let mut next = pin!(bell.rung());
        assert!(next.as_mut().poll(&mut cx).is_pending());
        bell.ring();
        assert!(next.poll(&mut cx).is_ready());
    }

    /// Two threads and no pause: a ring that were lost would leave the listener waiting for ever.
    #[test]
    fn the_last_of_many_rings_is_not_lost() {
        let (bell, rings) = (Bell::default(), std::sync::atomic::AtomicU32::new(0));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..100_000 {
                    rings.fetch_add(1, Ordering::Relaxed);
                    bell.ring();
                }
            });
            let listens = async {
                while rings.load(Ordering::Relaxed) < 100_000 {
                    bell.rung().await;
                }
            };
            tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(listens);
        });
    }
}
