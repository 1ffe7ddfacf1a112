//! A value that can be waited for. Whoever waits is woken in the order of coming: tokio's own picks by chance, and a seed
//! is to be one run.

use parking_lot::Mutex;
use tokio::sync::Notify;

pub(crate) struct Gate<T> {
    value: Mutex<T>,
    changed: Notify,
}

impl<T: Copy> Gate<T> {
    pub(crate) fn new(value: T) -> Gate<T> {
        Gate { value: Mutex::new(value), changed: Notify::new() }
    }

    pub(crate) fn set(&self, value: T) {
        *self.value.lock() = value;
        self.changed.notify_waiters();
    }

    pub(crate) fn get(&self) -> T {
        *self.value.lock()
    }

    pub(crate) async fn until(&self, is_due: impl Fn(T) -> bool) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if is_due(self.get()) {
                return;
            }
            changed.await;
        }
    }
}
