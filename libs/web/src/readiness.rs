//! Whether this process should be sent work: named checks that the parts of a process flip, and `/readyz` reads.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::RwLock;

/// The readiness of one process. A copy is the same readiness.
#[derive(Clone, Default, Debug)]
pub struct Readiness(Arc<Shared>);

#[derive(Default, Debug)]
struct Shared {
    draining: AtomicBool,
    /// What each check waits for; `None` when it is fine.
    checks: RwLock<BTreeMap<&'static str, Option<String>>>,
}

/// One named check, held by the part that knows.
#[derive(Clone, Debug)]
pub struct Check {
    name: &'static str,
    readiness: Readiness,
}

impl Readiness {
    /// Ready, until a check says otherwise.
    pub fn new() -> Readiness {
        Readiness::default()
    }

    /// Adds a check, which is missing ("starting") until it says [`Check::ready`]. Of two checks of one name the last
    /// word counts.
    pub fn check(&self, name: &'static str) -> Check {
        let check = Check { name, readiness: self.clone() };
        check.missing("starting");
        check
    }

    /// The process is about to stop: never ready again.
    pub fn drain(&self) {
        self.0.draining.store(true, Ordering::Release);
    }

    /// Whether [`Readiness::drain`] was called.
    pub fn is_draining(&self) -> bool {
        self.0.draining.load(Ordering::Acquire)
    }

    /// Whether nothing is missing.
    pub fn is_ready(&self) -> bool {
        !self.is_draining() && self.0.checks.read().values().all(Option::is_none)
    }

    /// The checks that wait, ascending by name, and what for.
    pub fn missing(&self) -> Vec<(&'static str, String)> {
        let checks = self.0.checks.read();
        let waiting = checks.iter().filter_map(|(name, state)| Some((*name, state.clone()?)));
        let mut missing: Vec<_> = waiting.collect();
        if self.is_draining() {
            missing.push(("draining", "this process is about to stop".into()));
        }
        missing
    }
}

impl Check {
    /// It is fine.
    pub fn ready(&self) {
        self.readiness.0.checks.write().insert(self.name, None);
    }

    /// It is not, and why: shown to operators, so no coordinates and no tokens.
    pub fn missing(&self, why: impl Into<String>) {
        self.readiness.0.checks.write().insert(self.name, Some(why.into()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_when_every_check_is_and_never_again_once_draining() {
        let readiness = Readiness::new();
        assert!(readiness.is_ready());
        let (cache, broker) = (readiness.check("cache"), readiness.check("broker"));
        cache.ready();
        assert_eq!(readiness.missing(), [("broker", "starting".to_string())]);
        broker.ready();
        assert!(readiness.is_ready());
        cache.missing("no answer for 10 s");
        assert!(!readiness.is_ready());
        cache.ready();
        readiness.clone().drain();
        assert!(!readiness.is_ready());
        assert_eq!(readiness.missing()[0].0, "draining");
    }
}
