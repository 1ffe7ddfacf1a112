//! The contract of [`LocationCache`], as tests.

#![expect(clippy::unwrap_used, reason = "a suite panics when a sentence does not hold")]

use std::sync::Arc;
use std::time::Duration;

use model::{
    Fix, Generation, Motion, MotionField, Order, Place, PolicyVersion, Position, Sequence, TimestampMs, UserId,
};

use super::{LocationCache, Put};
use crate::conformance::{Harness, fresh_user, fresh_users};

/// Makes a test of every sentence: `cache_conformance!([tokio::test] harness)`.
#[macro_export]
macro_rules! cache_conformance {
    ($attribute:tt $harness:expr) => {
        $crate::conformance_tests! { $attribute $harness, cache:
            the_highest_order_is_kept_whatever_the_order_of_the_calls,
            of_reports_of_one_time_the_last_is_kept_whatever_the_order_of_the_calls,
            any_sequence_of_puts_leaves_the_highest_order,
            nodes_that_race_leave_the_highest_order,
            what_has_expired_does_not_hold_up_an_older_position,
            put_many_answers_for_each_fix_in_order,
            the_same_fix_again_is_stored_and_changes_nothing,
            what_was_put_is_seen_by_every_node,
            a_fix_comes_back_whole_and_with_the_time_it_has_left,
            a_fix_is_gone_at_its_end,
            a_fix_that_has_expired_is_not_kept,
            get_many_answers_for_each_user_in_order,
            remove_forgets_whatever_the_order,
            nothing_asked_is_nothing_answered,
        }
    };
}

type Cache = Arc<dyn LocationCache>;

const TTL: Duration = Duration::from_secs(60);

/// A time left may be rounded, and messages take time.
const TOLERANCE: Duration = Duration::from_millis(500);

fn fix(harness: &impl Harness, user: UserId, generation: u64, ts: u64) -> Fix {
    let motion = Motion::UNKNOWN.with(MotionField::SpeedMps, 1.5).unwrap().with_charging(true);
    Fix {
        user,
        place: Place::new(Position::new(40.020_12, 116.421_11).unwrap()),
        order: Order { generation: Generation(generation), ts: TimestampMs(ts), ..Order::default() },
        expires: harness.clock().monotonic().after(TTL),
        policy: PolicyVersion(7),
        motion,
    }
}

/// With another sequence number.
fn numbered(mut fix: Fix, seq: u64) -> Fix {
    fix.order.seq = Sequence(seq);
    fix
}

/// With another time to live.
fn lasting(mut fix: Fix, harness: &impl Harness, ttl: Duration) -> Fix {
    fix.expires = harness.clock().monotonic().after(ttl);
    fix
}

async fn kept(cache: &Cache, user: UserId) -> Option<Fix> {
    let mut answer = cache.get_many(&[user]).await.unwrap();
    assert_eq!(answer.len(), 1);
    answer.remove(0)
}

async fn kept_order(cache: &Cache, user: UserId) -> Option<(u64, u64)> {
    kept(cache, user).await.map(|fix| (fix.order.generation.0, fix.order.ts.0))
}

/// Sentence 1.
pub async fn the_highest_order_is_kept_whatever_the_order_of_the_calls(harness: &impl Harness<Node = Cache>) {
    let nodes = [harness.node().await, harness.node().await];
    let orders = [(1, 500), (1, 900), (2, 100)];
    for sequence in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let user = fresh_user();
        for (turn, index) in sequence.into_iter().enumerate() {
            let (generation, ts) = orders[index];
            nodes[turn % 2].put_many(&[fix(harness, user, generation, ts)]).await.unwrap();
        }
        assert_eq!(kept_order(&nodes[0], user).await, Some((2, 100)), "{sequence:?}");
    }
}

/// Sentence 1, for reports that only their sequence numbers tell apart.
pub async fn of_reports_of_one_time_the_last_is_kept_whatever_the_order_of_the_calls(
    harness: &impl Harness<Node = Cache>,
) {
    let nodes = [harness.node().await, harness.node().await];
    // One differs in the lower half of the number, one in the upper.
    for (earlier, later) in [(1, 2), (u64::from(u32::MAX), 1 << 32), (0, u64::MAX)] {
        for later_comes_first in [false, true] {
            let user = fresh_user();
            let report = fix(harness, user, 1, 500);
            let (earlier, later) = (numbered(report, earlier), numbered(report, later));
            let calls = if later_comes_first { [later, earlier] } else { [earlier, later] };
            for (node, call) in nodes.iter().zip(calls) {
                let put = if later_comes_first && call == earlier { Put::Stale } else { Put::Stored };
                assert_eq!(node.put_many(&[call]).await, Ok(vec![put]), "{earlier:?} {later:?}");
            }
            assert_eq!(kept(&nodes[0], user).await.map(|fix| fix.order), Some(later.order));
        }
    }
}

