//! The control log: one key an entry, and one that holds the newest entry's index.
//!
//! An append is one transaction: *if `control-end` is unchanged since I read it, put the entry and the new end*. So the
//! entries have one order, a read from an index on costs what it returns, and nothing depends on the history of etcd,
//! which may be compacted at any time. Whoever loses the race has been told the new end by the answer, and tries again.
//! Callers of one process go together: who has the turn appends for all who wait.
//!
//! An index is the wall clock of the appender in ms, and at least the one before + 1. The order comes from the
//! transaction, not from the clock; the clock keeps indexes ascending also when etcd has lost its data or a backup was
//! put back: else an old confirmation would count for a new entry.

mod entry;
mod settled;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use entry::Unknown;
use model::{NodeId, PolicyVersion};
use parking_lot::Mutex;
use ports::control::LogRead;
use ports::{Clock, ControlEntry, ControlLog, ControlRecord, PortError};
use settled::Lookout;
use tokio::sync::oneshot::error::TryRecvError;
use tokio::sync::{Semaphore, oneshot, watch};
use tokio::task::JoinSet;

use crate::client::{Failure, NOT_FOUND, Repeat};
use crate::discovery::lease_of;
use crate::keys::{Span, hex};
use crate::kv::{Found, KeyValue, Txn, count, delete, get, list_first, put, put_leased};
use crate::{Etcd, in_time, keys, refused, unavailable, watch as watching};

/// What is kept of the log.
#[derive(Clone, Copy, Debug)]
pub struct Kept {
    /// How long entries are kept: a node that could not read the log for longer lets its connections start anew.
    pub time: Duration,
    /// Entries kept whatever their age: a process whose clock is ahead must not remove what is new.
    pub least: usize,
    /// Entries kept at the most, about 200 B each.
    pub most: usize,
    /// Entries that a reader may be behind: as many as are read within the deadline of a call (2.5 s). A reader that is
    /// further behind would begin from the same place again and again, and is told that it cannot read on.
    pub catch_up: usize,
}

impl Default for Kept {
    fn default() -> Kept {
        Kept { time: Duration::from_secs(600), least: 20_000, most: 200_000, catch_up: 50_000 }
    }
}

/// Entries appended in one transaction; etcd takes 128 operations in one.
const TOGETHER: usize = 100;
/// How many appends of one process come between two looks at how many entries there are. With all processes, this many
/// each are kept in addition.
const TRIM_EVERY: u64 = 64;
/// Entries read with one request.
const PAGE: usize = 1_000;

/// [`ControlLog`] on etcd.
pub struct EtcdControlLog {
    etcd: Etcd,
    clock: Clock,
    kept: Kept,
    /// One append at a time: those of one process need not race each other.
    turn: Semaphore,
    /// Entries that wait for the turn.
    waiting: Mutex<Vec<Pending>>,
    /// Where the log ended when this process last looked; an append that begins from an old one only takes longer.
    tip: Mutex<Tip>,
    appended: AtomicU64,
    /// The highest index that this process has heard of.
    heard: Arc<watch::Sender<u64>>,
    lookout: Arc<Lookout>,
    unknown: Unknown,
    /// Ends with the log.
    _tasks: JoinSet<()>,
}

/// An entry, and whom to tell its index.
type Pending = (ControlEntry, oneshot::Sender<PolicyVersion>);

/// The end of the log.
#[derive(Clone, Copy, Default)]
struct Tip {
    /// When `control-end` was changed; 0 before the first entry.
    revision: u64,
    end: u64,
}

impl EtcdControlLog {
    /// The log of this cluster; begins to watch it, and so must be called in a runtime.
    pub fn new(etcd: Etcd, clock: Clock) -> EtcdControlLog {
        EtcdControlLog::keeping(Kept::default(), etcd, clock)
    }

    /// One with other bounds, for tests of what comes after them.
    pub fn keeping(kept: Kept, etcd: Etcd, clock: Clock) -> EtcdControlLog {
        let heard = Arc::new(watch::Sender::new(0));
        let mut tasks = JoinSet::new();
        tasks.spawn({
            let (etcd, heard) = (etcd.clone(), heard.clone());
            async move {
                let end = etcd.keys.control_end();
                watching::follow(&etcd, &end, |value| raise(&heard, u64::from_str_radix(value, 16).unwrap_or(0))).await;
            }
        });
        let lookout = Arc::new(Lookout::new(etcd.clone()));
        let looking = lookout.clone();
        tasks.spawn(async move { looking.run().await });
        EtcdControlLog {
            etcd,
            clock,
            kept,
            turn: Semaphore::new(1),
            waiting: Mutex::default(),
            tip: Mutex::default(),
            appended: AtomicU64::new(0),
            heard,
            lookout,
            unknown: Unknown::default(),
            _tasks: tasks,
        }
    }

