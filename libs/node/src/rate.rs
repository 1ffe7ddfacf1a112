//! A token bucket: so many at once, so many a second in the long run.

use model::MonotonicMs;

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

    /// Takes one token, if there is one.
    pub(crate) fn take(&mut self, now: MonotonicMs) -> bool {
        let refill = (now.since(self.at).as_millis() as f64 * self.milli_per_ms) as u64;
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

#[cfg(test)]
mod tests {
    use super::*;

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
