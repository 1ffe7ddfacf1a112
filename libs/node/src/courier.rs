//! From the shards to the connections: whoever has news is told, one turn of the courier for all that a turn of the
//! shard brought, and not a task of its own for each.

use std::hint::black_box;
use std::pin::pin;
use std::sync::Arc;

use model::MonotonicMs;
use protocol::client::FriendTexts;
use tokio::task::yield_now;
use tokio_util::sync::CancellationToken;

use crate::bell::Bell;
use crate::limits;
use crate::shared::Shared;
use crate::signal::Signal;

/// What frames are made with, kept from one connection to the next, so that nothing need be allocated or made twice.
#[derive(Debug, Default)]
pub struct Space {
    /// For the bytes of the frames. Empty when it is handed out.
    pub bytes: Vec<u8>,
    /// The texts that were made last.
    pub texts: FriendTexts,
}

/// Where a connection's news can be written without its task.
pub trait Outlet: Send + Sync {
    /// There is news. Takes it from the [`crate::Feed`] and writes it, if that can be done without waiting; whatever
    /// cannot is left to the connection's task: its bell is to be rung. Called without any lock of the engine, for one
    /// connection by one thread at a time. `now` is when the turn began; `space` is for whatever is made here.
    fn deliver(&self, now: MonotonicMs, space: &mut Space);
}

/// One shard's courier.
#[derive(Default)]
pub(crate) struct Courier {
    bell: Bell,
}

impl Courier {
    /// Somebody in the shard has news.
    pub(crate) fn ring(&self) {
        self.bell.ring();
    }
}

/// Tells whoever has news in this shard, until `stop`. What changes while others are being told is told once.
pub(crate) async fn run(shared: Arc<Shared>, shard: usize, stop: CancellationToken) {
    let courier = &shared.couriers[shard];
    let mut woken: Vec<Arc<Signal>> = Vec::new();
    let mut space = Space { texts: FriendTexts::new(limits::TEXTS), ..Space::default() };
    let mut stopped = pin!(stop.cancelled());
    loop {
        tokio::select! {
            biased;
            () = &mut stopped => return,
            () = courier.bell.rung() => {}
        }
        loop {
            shared.shards[shard].lock().take_woken(limits::TOLD_PER_TURN, &mut woken);
            let was_all = woken.len() < limits::TOLD_PER_TURN;
            // All are on their way at once. Loads that nobody waits for: what `black_box` takes may not be left out.
            black_box(woken.iter().filter(|signal| signal.has_outlet()).count());
            let now = shared.clock.monotonic();
            for signal in woken.drain(..) {
                signal.tell(now, &mut space);
                space.bytes.clear();
            }
            if was_all {
                break;
            }
            // Others wait for this core, too: those who read what clients send.
            yield_now().await;
        }
    }
}
