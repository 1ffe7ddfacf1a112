//! The contract of [`LocationHistory`], as tests. Sentence 1 (durable) is for each backend's own crash tests.

#![expect(clippy::unwrap_used, reason = "a suite panics when a sentence does not hold")]

use std::sync::Arc;

use model::{Motion, MotionField, Position, TimestampMs, UserId};

use super::{HistoryPoint, LocationHistory};
use crate::conformance::{Harness, fresh_user, fresh_users};

/// Makes a test of every sentence: `history_conformance!([tokio::test] harness)`.
#[macro_export]
macro_rules! history_conformance {
    ($attribute:tt $harness:expr) => {
        $crate::conformance_tests! { $attribute $harness, history:
            what_was_appended_is_read_back_whole_by_every_node,
            appending_again_changes_nothing_but_the_values,
            range_is_half_open_and_ascending,
            range_gives_fewer_than_the_limit_only_when_there_are_no_more,
            range_shows_nobody_else,
            export_pages_through_a_day_in_order,
            forget_leaves_nothing_of_the_user_and_everything_of_others,
            what_is_appended_after_forget_stays,
            dropping_days_drops_whole_days_before_and_nothing_else,
        }
    };
}

type History = Arc<dyn LocationHistory>;

const DAY: u64 = TimestampMs::DAY_MS;

/// A day that other tests hardly use, after every day that is dropped.
fn quiet_day() -> u64 {
    20_000 + fresh_user().0 % 10_000
}

fn point(user: UserId, ts: u64) -> HistoryPoint {
    // Everybody somewhere else, so that a mix-up shows.
    let lat = (ts % 90) as f64 + 0.000_000_1;
    HistoryPoint { user, ts: TimestampMs(ts), position: Position::new(lat, -116.5).unwrap(), motion: Motion::UNKNOWN }
}

fn points(user: UserId, times: impl IntoIterator<Item = u64>) -> Vec<HistoryPoint> {
    times.into_iter().map(|ts| point(user, ts)).collect()
}

async fn range(history: &History, user: UserId, from: u64, to: u64, limit: usize) -> Vec<HistoryPoint> {
    history.range(user, TimestampMs(from), TimestampMs(to), limit).await.unwrap()
}

async fn everything(history: &History, user: UserId, day: u64) -> Vec<HistoryPoint> {
    range(history, user, (day - 5) * DAY, (day + 5) * DAY, 10_000).await
}

/// All of a day, a page at a time.
async fn export(history: &History, day: u64, page: usize) -> Vec<HistoryPoint> {
    let mut all: Vec<HistoryPoint> = Vec::new();
    loop {
        let after = all.last().map(|point| (point.user, point.ts));
        let next = history.export_day(day, after, page).await.unwrap();
        assert!(next.iter().all(|point| after < Some((point.user, point.ts))), "only what comes after");
        let more = next.len() == page;
        all.extend(next);
        if !more {
            return all;
        }
    }
}

/// Sentences 1 and 3.
pub async fn what_was_appended_is_read_back_whole_by_every_node(harness: &impl Harness<Node = History>) {
    let [writer, reader] = [harness.node().await, harness.node().await];
    let (user, day) = (fresh_user(), quiet_day());
    let motion = Motion::UNKNOWN.with(MotionField::AltitudeM, -12.5).unwrap();
    let motion = motion.with(MotionField::BatteryPct, 0.0).unwrap().with_charging(false);
    let full = HistoryPoint { motion, ..point(user, day * DAY + 1) };
    let corner = HistoryPoint { position: Position::new(-90.0, 180.0).unwrap(), ..point(user, day * DAY + 2) };
    writer.append(&[full, corner]).await.unwrap();
    assert_eq!(everything(&reader, user, day).await, [full, corner]);
    writer.append(&[]).await.unwrap();
}

/// Sentence 2.
pub async fn appending_again_changes_nothing_but_the_values(harness: &impl Harness<Node = History>) {
    let [first, second] = [harness.node().await, harness.node().await];
    let (user, day) = (fresh_user(), quiet_day());
    let batch = points(user, [day * DAY, day * DAY + 7]);
    for node in [&first, &second, &first] {
        node.append(&batch).await.unwrap();
    }
    assert_eq!(everything(&first, user, day).await, batch);
    let moved = HistoryPoint { position: Position::new(1.0, 2.0).unwrap(), ..batch[1] };
    second.append(&[moved]).await.unwrap();
    assert_eq!(everything(&first, user, day).await, [batch[0], moved]);
}