    async fn try_append(&self, entry: ControlEntry) -> Result<PolicyVersion, PortError> {
        let (told, mut index) = oneshot::channel();
        self.waiting.lock().push((entry, told));
        let _turn = self.turn.acquire().await.map_err(|_| unavailable("the log is closed"))?;
        loop {
            match index.try_recv() {
                Ok(index) => return Ok(index),
                Err(TryRecvError::Empty) => {}
                Err(TryRecvError::Closed) => return Err(unavailable("an append for several was broken off")),
            }
            let mut batch = std::mem::take(&mut *self.waiting.lock());
            let later = batch.split_off(batch.len().min(TOGETHER));
            self.waiting.lock().splice(..0, later);
            self.append_all(batch).await?;
        }
    }

    /// Appends these in one transaction, and tells their callers. Those of a caller who has given up are appended, too:
    /// whoever asks for a change may be gone, and the change has been made.
    async fn append_all(&self, batch: Vec<Pending>) -> Result<(), PortError> {
        let end_key = self.etcd.keys.control_end();
        loop {
            let tip = *self.tip.lock();
            let first = (tip.end + 1).max(self.clock.wall().0);
            let mut txn = Txn::default().when_unchanged_since(&end_key, tip.revision).otherwise(get(&end_key));
            let mut end = tip.end;
            for ((entry, _), index) in batch.iter().zip(first..) {
                let stored = entry::encode(*entry, PolicyVersion(end))?;
                txn = txn.then(put(&self.etcd.keys.entry(PolicyVersion(index)), &stored));
                end = index;
            }
            let txn = txn.then(put(&end_key, &hex(end)));
            // Repeated after all, it stands in the log twice, which changes nothing.
            let mut committed = txn.commit(&self.etcd.client, Repeat::Always).await?;
            if committed.succeeded {
                *self.tip.lock() = Tip { revision: committed.revision(), end };
                raise(&self.heard, end);
                for ((_, told), index) in batch.into_iter().zip(first..) {
                    // The caller may have given up.
                    let _ = told.send(PolicyVersion(index));
                }
                return Ok(());
            }
            *self.tip.lock() = tip_in(&committed.found(0))?;
        }
    }

    async fn try_read_after(&self, index: PolicyVersion) -> Result<LogRead, PortError> {
        let mut records: Vec<ControlRecord> = Vec::new();
        let mut read = index;
        loop {
            let span = self.etcd.keys.entries_after(read);
            let txn = Txn::default().then(get(&self.etcd.keys.control_end())).then(list_first(&span, PAGE));
            let mut committed = txn.commit(&self.etcd.client, Repeat::Always).await?;
            let (end, found) = (PolicyVersion(tip_in(&committed.found(0))?.end), committed.found(1));
            if end < read {
                // etcd has lost what this process has heard of; `changed` has to wait for what comes now.
                self.heard.send_replace(end.0);
                return Ok(LogRead::Compacted { end });
            }
            raise(&self.heard, end.0);
            if found.count > self.kept.catch_up {
                return Ok(LogRead::Compacted { end });
            }
            let Some(page) = entry::decode(&found.kvs, read, &self.unknown) else {
                return Ok(LogRead::Compacted { end });
            };
            read = page.read;
            records.extend(page.records);
            if found.count <= found.kvs.len() {
                // Something was removed behind the last entry, or all of them were.
                let whole = read == end;
                return Ok(if whole { LogRead::Entries { records, end } } else { LogRead::Compacted { end } });
            }
        }
    }

    async fn try_end(&self) -> Result<PolicyVersion, PortError> {
        let txn = Txn::default().then(get(&self.etcd.keys.control_end()));
        let mut committed = txn.commit(&self.etcd.client, Repeat::Always).await?;
        Ok(PolicyVersion(tip_in(&committed.found(0))?.end))
    }