/// Sentence 1, for any calls: batches of any orders, by two nodes in turn.
pub async fn any_sequence_of_puts_leaves_the_highest_order(harness: &impl Harness<Node = Cache>) {
    // Numbers on both sides of a half and at both ends, so that a comparison of the wrong half shows.
    const NUMBERS: [u64; 5] = [0, 1, u32::MAX as u64, 1 << 32, u64::MAX];
    let nodes = [harness.node().await, harness.node().await];
    for seed in 0..200u64 {
        let mut state = seed;
        let mut number = |below: usize| {
            // SplitMix64.
            state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mixed = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            ((mixed ^ (mixed >> 31)) % below as u64) as usize
        };
        let user = fresh_user();
        let mut highest = None;
        for node in nodes.iter().cycle().take(2 + number(4)) {
            let batch: Vec<Fix> = (0..1 + number(3))
                .map(|_| {
                    let (generation, ts) = (NUMBERS[number(5)], NUMBERS[number(5)]);
                    numbered(fix(harness, user, generation, ts), NUMBERS[number(5)])
                })
                .collect();
            let puts = node.put_many(&batch).await.unwrap();
            for (fix, put) in batch.iter().zip(puts) {
                let is_newest = highest.is_none_or(|highest| fix.order >= highest);
                assert_eq!(put, if is_newest { Put::Stored } else { Put::Stale }, "seed {seed}: {:?}", fix.order);
                highest = highest.max(Some(fix.order));
            }
            assert_eq!(kept(node, user).await.map(|fix| fix.order), highest, "seed {seed}");
        }
    }
}

/// Sentence 1, with calls at the same time.
pub async fn nodes_that_race_leave_the_highest_order(harness: &impl Harness<Node = Cache>) {
    let [first, second] = [harness.node().await, harness.node().await];
    for round in 0..50 {
        let user = fresh_user();
        let (newer, older) = if round % 2 == 0 {
            (fix(harness, user, 2, 1), fix(harness, user, 1, 9))
        } else {
            let report = fix(harness, user, 1, 9);
            (numbered(report, 8), numbered(report, 7))
        };
        let (one, other) = ([newer], [older]);
        let (one, other) = tokio::join!(first.put_many(&one), second.put_many(&other));
        one.unwrap();
        other.unwrap();
        assert_eq!(kept(&first, user).await.map(|fix| fix.order), Some(newer.order), "round {round}");
    }
}

/// Sentence 1: only what has not expired counts.
pub async fn what_has_expired_does_not_hold_up_an_older_position(harness: &impl Harness<Node = Cache>) {
    let cache = harness.node().await;
    let user = fresh_user();
    let short = lasting(fix(harness, user, 2, 900), harness, Duration::from_millis(300));
    cache.put_many(&[short]).await.unwrap();
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert_eq!(cache.put_many(&[fix(harness, user, 1, 1)]).await, Ok(vec![Put::Stored]));
    assert_eq!(kept_order(&cache, user).await, Some((1, 1)));
}

/// Sentence 2.
pub async fn put_many_answers_for_each_fix_in_order(harness: &impl Harness<Node = Cache>) {
    let cache = harness.node().await;
    let [one, other] = fresh_users();
    cache.put_many(&[fix(harness, one, 5, 5)]).await.unwrap();
    let batch = [(one, 5, 4), (other, 1, 1), (one, 4, 9), (one, 5, 7), (other, 1, 0), (one, 5, 6)];
    let batch = batch.map(|(user, generation, ts)| fix(harness, user, generation, ts));
    use Put::{Stale, Stored};
    assert_eq!(cache.put_many(&batch).await, Ok(vec![Stale, Stored, Stale, Stored, Stale, Stale]));
    assert_eq!(kept_order(&cache, one).await, Some((5, 7)));
    assert_eq!(kept_order(&cache, other).await, Some((1, 1)));
}

/// Sentence 2.
pub async fn the_same_fix_again_is_stored_and_changes_nothing(harness: &impl Harness<Node = Cache>) {
    let [first, second] = [harness.node().await, harness.node().await];
    let user = fresh_user();
    let fix = fix(harness, user, 1, 1);
    for node in [&first, &first, &second] {
        assert_eq!(node.put_many(&[fix]).await, Ok(vec![Put::Stored]));
    }
    assert_eq!(kept_order(&second, user).await, Some((1, 1)));
}

