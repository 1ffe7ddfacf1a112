//! The timestamps that decide which of two writes of a cell stays.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use ports::Clock;

/// How far the clocks of two machines may be apart: ten times what a time service keeps them to.
pub(crate) const CLOCK_ERROR: Duration = Duration::from_millis(250);

/// The last one given by this process. One for all backends, so that whatever happens later in a process is later.
static LAST: AtomicI64 = AtomicI64::new(0);

/// The first of `count` timestamps in a row, in microseconds: the wall clock's, but always later than all before.
pub(crate) fn write_times(clock: Clock, count: usize) -> i64 {
    let now = i64::try_from(clock.wall().0).unwrap_or(i64::MAX / 2_000).saturating_mul(1_000);
    let count = i64::try_from(count).unwrap_or(i64::MAX);
    let first = |last: i64| now.max(last.saturating_add(1));
    let before = LAST.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| {
        Some(first(last).saturating_add(count.saturating_sub(1)))
    });
    first(before.unwrap_or_else(|last| last))
}

/// One timestamp.
pub(crate) fn write_time(clock: Clock) -> i64 {
    write_times(clock, 1)
}

/// For a delete of what is written once and never again: above the write, also if that machine's clock is ahead.
pub(crate) fn later_than_all(clock: Clock) -> i64 {
    write_time(clock) + 120 * 1_000_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_calls_get_later_times() {
        let mut last = 0;
        for count in [1, 100, 1, 3] {
            let first = write_times(Clock::System, count);
            assert!(first > last);
            last = first + count as i64 - 1;
        }
    }
}
