//! The control log in memory.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use model::{NodeId, PolicyVersion};
use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use tokio::sync::Notify;
use tokio::time::timeout;

use super::{ControlEntry, ControlLog, ControlRecord, ERASURE, LogRead, RIGHT_TO_SEND};
use crate::discovery::embedded::EmbeddedDiscovery;
use crate::health::{Health, Switch};
use crate::{Clock, PortError};

/// Entries kept, 32 B each: minutes of a large installation's revokes. A node polls every few seconds.
const KEPT: usize = 100_000;

/// How often it is looked whether a lease has ended that somebody waits for.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// A list of entries and how far each node has applied it.
pub struct EmbeddedControlLog {
    clock: Clock,
    senders: Arc<EmbeddedDiscovery>,
    log: Mutex<Log>,
    /// Something was appended. Wakes in the order of waiting, so that tests that replay a seed see the same run; a
    /// `watch` would wake in a random one.
    grown: Notify,
    /// How far each node has come.
    confirmed: Mutex<FxHashMap<NodeId, PolicyVersion>>,
    /// Up to which deletion each node has erased.
    erased: Mutex<FxHashMap<NodeId, PolicyVersion>>,
    /// Some node has come further with either.
    confirming: Notify,
    health: Switch,
    /// Of `confirm` alone.
    confirm_health: Switch,
}

struct Log {
    /// Without gaps; the last has the index `end`.
    entries: VecDeque<ControlEntry>,
    end: u64,
    kept: usize,
}

impl EmbeddedControlLog {
    /// An empty one; who is a sender is known to `senders`.
    pub fn new(clock: Clock, senders: Arc<EmbeddedDiscovery>) -> EmbeddedControlLog {
        EmbeddedControlLog::keeping(KEPT, clock, senders)
    }

    /// One that keeps only so many entries, for tests of what comes after.
    pub fn keeping(kept: usize, clock: Clock, senders: Arc<EmbeddedDiscovery>) -> EmbeddedControlLog {
        EmbeddedControlLog {
            clock,
            senders,
            log: Mutex::new(Log { entries: VecDeque::new(), end: 0, kept }),
            grown: Notify::new(),
            confirmed: Mutex::default(),
            erased: Mutex::default(),
            confirming: Notify::new(),
            health: Switch::up("embedded control log"),
            confirm_health: Switch::up("embedded control log"),
        }
    }

    /// Makes it sick or well, for tests.
    pub fn set_health(&self, health: Health) {
        self.health.set(health);
    }

    /// The same for `confirm` alone, as when a store is read-only.
    pub fn set_confirm_health(&self, health: Health) {
        self.confirm_health.set(health);
    }
}

#[async_trait]
impl ControlLog for EmbeddedControlLog {
    async fn append(&self, entry: ControlEntry) -> Result<PolicyVersion, PortError> {
        self.health.ask().await?;
        let index = self.log.lock().append(entry);
        self.grown.notify_waiters();
        self.health.answer(PolicyVersion(index)).await
    }

    async fn read_after(&self, index: PolicyVersion) -> Result<LogRead, PortError> {
        self.health.ask().await?;
        let read = self.log.lock().read_after(index.0);
        self.health.answer(read).await
    }

    async fn end(&self) -> Result<PolicyVersion, PortError> {
        self.health.ask().await?;
        let end = PolicyVersion(self.log.lock().end);
        self.health.answer(end).await
    }

    async fn confirm(&self, node: NodeId, index: PolicyVersion) -> Result<(), PortError> {
        self.health.ask().await?;
        self.confirm_health.ask().await?;
        self.raise(&self.confirmed, node, index);
        self.health.answer(()).await
    }

    async fn settled(&self, index: PolicyVersion) -> Result<(), PortError> {
        let deadline = self.clock.monotonic().after(RIGHT_TO_SEND);
        self.health.ask().await?;
        tokio::select! {
            biased;
            () = self.reached(&self.confirmed, index) => {}
            // May be late when the machine sleeps, which is safe; never early.
            () = tokio::time::sleep(deadline.since(self.clock.monotonic())) => {}
        }
        self.health.answer(()).await
    }

    async fn confirm_erased(&self, node: NodeId, index: PolicyVersion) -> Result<(), PortError> {
        self.health.ask().await?;
        self.raise(&self.erased, node, index);
        self.health.answer(()).await
    }

    async fn erased(&self, index: PolicyVersion) -> Result<(), PortError> {
        self.health.ask().await?;
        if timeout(ERASURE, self.reached(&self.erased, index)).await.is_err() {
            let reason = "a member still holds positions of a deleted user".into();
            return Err(PortError::Unavailable { backend: "embedded control log", reason });
        }
        self.health.answer(()).await
    }

    async fn changed(&self, index: PolicyVersion) {
        loop {
            let grown = self.grown.notified();
            tokio::pin!(grown);
            // Registered before the look, or an append between the two would be missed.
            grown.as_mut().enable();
            if self.log.lock().end > index.0 {
                return;
            }
            grown.await;
        }
    }
}

impl EmbeddedControlLog {
    fn raise(&self, of: &Mutex<FxHashMap<NodeId, PolicyVersion>>, node: NodeId, index: PolicyVersion) {
        {
            let mut said = of.lock();
            let before = said.entry(node).or_default();
            *before = index.max(*before);
        }
        self.confirming.notify_waiters();
    }

    /// Waits until all who are senders now have come to the index or are no senders any more.
    async fn reached(&self, said: &Mutex<FxHashMap<NodeId, PolicyVersion>>, index: PolicyVersion) {
        let mut leaves = self.senders.leaves();
        let mut awaited = self.senders.senders();
        loop {
            let confirming = self.confirming.notified();
            tokio::pin!(confirming);
            confirming.as_mut().enable();
            let senders = self.senders.senders();
            {
                let mut said = said.lock();
                // What a node has said lasts as long as its lease.
                said.retain(|node, _| senders.contains(node));
                let has_come = |node: &NodeId| said.get(node).is_some_and(|reached| *reached >= index);
                awaited.retain(|node| senders.contains(node) && !has_come(node));
            }
            if awaited.is_empty() {
                return;
            }
            tokio::select! {
                biased;
                () = confirming => {}
                // Cannot end: its other half lives in `self`.
                _ = leaves.changed() => {}
                // Nothing tells that a lease has ended.
                () = tokio::time::sleep(LOOK_AGAIN) => {}
            }
        }
    }
}

impl Log {
    fn append(&mut self, entry: ControlEntry) -> u64 {
        if self.entries.len() == self.kept {
            self.entries.pop_front();
        }
        self.entries.push_back(entry);
        self.end += 1;
        self.end
    }

    fn read_after(&self, index: u64) -> LogRead {
        let end = PolicyVersion(self.end);
        let before_first = self.end - self.entries.len() as u64;
        if index < before_first || index > self.end {
            return LogRead::Compacted { end };
        }
        let read = usize::try_from(index - before_first).unwrap_or(usize::MAX);
        let unread = self.entries.iter().zip(before_first + 1..).skip(read);
        let records = unread.map(|(entry, index)| ControlRecord { index: PolicyVersion(index), entry: *entry });
        LogRead::Entries { records: records.collect(), end }
    }
}
