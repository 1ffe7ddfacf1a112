//! Erasing what this node still holds of deleted users, and saying so.
//!
//! A part of its own, beside the loop that keeps the right to send: erasing waits for the location cache, the broker and
//! the history, none of which may silence a node.

use std::sync::Arc;

use futures_util::future::join_all;
use model::{PolicyVersion, UserId};
use parking_lot::Mutex;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::bell::Bell;
use crate::limits;
use crate::patience::within;
use crate::shared::Shared;

/// Users whose deletion was applied here and of whom something may still be on its way.
#[derive(Default)]
pub(crate) struct Erasures {
    waiting: Mutex<Vec<(UserId, PolicyVersion)>>,
    wakeup: Bell,
}

impl Erasures {
    /// The deletion at this index was applied: the user's sessions end and nothing more is taken in.
    pub(crate) fn submit(&self, user: UserId, index: PolicyVersion) {
        self.waiting.lock().push((user, index));
        self.wakeup.ring();
    }

    fn take(&self) -> Vec<(UserId, PolicyVersion)> {
        std::mem::take(&mut *self.waiting.lock())
    }
}

/// Erases until `stop`, in the order of the log, and confirms.
pub(crate) async fn run(shared: Arc<Shared>, stop: CancellationToken) {
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = shared.erasures.wakeup.rung() => {}
        }
        let erased = shared.erasures.take();
        let Some(end) = erased.iter().map(|(_, index)| *index).max() else { continue };
        // Together: each waits for what is under way now, and not for what the one before has let begin.
        join_all(erased.iter().map(|(user, _)| shared.pumps[shared.shard_of(*user)].settled())).await;
        join_all(erased.iter().map(|(user, _)| shared.recorder.forget(*user))).await;
        remove_from_cache(&shared, erased.iter().map(|(user, _)| *user).collect()).await;
        while let Err(error) = shared.confirm_erased(end).await {
            tracing::debug!(%error, "an erasure could not be confirmed and will be once more");
            if timeout(limits::RETRY, stop.cancelled()).await.is_ok() {
                return;
            }
        }
    }
}

/// Whoever deletes removes the position once all members have erased. A node that was no member by then, frozen while it
/// wrote, has to do so by itself.
async fn remove_from_cache(shared: &Shared, users: Vec<UserId>) {
    if !matches!(within(limits::CACHE_PATIENCE, shared.backends.cache.remove(&users)).await, Ok(Ok(()))) {
        shared.metrics.failure("cache");
        tracing::debug!(users = users.len(), "positions of deleted users could not be removed and will expire");
    }
}

impl Shared {
    /// Nothing is held here any more of users whose deletion is up to this index.
    pub(crate) async fn confirm_erased(&self, index: PolicyVersion) -> Result<(), ports::PortError> {
        crate::control::patiently(self.backends.control.confirm_erased(self.id, index)).await
    }
}
