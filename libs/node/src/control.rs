//! Applying the control log, and the right to send.
//!
//! A node loops: *keepalive, answered -> poll the log by a linearizable read, apply what is new, confirm -> it may send
//! until min(start of the poll + T, start of the keepalive answered before the poll began + L)*, by its own clock that
//! counts suspend. A watch only makes the poll come earlier. Whoever revokes waits until every sender has confirmed or
//! T has passed: so nothing goes out after an acknowledged revoke, whatever a node's fate was.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use model::{MonotonicMs, PolicyVersion, UserId};
use ports::control::{LogRead, RIGHT_TO_SEND};
use ports::discovery::LEASE;
use ports::{ControlEntry, ControlRecord, PortError};
use protocol::close::CloseCode;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::limits;
use crate::planted::Break;
use crate::shard::InFlight;
use crate::shared::Shared;

/// Until when this node may send positions.
#[derive(Debug, Default)]
pub(crate) struct RightToSend(AtomicU64);

impl RightToSend {
    /// Asked at each drain.
    pub(crate) fn holds(&self, now: MonotonicMs) -> bool {
        now.0 < self.0.load(Ordering::Acquire)
    }

    /// Returns until when it held before.
    fn extend(&self, until: MonotonicMs) -> MonotonicMs {
        MonotonicMs(self.0.swap(until.0, Ordering::AcqRel))
    }
}

struct Control {
    shared: Arc<Shared>,
    applied: PolicyVersion,
    /// Start of the last keepalive that was answered.
    alive_since: Option<MonotonicMs>,
}

/// Joins and reads up to the end of the log; nothing is sent before that.
pub(crate) async fn begin(shared: &Arc<Shared>) -> Result<PolicyVersion, PortError> {
    let mut control = Control { shared: shared.clone(), applied: PolicyVersion(0), alive_since: None };
    control.keep_alive().await?;
    // A fresh node has no edges: it starts at the log's end.
    let started = shared.clock.monotonic();
    let end = patiently(shared.backends.control.end()).await?;
    for shard in 0..shared.shards.len() {
        shared.with_shard(shard, |shard| shard.advance(end));
    }
    control.applied = end;
    // A fresh node holds nothing of anybody.
    patiently(shared.backends.control.confirm_erased(shared.id, end)).await?;
    control.confirm_and_extend(started).await?;
    Ok(end)
}

/// Keeps the node's permissions current until `stop`.
pub(crate) async fn run(shared: Arc<Shared>, applied: PolicyVersion, stop: CancellationToken) {
    let mut control = Control { shared: shared.clone(), applied, alive_since: None };
    let mut failing = false;
    loop {
        let turn = control.turn().await;
        match (&turn, std::mem::replace(&mut failing, turn.is_err())) {
            (Err(error), false) => {
                tracing::warn!(%error, "could not read the control log; positions stop when the right to send ends");
            }
            (Err(error), true) => tracing::debug!(%error, "still could not read the control log"),
            (Ok(()), true) => tracing::info!("the control log is read again"),
            (Ok(()), false) => {}
        }
        if failing {
            shared.metrics.failure("control");
        }
        let pause = if turn.is_ok() { limits::CONTROL_POLL } else { limits::RETRY };
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = shared.backends.control.changed(control.applied), if turn.is_ok() => {}
            () = sleep(pause) => {}
        }
    }
}

impl Control {
    async fn turn(&mut self) -> Result<(), PortError> {
        if !self.plants(Break::LeaseDuringPoll) {
            self.keep_alive_in_time().await?;
        }
        let started = self.shared.clock.monotonic();
        let read = patiently(self.shared.backends.control.read_after(self.applied)).await?;
        let started = if self.plants(Break::CountFromAnswer) { self.shared.clock.monotonic() } else { started };
        if self.plants(Break::ConfirmBeforeApplying) {
            let (LogRead::Entries { end, .. } | LogRead::Compacted { end }) = read;
            patiently(self.shared.backends.control.confirm(self.shared.id, end)).await?;
        }
        match read {
            LogRead::Entries { records, end } => self.apply(&records, end).await,
            LogRead::Compacted { end } => {
                tracing::warn!("the control log was compacted beyond this node's place: all connections start anew");
                self.forget_permissions(end).await;
            }
        }
        if self.plants(Break::LeaseDuringPoll) {
            self.keep_alive_in_time().await?;
        }
        self.confirm_and_extend(started).await
    }

    fn plants(&self, broken: Break) -> bool {
        self.shared.plants(broken)
    }

    async fn keep_alive_in_time(&mut self) -> Result<(), PortError> {
        let now = self.shared.clock.monotonic();
        let is_due = self.alive_since.is_none_or(|since| now.since(since) >= limits::KEEPALIVE);
        if is_due { self.keep_alive().await } else { Ok(()) }
    }

