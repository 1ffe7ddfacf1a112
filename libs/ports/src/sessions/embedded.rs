//! The session registry in memory.

use std::time::Duration;

use async_trait::async_trait;
use model::{Generation, MonotonicMs, UserId};
use parking_lot::Mutex;
use rustc_hash::FxHashMap;

use super::{Claimed, ENTRY, SessionKey, Sessions, Sharing};
use crate::health::{Health, Switch};
use crate::{Clock, PortError};

/// A map from users to their sharing session.
pub struct EmbeddedSessions {
    clock: Clock,
    registry: Mutex<Registry>,
    health: Switch,
}

#[derive(Default)]
struct Registry {
    entries: FxHashMap<UserId, Entry>,
    /// No generation that was given to who is not in the map any more is above this. One number in place of an entry
    /// for everybody who ever shared.
    released: Generation,
}

#[derive(Clone, Copy)]
struct Entry {
    sharing: Sharing,
    until: MonotonicMs,
}

impl EmbeddedSessions {
    /// An empty one; generations come from this clock.
    pub fn new(clock: Clock) -> EmbeddedSessions {
        EmbeddedSessions { clock, registry: Mutex::default(), health: Switch::up("embedded sessions") }
    }

    /// Makes it sick or well, for tests.
    pub fn set_health(&self, health: Health) {
        self.health.set(health);
    }

    /// Loses everything, as a store does that restarts; for tests.
    pub fn lose_data(&self) {
        *self.registry.lock() = Registry::default();
    }

    /// Brings the end of an entry nearer, as if that time had passed; for tests.
    pub fn age(&self, user: UserId, by: Duration) {
        if let Some(entry) = self.registry.lock().entries.get_mut(&user) {
            entry.until = MonotonicMs(entry.until.0.saturating_sub(by.as_millis() as u64));
        }
    }
}

#[async_trait]
impl Sessions for EmbeddedSessions {
    async fn claim(&self, user: UserId, session: SessionKey) -> Result<Claimed, PortError> {
        self.health.ask().await?;
        let claimed = self.registry.lock().claim(user, session, self.clock);
        self.health.answer(claimed).await
    }

    async fn release(&self, user: UserId, session: SessionKey) -> Result<bool, PortError> {
        self.health.ask().await?;
        let was_ours = self.registry.lock().release(user, session);
        self.health.answer(was_ours).await
    }

    async fn renew(&self, claims: &[(UserId, Generation)]) -> Result<(), PortError> {
        self.health.ask().await?;
        let until = self.clock.monotonic().after(ENTRY);
        {
            let mut registry = self.registry.lock();
            for (user, generation) in claims {
                let entry = registry.entries.get_mut(user).filter(|entry| entry.sharing.generation == *generation);
                entry.into_iter().for_each(|entry| entry.until = until);
            }
        }
        self.health.answer(()).await
    }

    async fn locate(&self, user: UserId) -> Result<Option<Sharing>, PortError> {
        self.health.ask().await?;
        let sharing = self.registry.lock().current(user, self.clock.monotonic());
        self.health.answer(sharing).await
    }
}

impl Registry {
    /// Who shares; an entry that was not renewed is removed.
    fn current(&mut self, user: UserId, now: MonotonicMs) -> Option<Sharing> {
        let entry = *self.entries.get(&user)?;
        if entry.until > now {
            return Some(entry.sharing);
        }
        self.remove(user, entry.sharing.generation);
        None
    }

    fn claim(&mut self, user: UserId, session: SessionKey, clock: Clock) -> Claimed {
        let now = clock.monotonic();
        let before = self.current(user, now);
        let last = before.map_or(self.released, |before| before.generation);
        let generation = Generation(clock.wall().0.max(last.0 + 1));
        self.entries.insert(user, Entry { sharing: Sharing { session, generation }, until: now.after(ENTRY) });
        Claimed { generation, before: before.map(|before| before.session) }
    }

    fn release(&mut self, user: UserId, session: SessionKey) -> bool {
        match self.entries.get(&user) {
            Some(entry) if entry.sharing.session == session => {
                self.remove(user, entry.sharing.generation);
                true
            }
            _ => false,
        }
    }

    fn remove(&mut self, user: UserId, generation: Generation) {
        self.released = self.released.max(generation);
        self.entries.remove(&user);
    }
}

#[cfg(test)]
mod tests {
    use model::{NodeId, SessionId};

    use super::*;

    #[test]
    fn who_released_and_claims_again_in_the_same_millisecond_gets_a_higher_generation() {
        let key = SessionKey { node: NodeId(1), session: SessionId(1) };
        // Virtual time stands still while nobody waits.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let (mut registry, clock) = (Registry::default(), Clock::virtual_from_now());
            let before = registry.claim(UserId(7), key, clock).generation;
            assert!(registry.release(UserId(7), key));
            assert!(registry.claim(UserId(7), key, clock).generation > before);
        });
    }
}
