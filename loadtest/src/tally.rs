//! What is counted while a run lasts.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::clock::At;
use crate::oracle::Told;

/// Longer than any wait in a run; what is longer counts as this.
const LONGEST: Duration = Duration::from_secs(600);

/// Frames received, by type.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Frames {
    /// Pages.
    pub nearby: u64,
    /// Friends who came near or moved.
    pub friend: u64,
    /// Friends who are near no longer.
    pub gone: u64,
    /// New friends.
    pub friend_added: u64,
    /// Ended friendships.
    pub friend_removed: u64,
    /// Refusals.
    pub error: u64,
    /// Announcements of a stop.
    pub drain: u64,
}

impl Frames {
    /// Those that a movement causes.
    pub fn pushes(&self) -> u64 {
        self.friend + self.gone
    }

    /// All.
    pub fn total(&self) -> u64 {
        self.pushes() + self.nearby + self.friend_added + self.friend_removed + self.error + self.drain
    }
}

/// Times of one kind.
#[derive(Debug)]
pub struct Times(Histogram<u64>);

impl Default for Times {
    fn default() -> Times {
        Times(
            Histogram::new_with_bounds(1, LONGEST.as_micros() as u64, 3)
                .unwrap_or_else(|_| unreachable!("fixed bounds")),
        )
    }
}

/// A summary of [`Times`], in milliseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Spread {
    /// How many.
    pub count: u64,
    /// Half were shorter.
    pub p50: f64,
    /// One in a hundred was longer.
    pub p99: f64,
    /// The longest.
    pub max: f64,
}

impl Times {
    /// Adds one.
    pub fn record(&mut self, time: Duration) {
        self.0.saturating_record(time.as_micros() as u64);
    }

    /// Adds all of others.
    pub fn absorb(&mut self, others: &Times) {
        // Both have the same bounds.
        let added = self.0.add(&others.0);
        debug_assert!(added.is_ok());
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.0.reset();
    }

    /// How many.
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// The share `quantile` was shorter than this.
    pub fn quantile(&self, quantile: f64) -> Duration {
        Duration::from_micros(self.0.value_at_quantile(quantile))
    }

    /// Sums up.
    pub fn spread(&self) -> Spread {
        let ms = |micros: u64| micros as f64 / 1_000.0;
        Spread {
            count: self.0.len(),
            p50: ms(self.0.value_at_quantile(0.5)),
            p99: ms(self.0.value_at_quantile(0.99)),
            max: ms(self.0.max()),
        }
    }
}

/// All counters of a run.
#[derive(Debug, Default)]
pub struct Tally {
    /// Positions sent, those of `init` too.
    pub updates: u64,
    /// Frames received.
    pub frames: Frames,
    /// `error` frames that said `rate_limited`.
    pub rate_limited: u64,
    /// From the sender's socket to the viewer's, of moves.
    pub ages: Times,
    /// How much later than due positions were sent: if it is long, the generator lacks CPU, and ages tell of it too.
    pub lateness: Times,
    /// How long the server took to acknowledge the end of a friendship.
    pub removals: Times,
    /// `friend` frames that told nothing new.
    pub duplicates: u64,
    /// `gone` frames about friends not shown.
    pub needless_gone: u64,
    /// Connections opened again, whoever ended the one before.
    pub reconnects: u64,
    /// Friendships begun and ended while people moved.
    pub friendship_changes: u64,
}

impl Tally {
    /// Counts what a `friend` frame told.
    pub fn told(&mut self, told: Told, now: At) {
        match told {
            Told::Move(sent) => self.ages.record(now.since(sent)),
            Told::Again => self.duplicates += 1,
            Told::Entry | Told::Fault => {}
        }
    }
}
