//! The directories on this process's disk: what happens after one could not be written.
//!
//! A store that failed takes no change any more, and only opening it again tells what is on disk. So the process says
//! that it is not ready, goes on with what needs no disk, and ends as soon as there is room: a supervisor starts it again,
//! and everything acknowledged is there. To end before would only cut everybody off.

use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use ports::store::Store;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use web::Check;

/// How often it is looked whether a store has failed, and then whether there is room.
const LOOK: Duration = Duration::from_millis(500);

/// The stores that are open; a clone is the same list.
#[derive(Clone, Default)]
pub struct Stores(Arc<Mutex<Vec<Weak<Store>>>>);

impl Stores {
    /// Watches this one for as long as somebody has it open.
    pub(crate) fn add(&self, store: &Arc<Store>) {
        let mut stores = self.0.lock();
        stores.retain(|store| store.strong_count() > 0);
        stores.push(Arc::downgrade(store));
    }

    fn failed(&self) -> Option<Arc<Store>> {
        self.0.lock().iter().filter_map(Weak::upgrade).find(|store| store.has_failed())
    }
}

/// Until `stop`. Cancels `restart` when a store has failed and there is room again.
pub(crate) async fn watch(stores: Stores, check: Check, restart: CancellationToken, stop: CancellationToken) {
    check.ready();
    let mut has_failed = false;
    while timeout(LOOK, stop.cancelled()).await.is_err() {
        let Some(store) = stores.failed() else { continue };
        if !std::mem::replace(&mut has_failed, true) {
            check.missing("a write failed: changes and history are not taken");
            tracing::error!("a write to disk failed: nothing is written until this process is started again");
        }
        if spawn_blocking(move || store.has_room()).await.unwrap_or(false) {
            tracing::warn!("the disk takes writes again: this process ends, to be started again");
            return restart.cancel();
        }
    }
}
