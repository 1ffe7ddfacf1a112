//! Applying the control log, and the right to send.
//!
//! A node loops: *keepalive, answered -> poll the log by a linearizable read, apply what is new -> it may send until
//! min(start of the poll + T, start of the keepalive answered before the poll began + L), by its own clock that counts
//! suspend -> confirm*. A watch only makes the poll come earlier. Whoever revokes waits until every sender has confirmed
//! or T has passed: so nothing goes out after an acknowledged revoke, whatever a node's fate was.
//!
//! The loop awaits the control log, discovery and sockets, and nothing else: no other backend can silence a node.
//! Reading friendships again and erasing deleted users are tasks of their own (`pairs.rs`, `erasure.rs`).
//!
//! A node whose lease ended sends nothing until it has joined again and read the log; its connections stay, because the
//! log says what changed meanwhile. Only a log that begins after the node's place makes them start anew.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use model::{Level, MonotonicMs, PolicyVersion, UserId};
use ports::control::{LogRead, RIGHT_TO_SEND};
use ports::discovery::LEASE;
use ports::{ControlEntry, ControlRecord, PortError};
use protocol::close::CloseCode;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::limits;
use crate::planted::Break;
use crate::shard::{Effects, InFlight, Interests, Pair, Shard};
use crate::shared::Shared;

/// Until when this node may send positions.
#[derive(Debug, Default)]
pub(crate) struct RightToSend {
    until: AtomicU64,
    ended: AtomicBool,
}

impl RightToSend {
    /// Asked at each drain.
    pub(crate) fn holds(&self, now: MonotonicMs) -> bool {
        !self.ended.load(Ordering::Acquire) && now.0 < self.until.load(Ordering::Acquire)
    }

    /// Returns until when it held before.
    fn extend(&self, until: MonotonicMs) -> MonotonicMs {
        MonotonicMs(self.until.swap(until.0, Ordering::AcqRel))
    }

    /// The node stops: the right does not hold any more, whatever a poll that is under way extends.
    pub(crate) fn end(&self) {
        self.ended.store(true, Ordering::Release);
    }
}

struct Control {
    shared: Arc<Shared>,
    applied: PolicyVersion,
    /// Start of the last keepalive that was answered.
    alive_since: Option<MonotonicMs>,
    /// The last confirmation failed.
    unconfirmed: bool,
}

/// Joins and reads up to the end of the log; nothing is sent before that.
pub(crate) async fn begin(shared: &Arc<Shared>) -> Result<PolicyVersion, PortError> {
    let mut control =
        Control { shared: shared.clone(), applied: PolicyVersion(0), alive_since: None, unconfirmed: false };
    control.keep_alive().await?;
    // A fresh node has no edges: it starts at the log's end.
    let started = shared.clock.monotonic();
    let end = patiently(shared.backends.control.end()).await?;
    for shard in 0..shared.shards.len() {
        shared.with_shard(shard, |shard| shard.advance(end));
    }
    control.applied = end;
    // A fresh node holds nothing of anybody.
    shared.confirm_erased(end).await?;
    control.extend(started);
    control.confirm().await?;
    Ok(end)
}