    /// A node has come to an index, as `key` says from now on.
    async fn try_reach(&self, node: NodeId, key: &str, index: PolicyVersion) -> Result<(), PortError> {
        let below = index.0.checked_sub(1).map_or(String::new(), hex);
        // Said already, of this or a later index: then nothing is written.
        let txn = Txn::default().when_greater(key, &below).otherwise(put_leased(key, &hex(index.0), lease_of(node)?));
        match txn.commit(&self.etcd.client, Repeat::Always).await {
            Ok(_) => Ok(()),
            Err(Failure::Said { code: NOT_FOUND, .. }) => Err(refused(format!("{node} is no member"))),
            Err(failure) => Err(failure.into()),
        }
    }

    /// Removes the oldest entries, if there are more than are kept in any case: those that are older than they are kept,
    /// and those that are too many.
    async fn trim(&self) -> Result<(), PortError> {
        let entries = self.etcd.keys.entries();
        let client = &self.etcd.client;
        let there = Txn::default().then(count(&entries)).commit(client, Repeat::Always).await?.found(0).count;
        let removable = there.saturating_sub(self.kept.least);
        if removable == 0 {
            return Ok(());
        }
        let txn = Txn::default().then(list_first(&entries, removable.min(PAGE)));
        let mut oldest = txn.commit(client, Repeat::Always).await?.found(0).kvs;
        let surplus = there.saturating_sub(self.kept.most);
        // An index is the wall clock of its append, or a little more.
        let expired = self.clock.wall().before(self.kept.time).0;
        let is_young = |kv: &KeyValue| keys::number(&kv.key).is_some_and(|index| index >= expired);
        let removed = oldest.iter().position(is_young).unwrap_or(oldest.len()).max(surplus.min(oldest.len()));
        oldest.truncate(removed);
        if let Some(last) = oldest.last() {
            let span = Span { to: format!("{}\0", last.key), ..entries };
            Txn::default().then(delete(&span)).commit(client, Repeat::Always).await?;
        }
        Ok(())
    }
}

#[async_trait]
impl ControlLog for EtcdControlLog {
    async fn append(&self, entry: ControlEntry) -> Result<PolicyVersion, PortError> {
        let index = in_time(self.try_append(entry)).await?;
        // The first too, so that processes which never live long keep the bound.
        if self.appended.fetch_add(1, Ordering::Relaxed).is_multiple_of(TRIM_EVERY)
            && let Err(error) = in_time(self.trim()).await
        {
            tracing::debug!(%error, "old entries are removed another time");
        }
        Ok(index)
    }

    async fn read_after(&self, index: PolicyVersion) -> Result<LogRead, PortError> {
        in_time(self.try_read_after(index)).await
    }

    async fn end(&self) -> Result<PolicyVersion, PortError> {
        in_time(self.try_end()).await
    }

    async fn confirm(&self, node: NodeId, index: PolicyVersion) -> Result<(), PortError> {
        in_time(self.try_reach(node, &self.etcd.keys.confirmed(node), index)).await
    }

    async fn settled(&self, index: PolicyVersion) -> Result<(), PortError> {
        self.lookout.wait(index).await;
        Ok(())
    }

    async fn confirm_erased(&self, node: NodeId, index: PolicyVersion) -> Result<(), PortError> {
        in_time(self.try_reach(node, &self.etcd.keys.erased(node), index)).await
    }

    async fn erased(&self, index: PolicyVersion) -> Result<(), PortError> {
        self.lookout.wait_erased(index).await
    }

    async fn changed(&self, index: PolicyVersion) {
        // Fails only when the sender is gone, and it lives in `self`.
        let _ = self.heard.subscribe().wait_for(|heard| *heard > index.0).await;
    }
}

fn raise(heard: &watch::Sender<u64>, index: u64) {
    heard.send_if_modified(|heard| index > *heard && std::mem::replace(heard, index) != index);
}

/// What was read of `control-end`.
fn tip_in(found: &Found) -> Result<Tip, PortError> {
    let Some(kv) = found.kvs.first() else { return Ok(Tip::default()) };
    let end = u64::from_str_radix(&kv.value, 16);
    let end = end.map_err(|_| refused(format!("{} holds {:?}, which is no index", kv.key, kv.value)))?;
    Ok(Tip { revision: kv.mod_revision, end })
}

/// How far each node has come, of those whose key and value are understood.
fn indexes(found: &Found) -> impl Iterator<Item = (NodeId, PolicyVersion)> {
    found.kvs.iter().filter_map(|kv| {
        let index = u64::from_str_radix(&kv.value, 16).ok()?;
        Some((NodeId(keys::number(&kv.key)?), PolicyVersion(index)))
    })
}