/// Sentence 3.
pub async fn range_is_half_open_and_ascending(harness: &impl Harness<Node = History>) {
    let history = harness.node().await;
    let (user, day) = (fresh_user(), quiet_day());
    let (first, last) = ((day - 1) * DAY, (day + 1) * DAY);
    // Over midnight twice, and not in order.
    let mut times = vec![last - 1, first, day * DAY, day * DAY - 1, last, day * DAY + 5];
    history.append(&points(user, times.clone())).await.unwrap();
    times.sort();
    assert_eq!(range(&history, user, first, last + 1, 100).await, points(user, times.clone()));
    assert_eq!(range(&history, user, first, last, 100).await, points(user, times[..5].to_vec()), "without the end");
    assert_eq!(range(&history, user, first + 1, last, 100).await, points(user, times[1..5].to_vec()));
    for (from, to) in [(first, first), (last, first), (first + 1, day * DAY - 1)] {
        assert_eq!(range(&history, user, from, to, 100).await, []);
    }
}

/// Sentence 3.
pub async fn range_gives_fewer_than_the_limit_only_when_there_are_no_more(harness: &impl Harness<Node = History>) {
    let history = harness.node().await;
    let (user, day) = (fresh_user(), quiet_day());
    // Ten points an empty day apart from ten more.
    let times: Vec<u64> = (0..10).map(|n| day * DAY + n).chain((0..10).map(|n| (day + 2) * DAY + n)).collect();
    history.append(&points(user, times.clone())).await.unwrap();
    for limit in [0, 1, 9, 10, 11, 19, 20, 21] {
        let got = range(&history, user, day * DAY, (day + 3) * DAY, limit).await;
        assert_eq!(got, points(user, times[..limit.min(20)].to_vec()), "limit {limit}");
    }
}

/// Sentence 3.
pub async fn range_shows_nobody_else(harness: &impl Harness<Node = History>) {
    let history = harness.node().await;
    let ([before, user, after], day) = (fresh_users(), quiet_day());
    for somebody in [before, user, after] {
        history.append(&points(somebody, [day * DAY, day * DAY + 1])).await.unwrap();
    }
    assert_eq!(everything(&history, user, day).await, points(user, [day * DAY, day * DAY + 1]));
    assert_eq!(everything(&history, fresh_user(), day).await, []);
}

/// Sentence 4.
pub async fn export_pages_through_a_day_in_order(harness: &impl Harness<Node = History>) {
    let history = harness.node().await;
    let (users, day) = (fresh_users::<7>(), quiet_day());
    let mut expected = Vec::new();
    for user in users {
        let of_day = points(user, (0..5).map(|n| day * DAY + n * (DAY / 5)));
        history.append(&of_day).await.unwrap();
        history.append(&points(user, [day * DAY - 1, (day + 1) * DAY])).await.unwrap();
        expected.extend(of_day);
    }
    for page in [1, 5, 34, 35, 1_000] {
        let mut all = export(&history, day, page).await;
        assert!(all.is_sorted_by_key(|point| (point.user, point.ts)), "pages of {page}");
        all.retain(|point| users.contains(&point.user));
        assert_eq!(all, expected, "pages of {page}");
    }
}

/// Sentence 5.
pub async fn forget_leaves_nothing_of_the_user_and_everything_of_others(harness: &impl Harness<Node = History>) {
    let [first, second] = [harness.node().await, harness.node().await];
    let ([before, user, after], day) = (fresh_users(), quiet_day());
    let times = [(day - 2) * DAY, day * DAY, day * DAY + 1, (day + 2) * DAY];
    for somebody in [before, user, after] {
        first.append(&points(somebody, times)).await.unwrap();
    }
    for _ in 0..2 {
        second.forget(user).await.unwrap();
        assert_eq!(everything(&first, user, day).await, []);
    }
    for somebody in [before, after] {
        assert_eq!(everything(&first, somebody, day).await, points(somebody, times));
    }
    assert!(export(&first, day, 1_000).await.iter().all(|point| point.user != user));
}

/// Sentence 5.
pub async fn what_is_appended_after_forget_stays(harness: &impl Harness<Node = History>) {
    let history = harness.node().await;
    let (user, day) = (fresh_user(), quiet_day());
    history.append(&points(user, [day * DAY, day * DAY + 1])).await.unwrap();
    history.forget(user).await.unwrap();
    let again = points(user, [day * DAY + 1]);
    history.append(&again).await.unwrap();
    assert_eq!(everything(&history, user, day).await, again);
}

/// Sentence 6. Drops the days before 100, where no other test has points.
pub async fn dropping_days_drops_whole_days_before_and_nothing_else(harness: &impl Harness<Node = History>) {
    let [first, second] = [harness.node().await, harness.node().await];
    let user = fresh_user();
    let times = [90 * DAY, 95 * DAY + 7, 100 * DAY - 1, 100 * DAY, 101 * DAY];
    first.append(&points(user, times)).await.unwrap();
    for _ in 0..2 {
        second.drop_days_before(100).await.unwrap();
        assert_eq!(range(&first, user, 0, 200 * DAY, 100).await, points(user, [100 * DAY, 101 * DAY]));
        assert!(export(&first, 99, 100).await.iter().all(|point| point.user != user));
    }
    first.append(&points(user, [95 * DAY])).await.unwrap();
    assert_eq!(range(&second, user, 0, 100 * DAY, 100).await, points(user, [95 * DAY]), "a dropped day can come again");
}