/// Keeps the node's permissions current until `stop`.
pub(crate) async fn run(shared: Arc<Shared>, applied: PolicyVersion, stop: CancellationToken) {
    let mut control = Control { shared: shared.clone(), applied, alive_since: None, unconfirmed: false };
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
        let is_confirmed = turn.is_ok() && control.confirm_or_say().await;
        let pause = if is_confirmed { limits::CONTROL_POLL } else { limits::RETRY };
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = shared.backends.control.changed(control.applied), if is_confirmed => {}
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
        self.extend(started);
        Ok(())
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
        if let Some(alive_since) = self.alive_since {
            if patiently(discovery.keepalive(id)).await.is_ok() {
                self.alive_since = Some(started);
                return Ok(());
            }
            if started.since(alive_since) >= LEASE {
                tracing::warn!("the lease ended: no positions are sent until the control log is read again");
                // Nobody waits for this node any more, and it sends nothing: what was revoked meanwhile is in the log.
                self.alive_since = None;
            }
        }
        patiently(discovery.join(id)).await?;
        self.alive_since = Some(started);
        self.shared.erasures.confirm_again();
        Ok(())
    }

    /// The log was read, in a poll that began then, and applied: positions may be sent for a while.
    fn extend(&self, poll_started: MonotonicMs) {
        let Some(alive_since) = self.alive_since else { return };
        let lease = if self.plants(Break::NoLease) { MonotonicMs(u64::MAX) } else { alive_since.after(LEASE) };
        let ended = self.shared.right.extend(poll_started.after(RIGHT_TO_SEND).min(lease));
        // Looked at only now: it may have ended during this very turn, and whoever drained since then went away with
        // nothing.
        if ended <= self.shared.clock.monotonic() {
            self.ring_all();
        }
    }

    /// Says how far this node has applied the log. Only whoever revokes waits for it: the right to send does not depend
    /// on it.
    async fn confirm(&self) -> Result<(), PortError> {
        patiently(self.shared.backends.control.confirm(self.shared.id, self.applied)).await
    }

    /// The same; says whether it succeeded, and says a failure once.
    async fn confirm_or_say(&mut self) -> bool {
        let confirmed = self.confirm().await;
        match (&confirmed, std::mem::replace(&mut self.unconfirmed, confirmed.is_err())) {
            (Err(error), false) => {
                tracing::warn!(%error, "could not confirm the control log: ends of friendships wait for this node");
            }
            (Ok(()), true) => tracing::info!("the control log is confirmed again"),
            _ => {}
        }
        if confirmed.is_err() {
            self.shared.metrics.failure("control");
        }
        confirmed.is_ok()
    }

    /// Applies the entries in all shards, and waits until what was taken out before is in the kernel or dropped.
    async fn apply(&mut self, records: &[ControlRecord], end: PolicyVersion) {
        for record in records {
            if let ControlEntry::UserDeleted(user) = record.entry {
                self.refuse(user);
            }
        }
        let mut effects = Effects::default();
        for shard in 0..self.shared.shards.len() {
            let ((), begun) = self.shared.with_interests(shard, |shard, interests| {
                for record in records {
                    shard.apply(record, interests, &mut effects);
                    self.obey(shard, record, interests);
                }
                shard.advance(end);
            });
            self.shared.subscriptions.submit(begun);
        }
        self.shared.pair_reads.submit(effects.to_read);
        for record in records {
            if let ControlEntry::UserDeleted(user) = record.entry {
                self.shared.erasures.submit(user, record.index);
            }
        }
        self.applied = end;
        if !self.plants(Break::ConfirmUnderWay) {
            settle(effects.in_flight).await;
        }
    }

    /// Calls that began before this are refused what they bring of a deleted user.
    fn refuse(&self, user: UserId) {
        let now = self.shared.clock.monotonic();
        let mut deleted = self.shared.deleted.lock();
        deleted.retain(|_, at| now.since(*at) < limits::CALL);
        deleted.insert(user, now);
    }

    /// Tests only: takes an entry for what is, as it comes.
    fn obey(&self, shard: &mut Shard, record: &ControlRecord, interests: &mut Interests) {
        let (one, other, level) = match record.entry {
            ControlEntry::Befriended(one, other) if self.plants(Break::ObeyEntries) => (one, other, Some(Level::Exact)),
            ControlEntry::Unfriended(one, other)
                if self.plants(Break::ObeyEntries) || self.plants(Break::EndWithoutRead) =>
            {
                (one, other, None)
            }
            _ => return,
        };
        for (viewer, friend) in [(one, other), (other, one)] {
            shard.pair_read(Pair { viewer, friend }, record.index, level, interests);
        }
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
        self.shared.erasures.submit_everybody(end);
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

pub(crate) async fn patiently<T>(call: impl Future<Output = Result<T, PortError>>) -> Result<T, PortError> {
    match timeout(limits::CONTROL_PATIENCE, call).await {
        Ok(answer) => answer,
        Err(_) => Err(PortError::Unavailable { backend: "control", reason: "no answer in time".into() }),
    }
}
