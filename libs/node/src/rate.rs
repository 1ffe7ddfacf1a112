//! A token bucket: so many at once, so many a second in the long run.

use model::{MonotonicMs, UserId};
use parking_lot::Mutex;
use rustc_hash::FxHashMap;

use crate::limits;
use crate::settings::Settings;

/// Counts in thousandths of a token, so that no time is lost to rounding.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bucket {
    milli_tokens: u64,
    full: u64,
    milli_per_ms: f64,
    at: MonotonicMs,
}

impl Bucket {
    /// A full bucket.
    pub(crate) fn new(per_second: f64, burst: u32, now: MonotonicMs) -> Bucket {
        let full = u64::from(burst) * 1_000;
        Bucket { milli_tokens: full, full, milli_per_ms: per_second, at: now }
    }

    fn refill(&self, now: MonotonicMs) -> u64 {
        (now.since(self.at).as_millis() as f64 * self.milli_per_ms) as u64
    }

    fn is_full(&self, now: MonotonicMs) -> bool {
        self.milli_tokens.saturating_add(self.refill(now)) >= self.full
    }

    /// Takes one token, if there is one.
    pub(crate) fn take(&mut self, now: MonotonicMs) -> bool {
        let refill = self.refill(now);
        // Less than a thousandth of a token is not lost: the time stays on the clock.
        if refill > 0 {
            self.milli_tokens = self.milli_tokens.saturating_add(refill).min(self.full);
            self.at = now;
        }
        let taken = self.milli_tokens >= 1_000;
        if taken {
            self.milli_tokens -= 1_000;
        }
        taken
    }
}

/// A bucket a user, for callers without a connection.
#[derive(Debug, Default)]
pub(crate) struct CallRates(Mutex<FxHashMap<UserId, Bucket>>);

impl CallRates {
    /// Takes one token of this user's, if there is one.
    pub(crate) fn take(&self, user: UserId, settings: &Settings, now: MonotonicMs) -> bool {
        let mut buckets = self.0.lock();
        if buckets.len() >= limits::CALLERS {
            // Who has not called for a while has a full bucket, which is what a new one is.
            buckets.retain(|_, bucket| !bucket.is_full(now));
        }
        let fresh = || Bucket::new(settings.updates_per_second, settings.update_burst, now);
        buckets.entry(user).or_insert_with(fresh).take(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callers_have_a_bucket_each() {
        let (rates, settings) = (CallRates::default(), Settings { update_burst: 2, ..Settings::default() });
        let take = |user, now| rates.take(UserId(user), &settings, MonotonicMs(now));
        assert!(take(1, 0) && take(1, 0) && !take(1, 0));
        assert!(take(2, 0));
        assert!(take(1, 500));
        for user in 0..2 * limits::CALLERS as u64 {
            take(user, 1_000_000 + user);
        }
        assert!(rates.0.lock().len() <= limits::CALLERS, "those who do not call any more are forgotten");
    }

    #[test]
    fn a_burst_and_then_the_rate() {
        let mut bucket = Bucket::new(2.0, 3, MonotonicMs(0));
        assert!((0..3).all(|_| bucket.take(MonotonicMs(0))));
        assert!(!bucket.take(MonotonicMs(499)));
        assert!(bucket.take(MonotonicMs(500)));
        assert!(!bucket.take(MonotonicMs(500)));
        assert_eq!((0..100).filter(|_| bucket.take(MonotonicMs(1_000_000))).count(), 3);
    }
}
