//! What a spool leaves for later.

use std::time::Duration;

use model::{Motion, Position, TimestampMs, UserId};
use ports::conformance::fresh_user;
use ports::{Clock, HistoryPoint, LocationHistory};

use super::{history, server};

fn points(user: UserId, now: TimestampMs) -> Vec<HistoryPoint> {
    // Some minutes old, this moment, as far ahead as a device may be, and a day on which nothing was written yet.
    let times = [now.0 - 300_000, now.0, now.0 + 120_000, now.0 - 5 * TimestampMs::DAY_MS];
    let position = Position::new(40.0, 116.0).unwrap();
    times.map(|ts| HistoryPoint { user, ts: TimestampMs(ts), position, motion: Motion::UNKNOWN }).to_vec()
}

#[tokio::test]
async fn a_replay_does_not_bring_back_a_deleted_user() {
    let history = history().await;
    let (user, now) = (fresh_user(), Clock::System.wall());
    let everything = async || history.range(user, TimestampMs(0), TimestampMs(u64::MAX), 100).await.unwrap();
    let spooled = points(user, now);
    // Only some had been written when the user was deleted.
    history.append(&spooled[..1]).await.unwrap();
    history.replay(&spooled[1..2]).await.unwrap();
    assert_eq!(everything().await.len(), 2);
    history.forget(user).await.unwrap();
    history.replay(&spooled).await.unwrap();
    assert_eq!(everything().await, [], "deleted");

    // Made anew, they are remembered again, also with the device times of before.
    history.append(&spooled[..1]).await.unwrap();
    history.replay(&spooled).await.unwrap();
    assert_eq!(everything().await, spooled[..1]);
}

#[tokio::test]
async fn a_replay_long_after_a_deletion_finds_who_was_deleted() {
    let history = history().await;
    let (user, now) = (fresh_user(), Clock::System.wall());
    // As after the tombstones were collected: only the mark is left.
    let at = now.0 * 1_000;
    server().run(&format!("INSERT INTO nearby.history_forgotten (user_id, at) VALUES ({user}, {at})"));
    let later = HistoryPoint { ts: now.after(Duration::from_secs(180)), ..points(user, now)[0] };
    history.replay(&[points(user, now), vec![later]].concat()).await.unwrap();
    assert_eq!(history.range(user, TimestampMs(0), TimestampMs(u64::MAX), 100).await.unwrap(), [later]);
}

#[tokio::test]
async fn a_replay_fills_in_what_is_missing_and_changes_nothing_that_is_newer() {
    let history = history().await;
    let (user, now) = (fresh_user(), Clock::System.wall());
    let mut spooled = points(user, now);
    let newer = HistoryPoint { position: Position::new(1.0, 2.0).unwrap(), ..spooled[1] };
    history.append(&[newer]).await.unwrap();
    for _ in 0..2 {
        history.replay(&spooled).await.unwrap();
    }
    spooled[1] = newer;
    spooled.sort_by_key(|point| point.ts);
    assert_eq!(history.range(user, TimestampMs(0), TimestampMs(u64::MAX), 100).await.unwrap(), spooled);
}
