//! Which connection of a user shares, over all nodes: the registry, and the messages that go straight to a node.
//!
//! An entry of the registry counts as long as the node that made it is a member: a process that was killed leaves its
//! entries behind, and nobody is to believe them.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use model::{Fix, Generation, MonotonicMs, NodeId, SessionId, UserId};
use parking_lot::Mutex;
use ports::{Channel, Claimed, PortError, Publication, SessionKey, Sharing};
use rustc_hash::FxHashMap;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::bell::Bell;
use crate::limits;
use crate::shared::Shared;

/// Who the members were when that was last asked.
#[derive(Debug, Default)]
pub(crate) struct Members(Mutex<Option<(MonotonicMs, Vec<NodeId>)>>);

impl Shared {
    /// Makes a connection here the sharing one of its user.
    pub(crate) async fn claim(&self, user: UserId, session: SessionId) -> Result<Claimed, PortError> {
        self.backends.sessions.claim(user, SessionKey { node: self.id, session }).await
    }

    /// Who shares, and is still there.
    pub(crate) async fn sharing(&self, user: UserId) -> Result<Option<Sharing>, PortError> {
        let Some(sharing) = self.backends.sessions.locate(user).await? else { return Ok(None) };
        let node = sharing.session.node;
        Ok(if node == self.id || self.is_member(node).await { Some(sharing) } else { None })
    }

    /// When discovery is out of reach, whoever was a member counts as one: an entry is right far more often than not.
    async fn is_member(&self, node: NodeId) -> bool {
        let now = self.clock.monotonic();
        let fresh = |asked: &MonotonicMs| now.since(*asked) < limits::MEMBERS;
        let known = self.members.0.lock().as_ref().filter(|(at, _)| fresh(at)).map(|(_, all)| all.contains(&node));
        if let Some(known) = known {
            return known;
        }
        match timeout(limits::CONTROL_PATIENCE, self.backends.discovery.members()).await {
            Ok(Ok(all)) => {
                let is_member = all.contains(&node);
                *self.members.0.lock() = Some((now, all));
                is_member
            }
            _ => true,
        }
    }

    /// Tells all connections of the fix's user on another node of it, in one message: the one that shares there moves,
    /// or learns that it shares no longer. At most once; without it that node finds out by the cache's answer to its
    /// next position.
    pub(crate) async fn tell(&self, node: NodeId, fix: &Fix) {
        if node == self.id {
            return;
        }
        let message = [Publication::Directed { node, fix: *fix }];
        let told = timeout(limits::CONNECT_PATIENCE, self.backends.broker.publish(&message)).await;
        if !matches!(told, Ok(Ok(()))) {
            self.metrics.failure("broker");
        }
    }

    /// What another node told this one: where a user is by now who has connections here. It moves only the user's own
    /// viewer: friends, and devices that watch, hear of it on the user's channel, with the policy to show it under.
    pub(crate) fn directed(&self, fix: &Fix) {
        let shard = self.shard_of(fix.user);
        // One of our generation was posted elsewhere, and is published by the node that took it in.
        let now = self.clock.monotonic();
        self.with_shard(shard, |shard| {
            shard.moved_elsewhere(fix, now);
            shard.outdated(fix);
        });
        let ours = self.with_shard(shard, |shard| shard.generation_shared(fix.user));
        if let Some(ours) = ours.filter(|ours| *ours < fix.order.generation) {
            self.supersede(shard, fix.user, ours);
        }
    }

    /// The cache holds newer positions than those of these users that were taken in here under these generations: either
    /// later ones of the same device, or another device shares now, and ours watches from here on. All are looked up at
    /// once, for [`limits::LOCATE_TIMEOUT`] at most; who could not be looked up is with the next stale position.
    async fn check_superseded(&self, stale: &[(UserId, Generation)]) {
        let deadline = Instant::now() + limits::LOCATE_TIMEOUT;
        let located = stale.iter().map(|(user, _)| timeout_at(deadline, self.backends.sessions.locate(*user)));
        for (&(user, ours), located) in stale.iter().zip(join_all(located).await) {
            if let Ok(Ok(Some(sharing))) = located
                && sharing.generation > ours
            {
                self.supersede(self.shard_of(user), user, ours);
            }
        }
    }

    /// Whoever shares here under this generation or an older one watches from now on.
    fn supersede(&self, shard: usize, user: UserId, generation: Generation) {
        let ((), begun) = self.with_interests(shard, |shard, interests| {
            if let Some(viewer) = shard.superseded(user, generation) {
                shard.follow_own(viewer, interests);
            }
        });
        self.subscriptions.submit(begun);
    }
}

/// Users whose position turned out to be older than the location cache's, with the generation that it was taken in under:
/// who shares is to be looked up. Each user once, so that there are never more than share here.
#[derive(Default)]
pub(crate) struct StalePositions {
    waiting: Mutex<FxHashMap<UserId, Generation>>,
    wakeup: Bell,
}

impl StalePositions {
    /// Never waits.
    pub(crate) fn submit(&self, fixes: &[Fix]) {
        if !fixes.is_empty() {
            self.waiting.lock().extend(fixes.iter().map(|fix| (fix.user, fix.order.generation)));
            self.wakeup.ring();
        }
    }
}

/// Looks up who shares instead of this node's own stale devices, until `stop`. Beside the pumps, which a registry that
/// hangs does not hold up.
pub(crate) async fn look_up_stale(shared: Arc<Shared>, stop: CancellationToken) {
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = shared.stale.wakeup.rung() => {}
        }
        let stale: Vec<(UserId, Generation)> = shared.stale.waiting.lock().drain().collect();
        for stale in stale.chunks(limits::SUBSCRIPTION_BATCH) {
            shared.check_superseded(stale).await;
        }
    }
}

/// Subscribes to what is said to this node alone. Until then, and for good when it fails, its connections find out by
/// the cache's answers.
pub(crate) async fn listen(shared: Arc<Shared>, stop: CancellationToken) {
    let own = [Channel::Node(shared.id)];
    let subscribe = async {
        while shared.backends.broker.subscribe(&own).await.is_err() {
            shared.metrics.failure("broker");
            sleep(limits::RETRY).await;
        }
    };
    tokio::select! {
        biased;
        () = stop.cancelled() => {}
        () = subscribe => {}
    }
}

/// Prolongs the entries of the connections that share here, until `stop`.
pub(crate) async fn renew(shared: Arc<Shared>, stop: CancellationToken) {
    let mut turns = interval(limits::RENEW);
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            _ = turns.tick() => {}
        }
        for shard in &*shared.shards {
            let claims: Vec<(UserId, Generation)> = shard.lock().all_sharing().collect();
            for claims in claims.chunks(limits::SUBSCRIPTION_BATCH) {
                if let Err(error) = shared.backends.sessions.renew(claims).await {
                    tracing::debug!(%error, "entries of sharing connections were not prolonged; the next turn will");
                }
                // There are two more turns before an entry ends: no need to hurry the store.
                sleep(Duration::from_millis(10)).await;
            }
        }
    }
}
