//! What the parts of one node have in common.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use model::{Fix, MonotonicMs, NodeId, SessionId, UserId};
use parking_lot::Mutex;
use ports::{Broker, Clock, ControlLog, Discovery, Friendships, LocationCache, LocationHistory, Put, Sessions};
use rustc_hash::FxHashMap;

use crate::breaker::Breaker;
use crate::control::RightToSend;
use crate::courier::Courier;
use crate::erasure::Erasures;
use crate::interest::{Interest, ShardMask, Work};
use crate::limits;
use crate::metrics::Metrics;
use crate::pairs::PairReads;
use crate::patience::within;
use crate::planted::Break;
use crate::pump::Pump;
use crate::rate::CallRates;
use crate::recorder::Recorder;
use crate::registry::{Members, StalePositions};
use crate::settings::Settings;
use crate::shard::{Interests, Shard};
use crate::subscriptions::Subscriptions;

/// The ports an engine needs.
#[derive(Clone)]
pub struct Backends {
    /// The waist.
    pub broker: Arc<dyn Broker>,
    /// Last positions.
    pub cache: Arc<dyn LocationCache>,
    /// All positions.
    pub history: Arc<dyn LocationHistory>,
    /// Who may see whom.
    pub friendships: Arc<dyn Friendships>,
    /// Which connection shares.
    pub sessions: Arc<dyn Sessions>,
    /// Changes of permissions.
    pub control: Arc<dyn ControlLog>,
    /// Leases.
    pub discovery: Arc<dyn Discovery>,
}

pub(crate) struct Shared {
    pub(crate) id: NodeId,
    pub(crate) settings: Settings,
    pub(crate) clock: Clock,
    pub(crate) backends: Backends,
    pub(crate) shards: Box<[Mutex<Shard>]>,
    pub(crate) pumps: Box<[Pump]>,
    pub(crate) couriers: Box<[Courier]>,
    pub(crate) interest: Interest,
    pub(crate) subscriptions: Subscriptions,
    pub(crate) recorder: Recorder,
    pub(crate) right: RightToSend,
    pub(crate) pair_reads: PairReads,
    pub(crate) erasures: Erasures,
    pub(crate) metrics: Metrics,
    pub(crate) breaker: Breaker,
    pub(crate) sessions_begun: AtomicU64,
    /// Of the report that was taken in last.
    pub(crate) last_sequence: AtomicU64,
    pub(crate) call_rates: CallRates,
    pub(crate) members: Members,
    pub(crate) stale: StalePositions,
    /// When a user's deletion was applied here, for as long as a call that began before it may still be under way.
    pub(crate) deleted: Mutex<FxHashMap<UserId, MonotonicMs>>,
    /// Every connection was asked to close.
    pub(crate) closing: AtomicBool,
}

impl Shared {
    /// All connections of a user are in one shard, so that they can follow each other.
    pub(crate) fn shard_of(&self, user: UserId) -> usize {
        // Any spread will do; users made by one application may all be even.
        (user.0.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32) as usize % self.shards.len()
    }

    /// Whether tests made this node do that wrong.
    pub(crate) fn plants(&self, broken: Break) -> bool {
        self.settings.planted == Some(broken)
    }

    pub(crate) fn next_session(&self) -> SessionId {
        SessionId(self.sessions_begun.fetch_add(1, Ordering::Relaxed) + 1)
    }

    /// Does something with a shard, sends the courier to whoever has news by it, and wakes the pump if there is something
    /// to carry.
    pub(crate) fn with_shard<R>(&self, shard: usize, verb: impl FnOnce(&mut Shard) -> R) -> R {
        let (result, begun) = self.with_interests(shard, |shard, _| verb(shard));
        debug_assert!(begun.is_empty());
        result
    }

