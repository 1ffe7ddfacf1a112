//! Waiting until no node sends by what was before an entry, or until every node has erased a deleted user.
//!
//! It asks again and again instead of watching: the answer is small, comes from one revision, and no stream can hang.
//! All who wait in one process look together, so that a hundred revokes at once ask no more often than one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use model::{NodeId, PolicyVersion};
use ports::PortError;
use ports::control::{ERASURE, RIGHT_TO_SEND};
use rustc_hash::FxHashMap;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::indexes;
use crate::client::Repeat;
use crate::kv::{Found, Txn, list};
use crate::{Etcd, in_time, keys, unavailable};

/// How far two machines' clocks may drift apart while a right to send lasts: 2 parts in a thousand, ten times what a
/// working clock does.
const DRIFT: Duration = Duration::from_millis(20);
/// The first pause between two looks; each is half as long again as the one before, up to the longest, until somebody
/// else begins to wait.
const PAUSE: Duration = Duration::from_millis(4);
const LONGEST_PAUSE: Duration = Duration::from_millis(250);

/// The looks of one process.
pub(super) struct Lookout {
    etcd: Etcd,
    /// Looks that have begun.
    begun: AtomicU64,
    waiting: AtomicUsize,
    /// Somebody began to wait.
    bell: Notify,
    seen: watch::Sender<Arc<Seen>>,
}

/// What a look found.
#[derive(Default)]
struct Seen {
    /// Which look; 0 before the first.
    look: u64,
    senders: Vec<NodeId>,
    confirmed: FxHashMap<NodeId, PolicyVersion>,
    erased: FxHashMap<NodeId, PolicyVersion>,
}

/// What is waited for.
#[derive(Clone, Copy)]
enum Step {
    Confirmed,
    Erased,
}

impl Seen {
    fn reached(&self, step: Step) -> &FxHashMap<NodeId, PolicyVersion> {
        match step {
            Step::Confirmed => &self.confirmed,
            Step::Erased => &self.erased,
        }
    }
}

/// Somebody waits, until dropped.
struct Waiting<'a>(&'a Lookout);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Lookout {
    pub(super) fn new(etcd: Etcd) -> Lookout {
        Lookout {
            etcd,
            begun: AtomicU64::new(0),
            waiting: AtomicUsize::new(0),
            bell: Notify::new(),
            seen: watch::Sender::default(),
        }
    }

    /// Returns once every sender of now has confirmed the index or is none any more, and at the latest when the right
    /// to send has ended which a node may have had at the call. That also holds when etcd does not answer: then it is
    /// only not known who need not be waited for.
    pub(super) async fn wait(&self, index: PolicyVersion) {
        // Tokio's clock stands while the machine sleeps: late is safe.
        let deadline = Instant::now() + RIGHT_TO_SEND + DRIFT;
        let _ = timeout_at(deadline, self.all_have_reached(Step::Confirmed, index)).await;
    }

    /// Returns once every member of now has erased up to the index or is none any more.
    pub(super) async fn wait_erased(&self, index: PolicyVersion) -> Result<(), PortError> {
        let waited = timeout(ERASURE, self.all_have_reached(Step::Erased, index)).await;
        waited.map_err(|_| unavailable("a member still holds positions of a deleted user"))
    }

    async fn all_have_reached(&self, step: Step, index: PolicyVersion) {
        let mut seen = self.seen.subscribe();
        self.waiting.fetch_add(1, Ordering::AcqRel);
        let _waiting = Waiting(self);
        // A look that has begun already may not know the senders of now.
        let first = self.begun.load(Ordering::Acquire) + 1;
        self.bell.notify_one();
        let mut awaited: Option<Vec<NodeId>> = None;
        // Fails only when the sender is gone, and it lives in `self`.
        while seen.changed().await.is_ok() {
            let seen = seen.borrow_and_update().clone();
            if seen.look < first {
                continue;
            }
            let reached = seen.reached(step);
            let is_behind = |node: &NodeId| reached.get(node).is_none_or(|come| *come < index);
            // Who joined since the first look has read the log to its end before sending anything.
            let mut left = awaited.take().unwrap_or_else(|| seen.senders.clone());
            left.retain(|node| seen.senders.contains(node) && is_behind(node));
            if left.is_empty() {
                return;
            }
            awaited = Some(left);
        }
    }

    /// Looks as long as somebody waits; never returns.
    pub(super) async fn run(&self) {
        loop {
            self.bell.notified().await;
            let mut pause = PAUSE;
            while self.waiting.load(Ordering::Acquire) > 0 {
                let number = self.begun.fetch_add(1, Ordering::AcqRel) + 1;
                match in_time(look(&self.etcd)).await {
                    Ok(seen) => {
                        self.seen.send_replace(Arc::new(Seen { look: number, ..seen }));
                    }
                    Err(error) => tracing::debug!(%error, "cannot see who has confirmed"),
                }
                tokio::select! {
                    () = self.bell.notified() => pause = PAUSE,
                    () = sleep(pause) => pause = (pause * 3 / 2).min(LONGEST_PAUSE),
                }
            }
        }
    }
}

/// The senders and how far each node has come, at one revision.
async fn look(etcd: &Etcd) -> Result<Seen, PortError> {
    let keys = &etcd.keys;
    let txn =
        Txn::default().then(list(&keys.senders())).then(list(&keys.all_confirmed())).then(list(&keys.all_erased()));
    let mut committed = txn.commit(&etcd.client, Repeat::Always).await?;
    let mut read = |at| committed.found(at);
    let senders = nodes(&read(0));
    Ok(Seen { look: 0, senders, confirmed: indexes(&read(1)).collect(), erased: indexes(&read(2)).collect() })
}

fn nodes(found: &Found) -> Vec<NodeId> {
    found.kvs.iter().filter_map(|kv| keys::number(&kv.key)).map(NodeId).collect()
}
