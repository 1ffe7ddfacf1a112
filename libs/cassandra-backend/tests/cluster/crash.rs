//! What a crash, or a spool, leaves for later.

use std::time::Duration;

use model::{Motion, Position, TimestampMs, UserId};
use ports::conformance::{fresh_user, fresh_users};
use ports::friendships::Change;
use ports::{Clock, Friendships, HistoryPoint, LocationHistory};
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use tokio::sync::Semaphore;

use super::{friendships, history, server, session};

/// A sweep repairs also what another test left half done on purpose: one of these tests at a time.
static SWEEPS: Semaphore = Semaphore::const_new(1);

/// Behind the backends' back.
async fn cql(statement: &str) {
    session().await;
    let session: Session = SessionBuilder::new().known_node(server().address()).build().await.unwrap();
    session.query_unpaged(statement, ()).await.unwrap();
}

/// What a node has written that was killed after it changed the pair and before it derived what both see.
async fn half_done(low: UserId, high: UserId, friends: bool) {
    let now = Clock::System.wall().0;
    let minute = now / 60_000;
    cql(&format!(
        "INSERT INTO nearby.friendship_changes (minute, low, high, nonce) VALUES ({minute}, {low}, {high}, 1)"
    ))
    .await;
    let epoch = now * 1_000;
    cql(&format!("DELETE FROM nearby.friendships WHERE low = {low} AND high = {high} IF EXISTS")).await;
    cql(&format!(
        "INSERT INTO nearby.friendships (low, high, epoch, friends) VALUES ({low}, {high}, {epoch}, {friends}) IF NOT EXISTS"
    ))
    .await;
}

async fn sees(graph: &impl Friendships, viewer: UserId, friend: UserId) -> bool {
    graph.visible_to(viewer).await.unwrap().iter().any(|friendship| friendship.friend == friend)
}

#[tokio::test]
async fn half_done_friendships_are_repaired_by_a_sweep_in_both_directions() {
    let _alone = SWEEPS.acquire().await.unwrap();
    let graph = friendships().await;
    let [added, left, right, removed] = fresh_users();
    half_done(added, left, true).await;
    // One of the two rows was written.
    cql(&format!(
        "INSERT INTO nearby.visible_to (viewer, friend, level) VALUES ({added}, {left}, 1) USING TIMESTAMP 1"
    ))
    .await;
    graph.add(right, removed).await.unwrap();
    half_done(right, removed, false).await;
    assert!(!sees(&graph, left, added).await && sees(&graph, right, removed).await, "half done");

    assert_eq!(graph.sweep(Duration::from_secs(300)).await.unwrap().repaired, 0, "may still be under way");
    assert!(graph.sweep(Duration::ZERO).await.unwrap().repaired >= 2);
    for (viewer, friend) in [(added, left), (left, added)] {
        assert!(sees(&graph, viewer, friend).await);
    }
    for (viewer, friend) in [(right, removed), (removed, right)] {
        assert!(!sees(&graph, viewer, friend).await);
    }
}

#[tokio::test]
async fn a_repeated_call_finishes_what_another_left_half_done() {
    let _alone = SWEEPS.acquire().await.unwrap();
    let graph = friendships().await;
    let [ada, grace] = fresh_users();
    half_done(ada, grace, true).await;
    assert_eq!(graph.add(grace, ada).await.unwrap().change, Change::Unchanged);
    assert!(sees(&graph, ada, grace).await && sees(&graph, grace, ada).await);
}

#[tokio::test]
async fn a_sweep_never_brings_back_a_friendship_of_somebody_who_was_forgotten() {
    let _alone = SWEEPS.acquire().await.unwrap();
    let graph = friendships().await;
    let [ada, gone] = fresh_users();
    half_done(ada, gone, true).await;
    graph.forget(gone).await.unwrap();
    graph.sweep(Duration::ZERO).await.unwrap();
    assert!(!sees(&graph, ada, gone).await && !sees(&graph, gone, ada).await);
}

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
    cql(&format!("INSERT INTO nearby.history_forgotten (user_id, at) VALUES ({user}, {at})")).await;
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