/// Sentence 3.
pub async fn what_was_put_is_seen_by_every_node(harness: &impl Harness<Node = Cache>) {
    let [writer, reader] = [harness.node().await, harness.node().await];
    let users: Vec<UserId> = (0..500).map(|_| fresh_user()).collect();
    for ts in 1..=3 {
        let fixes: Vec<Fix> = users.iter().map(|user| fix(harness, *user, 1, ts)).collect();
        assert_eq!(writer.put_many(&fixes).await, Ok(vec![Put::Stored; users.len()]));
        let seen = reader.get_many(&users).await.unwrap();
        assert!(seen.iter().all(|fix| fix.is_some_and(|fix| fix.order.ts == TimestampMs(ts))), "ts {ts}");
    }
}

/// Sentence 4.
pub async fn a_fix_comes_back_whole_and_with_the_time_it_has_left(harness: &impl Harness<Node = Cache>) {
    let [writer, reader] = [harness.node().await, harness.node().await];
    let user = fresh_user();
    let put = fix(harness, user, 3, 4);
    writer.put_many(&[put]).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let got = kept(&reader, user).await.unwrap();
    assert_eq!(Fix { expires: put.expires, ..got }, put);
    let off = got.expires.since(put.expires).max(put.expires.since(got.expires));
    assert!(off <= TOLERANCE, "the end moved by {off:?}");
}

/// Sentence 4.
pub async fn a_fix_is_gone_at_its_end(harness: &impl Harness<Node = Cache>) {
    let cache = harness.node().await;
    let [short, long] = fresh_users();
    let soon_over = lasting(fix(harness, short, 1, 1), harness, Duration::from_secs(1));
    cache.put_many(&[soon_over, fix(harness, long, 1, 1)]).await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(kept(&cache, short).await.is_some(), "gone too early");
    tokio::time::sleep(Duration::from_millis(750)).await;
    assert_eq!(kept(&cache, short).await, None, "kept too long");
    assert!(kept(&cache, long).await.is_some());
}

/// Sentence 4.
pub async fn a_fix_that_has_expired_is_not_kept(harness: &impl Harness<Node = Cache>) {
    let cache = harness.node().await;
    let [nobody, somebody] = fresh_users();
    cache.put_many(&[fix(harness, somebody, 1, 1)]).await.unwrap();
    for user in [nobody, somebody] {
        let expired = lasting(fix(harness, user, 2, 2), harness, Duration::ZERO);
        assert_eq!(cache.put_many(&[expired]).await, Ok(vec![Put::Stored]));
    }
    assert_eq!(kept(&cache, nobody).await, None);
    assert_eq!(kept_order(&cache, somebody).await, Some((1, 1)), "the older one that has not expired stays");
}

/// Sentence 5.
pub async fn get_many_answers_for_each_user_in_order(harness: &impl Harness<Node = Cache>) {
    let cache = harness.node().await;
    let [one, nobody, other] = fresh_users();
    cache.put_many(&[fix(harness, one, 1, 1), fix(harness, other, 1, 2)]).await.unwrap();
    let asked = [other, nobody, one, other];
    let got: Vec<_> = cache.get_many(&asked).await.unwrap().iter().map(|fix| fix.map(|fix| fix.user)).collect();
    assert_eq!(got, [Some(other), None, Some(one), Some(other)]);
}

/// Sentence 6.
pub async fn remove_forgets_whatever_the_order(harness: &impl Harness<Node = Cache>) {
    let [first, second] = [harness.node().await, harness.node().await];
    let [gone, stays, unknown] = fresh_users();
    first.put_many(&[fix(harness, gone, 9, 9), fix(harness, stays, 1, 1)]).await.unwrap();
    for _ in 0..2 {
        second.remove(&[gone, unknown]).await.unwrap();
        assert_eq!(kept(&first, gone).await, None);
    }
    assert!(kept(&first, stays).await.is_some());
    assert_eq!(first.put_many(&[fix(harness, gone, 1, 1)]).await, Ok(vec![Put::Stored]), "an older one after removal");
    assert_eq!(kept_order(&second, gone).await, Some((1, 1)));
}

/// Sentences 2 and 5 of empty batches.
pub async fn nothing_asked_is_nothing_answered(harness: &impl Harness<Node = Cache>) {
    let cache = harness.node().await;
    assert_eq!(cache.put_many(&[]).await, Ok(vec![]));
    assert_eq!(cache.get_many(&[]).await, Ok(vec![]));
    assert_eq!(cache.remove(&[]).await, Ok(()));
}
