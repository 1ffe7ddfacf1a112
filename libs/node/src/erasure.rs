//! Erasing what this node still holds of deleted users, and saying so.
//!
//! A part of its own, beside the loop that keeps the right to send: erasing waits for the location cache, the broker and
//! the history, none of which may silence a node.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::future::join_all;
use model::{PolicyVersion, UserId};
use parking_lot::Mutex;
use ports::PortError;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::bell::Bell;
use crate::control::patiently;
use crate::limits;
use crate::patience::within;
use crate::pump::Pump;
use crate::shared::Shared;

/// Users whose deletion was applied here and of whom something may still be on its way.
#[derive(Default)]
pub(crate) struct Erasures {
    waiting: Mutex<Waiting>,
    wakeup: Bell,
    /// Up to which deletion nothing is held.
    confirmed: AtomicU64,
}

#[derive(Default)]
struct Waiting {
    users: Vec<UserId>,
    /// Who was deleted is not known.
    everybody: bool,
    /// The index to be confirmed; `None` if there is nothing to do.
    end: Option<PolicyVersion>,
}

impl Erasures {
    /// The deletion at this index was applied: the user's sessions end and nothing more is taken in.
    pub(crate) fn submit(&self, user: UserId, index: PolicyVersion) {
        self.wait(index, |waiting| waiting.users.push(user));
    }

    /// Deletions up to this index may have been missed; the shards hold no positions from before any more.
    pub(crate) fn submit_everybody(&self, index: PolicyVersion) {
        self.wait(index, |waiting| waiting.everybody = true);
    }

    /// What this node had confirmed went with its lease: it is said again.
    pub(crate) fn confirm_again(&self) {
        self.wait(PolicyVersion(self.confirmed.load(Ordering::Acquire)), |_| {});
    }

    fn wait(&self, index: PolicyVersion, change: impl FnOnce(&mut Waiting)) {
        let mut waiting = self.waiting.lock();
        change(&mut waiting);
        waiting.end = waiting.end.max(Some(index));
        drop(waiting);
        self.wakeup.ring();
    }

    fn take(&self) -> Waiting {
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
        let Waiting { users, everybody, end: Some(end) } = shared.erasures.take() else { continue };
        if everybody {
            // What is written by now is removed by whoever deletes, once all members have confirmed.
            join_all(shared.pumps.iter().map(Pump::settled)).await;
            shared.recorder.written_so_far().await;
        }
        // Together: each waits for what is under way now, and not for what the one before has let begin.
        join_all(users.iter().map(|user| shared.pumps[shared.shard_of(*user)].settled())).await;
        join_all(users.iter().map(|user| shared.recorder.forget(*user))).await;
        remove_from_cache(&shared, users).await;
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
    if users.is_empty() {
        return;
    }
    if !matches!(within(limits::CACHE_PATIENCE, shared.backends.cache.remove(&users)).await, Ok(Ok(()))) {
        shared.metrics.failure("cache");
        tracing::debug!(users = users.len(), "positions of deleted users could not be removed and will expire");
    }
}

impl Shared {
    /// Nothing is held here any more of users whose deletion is up to this index.
    pub(crate) async fn confirm_erased(&self, index: PolicyVersion) -> Result<(), PortError> {
        patiently(self.backends.control.confirm_erased(self.id, index)).await?;
        self.erasures.confirmed.fetch_max(index.0, Ordering::AcqRel);
        Ok(())
    }
}
