//! How well an embedded backend is, for tests that need one that is not: they flip it and look at what the rest does.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::watch;

use crate::PortError;

/// What a backend does with a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// Answers.
    Up,
    /// Refuses at once, like a server that is gone; nothing takes effect.
    Down,
    /// Does not answer, like a stopped server; what was asked takes effect when it is `Up` again.
    Frozen,
    /// Does what was asked and does not answer, like a server behind a cut wire, until it is `Up` again; then every
    /// answer arrives, as old as it is by then.
    Mute,
}

/// A backend's health, with a fast path for the only state outside of tests.
pub(crate) struct Switch {
    backend: &'static str,
    sick: AtomicBool,
    health: watch::Sender<Health>,
}

impl Switch {
    pub(crate) fn up(backend: &'static str) -> Switch {
        Switch { backend, sick: AtomicBool::new(false), health: watch::Sender::new(Health::Up) }
    }

    pub(crate) fn set(&self, health: Health) {
        self.sick.store(health != Health::Up, Ordering::Release);
        self.health.send_replace(health);
    }

    /// At the start of every call.
    pub(crate) async fn ask(&self) -> Result<(), PortError> {
        if self.sick.load(Ordering::Acquire) { self.wait_while(Health::Frozen).await } else { Ok(()) }
    }

    /// At the end of every call.
    pub(crate) async fn answer<T>(&self, answer: T) -> Result<T, PortError> {
        if self.sick.load(Ordering::Acquire) {
            self.wait_while(Health::Mute).await?;
        }
        Ok(answer)
    }

    async fn wait_while(&self, waiting: Health) -> Result<(), PortError> {
        let mut health = self.health.subscribe();
        // The sender lives in this switch, so the wait cannot fail.
        match health.wait_for(|health| *health != waiting).await.map(|health| *health) {
            Ok(Health::Down) => Err(self.down()),
            _ => Ok(()),
        }
    }

    fn down(&self) -> PortError {
        PortError::Unavailable { backend: self.backend, reason: "switched off by a test".to_owned() }
    }
}
