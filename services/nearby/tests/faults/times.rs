//! Times of a run, in milliseconds of the machine's wall clock: what phones stamp their positions with.

use std::thread;
use std::time::Duration;

pub(crate) use loadtest::clock::wall_ms;

/// Waits.
pub(crate) fn pass(seconds: f64) {
    thread::sleep(Duration::from_secs_f64(seconds));
}

/// Until it is so; how many milliseconds that took.
pub(crate) fn until(what: &str, seconds: f64, mut done: impl FnMut() -> bool) -> u64 {
    let begun = wall_ms();
    while !done() {
        let waited = wall_ms() - begun;
        assert!((waited as f64) < seconds * 1_000.0, "{what}: not within {seconds} s");
        thread::sleep(Duration::from_millis(20));
    }
    wall_ms() - begun
}

/// The value below which so many of a hundred lie; 0 of none.
pub(crate) fn percentile(values: &[u64], of_hundred: f64) -> u64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    let at = ((sorted.len() as f64 * of_hundred / 100.0).ceil() as usize).saturating_sub(1);
    sorted.get(at).copied().unwrap_or(0)
}

#[test]
fn percentiles_are_values_that_were_there() {
    let values: Vec<u64> = (1..=100).rev().collect();
    assert_eq!([50.0, 99.0, 100.0].map(|p| percentile(&values, p)), [50, 99, 100]);
    assert_eq!((percentile(&[7], 50.0), percentile(&[], 99.0)), (7, 0));
}
