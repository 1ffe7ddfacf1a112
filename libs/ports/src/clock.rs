//! The two clocks of this machine.

use std::time::Duration;

use model::{MonotonicMs, TimestampMs};
use rustix::time::{ClockId, clock_gettime};
use tokio::time::Instant;

/// Where "now" comes from. A copy is the same clock.
#[derive(Clone, Copy, Debug)]
pub enum Clock {
    /// The machine's own.
    System,
    /// Tokio's clock, which tests pause and advance; wall time is `epoch` plus what has passed since `start`.
    Virtual {
        /// The moment that counts as `epoch`.
        start: Instant,
        /// Wall time at `start`.
        epoch: TimestampMs,
    },
}

impl Clock {
    /// A virtual clock that starts now at 2025-01-01 00:00 UTC.
    pub fn virtual_from_now() -> Clock {
        Clock::Virtual { start: Instant::now(), epoch: TimestampMs(1_735_689_600_000) }
    }

    /// The steady clock: counts suspend (`CLOCK_BOOTTIME`), so that a machine that slept past a lease knows it.
    pub fn monotonic(&self) -> MonotonicMs {
        match self {
            Clock::System => MonotonicMs(millis(clock_gettime(ClockId::Boottime))),
            // Above zero, so that "an hour ago" is expressible in tests.
            Clock::Virtual { start, .. } => MonotonicMs(86_400_000 + since(*start)),
        }
    }

    /// The wall clock; may step either way at any time.
    pub fn wall(&self) -> TimestampMs {
        match self {
            Clock::System => TimestampMs(millis(clock_gettime(ClockId::Realtime))),
            Clock::Virtual { start, epoch } => epoch.after(Duration::from_millis(since(*start))),
        }
    }
}

fn since(start: Instant) -> u64 {
    u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX)
}

fn millis(time: rustix::time::Timespec) -> u64 {
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000 + u64::try_from(time.tv_nsec).unwrap_or(0) / 1_000_000
}