    /// The same for verbs that change who is watched. Returns whom the shard watches that it did not watch before:
    /// they are to be given to [`Subscriptions`].
    pub(crate) fn with_interests<R>(
        &self,
        shard: usize,
        verb: impl FnOnce(&mut Shard, &mut Interests) -> R,
    ) -> (R, Vec<UserId>) {
        let mut interests = Interests::default();
        let (result, tally, has_woken, has_outgoing) = {
            let mut locked = self.shards[shard].lock();
            let result = verb(&mut locked, &mut interests);
            // Under the shard's lock, or the end of one interest could overtake the beginning of the next.
            interests.begun.iter().for_each(|&user| self.interest.begin(shard, user));
            interests.ended.iter().filter(|&&user| !locked.watches(user)).for_each(|&user| {
                self.interest.end(shard, user, self.clock.monotonic());
            });
            (result, locked.take_tally(), locked.has_woken(), locked.take_outgoing_grown())
        };
        self.metrics.tally(tally);
        if has_woken {
            self.couriers[shard].ring();
        }
        if has_outgoing {
            self.pumps[shard].wake();
        }
        (result, interests.begun)
    }

    /// Gives arrived or read positions to the shards that watch their users.
    pub(crate) fn heard(&self, fixes: impl Iterator<Item = (Fix, ShardMask)>) {
        let mut by_shard: Vec<Vec<Fix>> = vec![Vec::new(); self.shards.len()];
        for (fix, mut mask) in fixes {
            while mask != 0 {
                by_shard[mask.trailing_zeros() as usize].push(fix);
                mask &= mask - 1;
            }
        }
        let now = self.clock.monotonic();
        for (shard, fixes) in by_shard.iter().enumerate().filter(|(_, fixes)| !fixes.is_empty()) {
            self.with_shard(shard, |shard| shard.heard_all(fixes, now));
        }
    }

    /// Sends the last position of our own users again, those that `which` picks.
    pub(crate) fn publish_again(&self, shard: usize, which: impl Fn(UserId) -> bool) {
        // Which they are takes longer to tell than to list them: not under the lock that every update takes.
        let mut users: Vec<UserId> = self.shards[shard].lock().all_shared().collect();
        users.retain(|&user| which(user));
        self.send_again(shard, &users);
    }

    /// Sends the last position of these users of a shard again, if they have one.
    pub(crate) fn send_again(&self, shard: usize, users: &[UserId]) {
        for users in users.chunks(limits::PUMP_BATCH) {
            self.with_shard(shard, |shard| users.iter().for_each(|&user| shard.send_again(user)));
        }
    }

    /// What became of each put; `None` when the cache did not take them, which delays nothing.
    pub(crate) async fn put_into_cache(&self, fixes: &[Fix]) -> Option<Vec<Put>> {
        self.ask_cache(self.backends.cache.put_many(fixes)).await
    }

    /// Reads what the cache holds of these users into the shards that are owed it.
    pub(crate) async fn read_into_shards(&self, work: &[(UserId, Work)]) -> bool {
        let users: Vec<UserId> = work.iter().map(|(user, _)| *user).collect();
        if users.is_empty() {
            return true;
        }
        let Some(found) = self.ask_cache(self.backends.cache.get_many(&users)).await else { return false };
        self.heard(found.into_iter().zip(work).filter_map(|(fix, (_, work))| Some((fix?, work.read_for))));
        true
    }

    /// The position that the cache holds of a user; `None` also when it cannot be asked.
    pub(crate) async fn read_from_cache(&self, user: UserId) -> Option<Fix> {
        self.ask_cache(self.backends.cache.get_many(&[user])).await?.into_iter().next()?
    }

    async fn ask_cache<T>(&self, call: impl Future<Output = Result<T, ports::PortError>>) -> Option<T> {
        if !self.breaker.closed(self.clock.monotonic()) {
            return None;
        }
        let answer = match within(limits::CACHE_PATIENCE, call).await {
            Ok(Ok(answer)) => Some(answer),
            Ok(Err(error)) => {
                tracing::warn!(%error, "the location cache failed");
                None
            }
            Err(_) => {
                tracing::warn!("the location cache did not answer in time");
                None
            }
        };
        if answer.is_none() {
            self.metrics.failure("cache");
        }
        self.breaker.report(answer.is_some(), self.clock.monotonic());
        answer
    }
}
