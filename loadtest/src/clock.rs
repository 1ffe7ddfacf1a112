//! The one clock of the process: sending and receiving are timed by it, so ages need no second machine's.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

/// A moment: microseconds since the process began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct At(pub u64);

impl At {
    /// The time from `earlier` until this moment; zero if `earlier` is later.
    pub fn since(self, earlier: At) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }

    /// This much later.
    pub fn after(self, duration: Duration) -> At {
        At(self.0 + duration.as_micros() as u64)
    }
}

/// Tells the time since it was made.
#[derive(Clone, Copy, Debug)]
pub struct Clock(Instant);

impl Clock {
    /// Begins now.
    pub fn start() -> Clock {
        Clock(Instant::now())
    }

    /// Now.
    pub fn now(&self) -> At {
        At(self.0.elapsed().as_micros() as u64)
    }
}

/// The machine's wall clock in Unix milliseconds, as a phone stamps its positions.
#[expect(clippy::disallowed_methods, reason = "a phone asks its own clock; the servers' port is not a phone's")]
pub fn wall_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