    async fn keep_alive(&mut self) -> Result<(), PortError> {
        let started = self.shared.clock.monotonic();
        let discovery = self.shared.backends.discovery.clone();
        let id = self.shared.id;
        if self.alive_since.is_some() {
            if patiently(discovery.keepalive(id)).await.is_ok() {
                self.alive_since = Some(started);
                return Ok(());
            }
            // The lease may have ended: what this node's connections were allowed is not known any more.
            if started.since(self.alive_since.unwrap_or_default()) >= LEASE {
                tracing::warn!("the lease ended: all connections start anew");
                self.start_anew(self.applied);
                // Once: who connects from now on is judged by the log, which is read before anything is sent again.
                self.alive_since = None;
            }
        }
        patiently(discovery.join(id)).await?;
        self.alive_since = Some(started);
        Ok(())
    }

    async fn confirm_and_extend(&self, poll_started: MonotonicMs) -> Result<(), PortError> {
        let shared = &self.shared;
        patiently(shared.backends.control.confirm(shared.id, self.applied)).await?;
        if let Some(alive_since) = self.alive_since {
            let lease = if self.plants(Break::NoLease) { MonotonicMs(u64::MAX) } else { alive_since.after(LEASE) };
            let ended = shared.right.extend(poll_started.after(RIGHT_TO_SEND).min(lease));
            // Looked at only now: it may have ended during this very turn, and whoever drained since then went away
            // with nothing.
            if ended <= shared.clock.monotonic() {
                self.ring_all();
            }
        }
        Ok(())
    }

    /// Applies the entries in all shards, and waits until what was taken out before is in the kernel or dropped.
    async fn apply(&mut self, records: &[ControlRecord], end: PolicyVersion) {
        let mut in_flight: Vec<InFlight> = Vec::new();
        for shard in 0..self.shared.shards.len() {
            let ((), begun) = self.shared.with_interests(shard, |shard, interests| {
                for record in records {
                    shard.apply(record, interests, &mut in_flight);
                }
                shard.advance(end);
            });
            self.shared.subscriptions.submit(begun);
        }
        for record in records {
            if let ControlEntry::UserDeleted(user) = record.entry {
                self.forget(user).await;
                let _ = patiently(self.shared.backends.control.confirm_erased(self.shared.id, record.index)).await;
            }
        }
        self.applied = end;
        if !self.plants(Break::ConfirmUnderWay) {
            settle(in_flight).await;
        }
    }

    /// Nothing of a deleted user may reach cache, history or broker after this.
    async fn forget(&self, user: UserId) {
        let now = self.shared.clock.monotonic();
        {
            let mut deleted = self.shared.deleted.lock();
            deleted.retain(|_, at| now.since(*at) < limits::CALL);
            deleted.insert(user, now);
        }
        self.shared.pumps[self.shared.shard_of(user)].forget(user).await;
        self.shared.recorder.forget(user).await;
    }

    /// What was revoked is not known: nobody here sees anybody until they have connected again. A close alone would not
    /// do, because a connection that is to close for a restart is served until its moment comes.
    async fn forget_permissions(&mut self, end: PolicyVersion) {
        let mut in_flight = Vec::new();
        if !self.plants(Break::KeepAfterCompaction) {
            for shard in 0..self.shared.shards.len() {
                self.shared.with_interests(shard, |shard, interests| {
                    shard.forget_permissions(interests, &mut in_flight);
                });
            }
        }
        self.start_anew(end);
        settle(in_flight).await;
    }

    fn start_anew(&mut self, applied: PolicyVersion) {
        self.applied = applied;
        for shard in 0..self.shared.shards.len() {
            self.shared.with_shard(shard, |shard| {
                shard.close_all(CloseCode::Restart);
                shard.advance(applied);
            });
        }
    }

    fn ring_all(&self) {
        let mut signals = Vec::new();
        for shard in &self.shared.shards {
            shard.lock().ring_due(MonotonicMs(u64::MAX), &mut signals);
        }
        signals.iter().for_each(|signal| signal.ring());
    }
}

/// Waits for connections to hand over what they had taken out; cuts those that do not within
/// [`limits::FLUSH_PATIENCE`].
async fn settle(in_flight: Vec<InFlight>) {
    let all = async {
        for InFlight { signal, drained } in &in_flight {
            signal.settled(*drained).await;
        }
    };
    if timeout(limits::FLUSH_PATIENCE, all).await.is_ok() {
        return;
    }
    for InFlight { signal, drained } in in_flight {
        if signal.in_flight().is_some() {
            signal.cut();
            // The connection's task drops its socket without waiting for anything.
            if timeout(Duration::from_secs(1), signal.settled(drained)).await.is_err() {
                tracing::error!("a connection that was cut did not end");
                signal.settled(drained).await;
            }
        }
    }
}

async fn patiently<T>(call: impl Future<Output = Result<T, PortError>>) -> Result<T, PortError> {
    match timeout(limits::CONTROL_PATIENCE, call).await {
        Ok(answer) => answer,
        Err(_) => Err(PortError::Unavailable { backend: "control", reason: "no answer in time".into() }),
    }
}
