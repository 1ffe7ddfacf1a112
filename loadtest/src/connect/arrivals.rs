//! Who connects when.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::clock::At;

/// A server that said nothing of when to come again is left alone for so long.
const UNTOLD: Duration = Duration::from_secs(1);

/// Links that are to connect, by the moment they are to.
pub(super) struct Arrivals {
    due: BinaryHeap<Reverse<(At, u32)>>,
    rng: StdRng,
}

impl Arrivals {
    pub(super) fn new() -> Arrivals {
        Arrivals { due: BinaryHeap::new(), rng: StdRng::seed_from_u64(1) }
    }

    /// These come within this time, each at a random moment of it.
    pub(super) fn spread(&mut self, links: impl Iterator<Item = u32>, now: At, over: Duration) {
        for link in links {
            let at = now.after(over.mul_f64(self.rng.random_range(0.0..1.0)));
            self.due.push(Reverse((at, link)));
        }
    }

    /// This one was refused: it comes again when it was told to, and up to as long after that.
    pub(super) fn again(&mut self, link: u32, now: At, told: Option<u64>) {
        let wait = told.map_or(UNTOLD, Duration::from_secs).max(Duration::from_millis(100));
        let at = now.after(wait.mul_f64(self.rng.random_range(1.0..2.0)));
        self.due.push(Reverse((at, link)));
    }

    /// One that is due by now.
    pub(super) fn take(&mut self, now: At) -> Option<u32> {
        self.due.peek().filter(|next| next.0.0 <= now)?;
        self.due.pop().map(|Reverse((_, link))| link)
    }

    /// When the next one is due.
    pub(super) fn next(&self) -> Option<At> {
        self.due.peek().map(|next| next.0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s(seconds: f64) -> At {
        At((seconds * 1e6) as u64)
    }

    #[test]
    fn without_jitter_all_come_at_once_and_with_it_evenly() {
        let mut arrivals = Arrivals::new();
        arrivals.spread(0..1_000, s(1.0), Duration::ZERO);
        assert_eq!(std::iter::from_fn(|| arrivals.take(s(1.0))).count(), 1_000);
        arrivals.spread(0..1_000, s(1.0), Duration::from_secs(10));
        for second in 2..=11 {
            let came = std::iter::from_fn(|| arrivals.take(s(f64::from(second)))).count();
            assert!((60..140).contains(&came), "{came}");
        }
        assert_eq!(arrivals.next(), None);
    }

    #[test]
    fn nobody_comes_again_before_they_were_told() {
        let mut arrivals = Arrivals::new();
        for link in 0..100 {
            arrivals.again(link, s(1.0), Some(2));
        }
        assert_eq!(arrivals.take(s(2.999)), None);
        assert_eq!(std::iter::from_fn(|| arrivals.take(s(5.0))).count(), 100);
        arrivals.again(7, s(1.0), None);
        assert_eq!((arrivals.take(s(1.999)), arrivals.take(s(3.0))), (None, Some(7)));
    }
}
