//! The location cache in memory.

use std::collections::VecDeque;

use async_trait::async_trait;
use model::{Fix, MonotonicMs, UserId};
use parking_lot::Mutex;
use rustc_hash::FxHashMap;

use super::{LocationCache, Put};
use crate::health::{Health, Switch};
use crate::{Clock, PortError};

/// Parts with a lock each, so that two cores rarely meet; a power of two.
const PARTS: usize = 64;

/// Entries that each put looks at to see whether they have expired. More than one, so that sweeping is faster than
/// filling.
const SWEPT_PER_PUT: usize = 2;

/// A map with a time to live. Its size is bounded by the users who were active within the last TTL, as long as anybody
/// still is: the puts sweep.
pub struct EmbeddedCache {
    clock: Clock,
    parts: Box<[Mutex<Part>]>,
    health: Switch,
}

/// The users of one hash.
#[derive(Default)]
struct Part {
    /// Every user in `sweep`, each once; without a fix if it was removed.
    kept: FxHashMap<UserId, Option<Fix>>,
    /// Users by when to look at them again: when the fix that they had when they were looked at last expires.
    sweep: VecDeque<(MonotonicMs, UserId)>,
}

impl EmbeddedCache {
    /// An empty one; fixes expire by this clock.
    pub fn new(clock: Clock) -> EmbeddedCache {
        let parts = (0..PARTS).map(|_| Mutex::default()).collect();
        EmbeddedCache { clock, parts, health: Switch::up("embedded cache") }
    }

    /// Makes it sick or well, for tests.
    pub fn set_health(&self, health: Health) {
        self.health.set(health);
    }

    /// Loses everything, as a cache does that restarts; for tests.
    pub fn lose_data(&self) {
        self.parts.iter().for_each(|part| *part.lock() = Part::default());
    }

    fn part(&self, user: UserId) -> &Mutex<Part> {
        // The high bits of a multiplicative hash: neighbouring ids go to different parts.
        let hash = user.0.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        &self.parts[(hash >> (u64::BITS - PARTS.ilog2())) as usize]
    }
}

#[async_trait]
impl LocationCache for EmbeddedCache {
    async fn put_many(&self, fixes: &[Fix]) -> Result<Vec<Put>, PortError> {
        self.health.ask().await?;
        let now = self.clock.monotonic();
        let outcomes = fixes.iter().map(|fix| self.part(fix.user).lock().put(fix, now)).collect();
        self.health.answer(outcomes).await
    }

    async fn get_many(&self, users: &[UserId]) -> Result<Vec<Option<Fix>>, PortError> {
        self.health.ask().await?;
        let now = self.clock.monotonic();
        let fixes = users.iter().map(|user| self.part(*user).lock().get(*user, now)).collect();
        self.health.answer(fixes).await
    }

    async fn remove(&self, users: &[UserId]) -> Result<(), PortError> {
        self.health.ask().await?;
        users.iter().for_each(|user| self.part(*user).lock().remove(*user));
        self.health.answer(()).await
    }
}

impl Part {
    fn put(&mut self, fix: &Fix, now: MonotonicMs) -> Put {
        self.sweep(now);
        if fix.expires <= now {
            return Put::Stored;
        }
        let Some(slot) = self.kept.get_mut(&fix.user) else {
            self.kept.insert(fix.user, Some(*fix));
            self.sweep.push_back((fix.expires, fix.user));
            return Put::Stored;
        };
        if slot.is_some_and(|kept| kept.order > fix.order && kept.expires > now) {
            return Put::Stale;
        }
        *slot = Some(*fix);
        Put::Stored
    }

    fn get(&self, user: UserId, now: MonotonicMs) -> Option<Fix> {
        self.kept.get(&user).copied().flatten().filter(|fix| fix.expires > now)
    }

    fn remove(&mut self, user: UserId) {
        if let Some(slot) = self.kept.get_mut(&user) {
            *slot = None;
        }
    }

    fn sweep(&mut self, now: MonotonicMs) {
        for _ in 0..SWEPT_PER_PUT {
            let Some((_, user)) = self.sweep.pop_front_if(|(due, _)| *due <= now) else {
                return;
            };
            match self.get(user, now) {
                Some(fix) => self.sweep.push_back((fix.expires, user)),
                None => drop(self.kept.remove(&user)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use model::{Generation, Motion, Order, Place, PolicyVersion, Position, TimestampMs};

    use super::*;

    fn fix(user: u64, ts: u64, expires: u64) -> Fix {
        Fix {
            user: UserId(user),
            place: Place::new(Position::new(40.0, 116.0).unwrap()),
            order: Order { generation: Generation(1), ts: TimestampMs(ts), ..Order::default() },
            expires: MonotonicMs(expires),
            policy: PolicyVersion(0),
            motion: Motion::UNKNOWN,
        }
    }

    #[test]
    fn puts_sweep_what_has_expired_and_nothing_else() {
        let mut part = Part::default();
        for user in 0..1_000 {
            part.put(&fix(user, 1, 600), MonotonicMs(0));
        }
        // User 7 stays active and user 8 left; all others fell silent.
        part.put(&fix(7, 2, 2_000), MonotonicMs(500));
        part.remove(UserId(8));
        for user in 10_000..10_500 {
            part.put(&fix(user, 1, 2_000), MonotonicMs(1_000));
        }
        assert_eq!(part.kept.len(), 501, "the 500 and user 7");
        assert_eq!(part.sweep.len(), part.kept.len());
        assert!(part.get(UserId(7), MonotonicMs(1_000)).is_some());
    }

    #[test]
    fn what_has_expired_and_is_not_swept_yet_does_not_count() {
        let mut part = Part::default();
        // At the front of the sweep, and not due for long.
        part.put(&fix(1, 1, 10_000), MonotonicMs(0));
        part.put(&fix(7, 9, 600), MonotonicMs(0));
        assert_eq!(part.get(UserId(7), MonotonicMs(600)), None);
        assert_eq!(part.put(&fix(7, 5, 2_000), MonotonicMs(600)), Put::Stored);
        assert_eq!(part.get(UserId(7), MonotonicMs(600)).map(|fix| fix.order.ts), Some(TimestampMs(5)));
    }

    #[test]
    fn coming_and_going_does_not_grow_the_sweep() {
        let mut part = Part::default();
        for ts in 0..1_000 {
            part.put(&fix(7, ts, 600), MonotonicMs(0));
            part.remove(UserId(7));
        }
        assert_eq!((part.kept.len(), part.sweep.len()), (1, 1));
    }
}
