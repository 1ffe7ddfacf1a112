//! The session registry in memory.

use async_trait::async_trait;
use model::{Generation, UserId};
use parking_lot::Mutex;
use rustc_hash::FxHashMap;

use super::{SessionKey, Sessions, Sharing};
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
    sharing: FxHashMap<UserId, Sharing>,
    /// No generation that was given to who is not in the map any more is above this. One number in place of an entry
    /// for everybody who ever shared.
    released: Generation,
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
}

#[async_trait]
impl Sessions for EmbeddedSessions {
    async fn claim(&self, user: UserId, session: SessionKey) -> Result<Generation, PortError> {
        self.health.ask().await?;
        let generation = self.registry.lock().claim(user, session, self.clock.wall().0);
        self.health.answer(generation).await
    }

    async fn release(&self, user: UserId, session: SessionKey) -> Result<bool, PortError> {
        self.health.ask().await?;
        let was_ours = self.registry.lock().release(user, session);
        self.health.answer(was_ours).await
    }

    async fn locate(&self, user: UserId) -> Result<Option<Sharing>, PortError> {
        self.health.ask().await?;
        let sharing = self.registry.lock().sharing.get(&user).copied();
        self.health.answer(sharing).await
    }
}

impl Registry {
    fn claim(&mut self, user: UserId, session: SessionKey, now_ms: u64) -> Generation {
        let last = self.sharing.get(&user).map_or(self.released, |sharing| sharing.generation);
        let generation = Generation(now_ms.max(last.0 + 1));
        self.sharing.insert(user, Sharing { session, generation });
        generation
    }

    fn release(&mut self, user: UserId, session: SessionKey) -> bool {
        match self.sharing.get(&user) {
            Some(sharing) if sharing.session == session => {
                self.released = self.released.max(sharing.generation);
                self.sharing.remove(&user);
                true
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use model::{NodeId, SessionId};

    use super::*;

    #[test]
    fn who_released_and_claims_again_in_the_same_millisecond_gets_a_higher_generation() {
        let key = SessionKey { node: NodeId(1), session: SessionId(1) };
        let mut registry = Registry::default();
        let before = registry.claim(UserId(7), key, 1_000);
        assert!(registry.release(UserId(7), key));
        assert!(registry.claim(UserId(7), key, 1_000) > before);
        assert!(registry.claim(UserId(7), key, 500) > before, "the clock stepped back");
    }
}
