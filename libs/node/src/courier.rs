//! From the shards to the connections: whoever has news is told, one turn of the courier for all that a turn of the
//! shard brought, and not a task of its own for each.

use std::sync::Arc;

use model::MonotonicMs;
use tokio::sync::Notify;
use tokio::task::yield_now;
use tokio_util::sync::CancellationToken;

use crate::limits;
use crate::shared::Shared;
use crate::signal::Signal;

/// Where a connection's news can be written without its task.
pub trait Outlet: Send + Sync {
    /// There is news. Takes it from the [`crate::Feed`] and writes it, if that can be done without waiting; whatever
    /// cannot is left to the connection's task: its bell is to be rung. Called without any lock of the engine, for one
    /// connection by one thread at a time. `now` is when the turn began; `space` is for whatever is made here, so that
    /// nothing need be allocated for it, and is empty.
    fn deliver(&self, now: MonotonicMs, space: &mut Vec<u8>);
}

/// One shard's courier.
#[derive(Default)]
pub(crate) struct Courier {
    bell: Notify,
}

impl Courier {
    /// Somebody in the shard has news.
    pub(crate) fn ring(&self) {
        self.bell.notify_one();
    }
}

/// Tells whoever has news in this shard, until `stop`. What changes while others are being told is told once.
pub(crate) async fn run(shared: Arc<Shared>, shard: usize, stop: CancellationToken) {
    let courier = &shared.couriers[shard];
    let mut woken: Vec<Arc<Signal>> = Vec::new();
    let mut space = Vec::new();
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = courier.bell.notified() => {}
        }
        loop {
            shared.shards[shard].lock().take_woken(limits::TOLD_PER_TURN, &mut woken);
            let was_all = woken.len() < limits::TOLD_PER_TURN;
            let now = shared.clock.monotonic();
            for signal in woken.drain(..) {
                signal.tell(now, &mut space);
                space.clear();
            }
            if was_all {
                break;
            }
            // Others wait for this core, too: those who read what clients send.
            yield_now().await;
        }
    }
}
