//! How far and when. Units live in types, not in heads.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A distance on the Earth's surface, in metres.
#[derive(Clone, Copy, PartialEq, PartialOrd, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Meters(pub f64);

impl Meters {
    /// Five international miles, the radius of a viewer that names none.
    pub const FIVE_MILES: Meters = Meters(8_046.72);

    /// To the nearest 0.1 m, the precision that clients are told.
    pub fn to_decimeter(self) -> Meters {
        Meters((self.0 * 10.0).round() / 10.0)
    }
}

/// A wall-clock time: milliseconds since the Unix epoch. Given by a device or read from this machine's clock; two of
/// different machines are never compared to order positions.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TimestampMs(pub u64);

impl TimestampMs {
    /// One UTC day.
    pub const DAY_MS: u64 = 86_400_000;

    /// The number of the UTC day that holds this time, counted from the Unix epoch.
    pub fn day(self) -> u64 {
        self.0 / Self::DAY_MS
    }

    /// This much later; saturates.
    pub fn after(self, duration: Duration) -> TimestampMs {
        TimestampMs(self.0.saturating_add(millis(duration)))
    }

    /// This much earlier; stops at the epoch.
    pub fn before(self, duration: Duration) -> TimestampMs {
        TimestampMs(self.0.saturating_sub(millis(duration)))
    }
}

/// A reading of this machine's steady clock, in milliseconds from an arbitrary start: it counts suspend and never goes
/// back. Means nothing on another machine.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct MonotonicMs(pub u64);

impl MonotonicMs {
    /// This much later; saturates.
    pub fn after(self, duration: Duration) -> MonotonicMs {
        MonotonicMs(self.0.saturating_add(millis(duration)))
    }

    /// The time from `earlier` until this reading; zero if `earlier` is in fact later.
    pub fn since(self, earlier: MonotonicMs) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
