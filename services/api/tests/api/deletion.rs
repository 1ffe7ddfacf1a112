//! The deletion of a user: live, complete, and taken up again after a crash.

use std::time::Duration;

use axum::http::StatusCode;
use model::{Fix, Generation, MonotonicMs, Motion, NodeId, Order, Place, PolicyVersion, Position, TimestampMs, UserId};
use ports::embedded::Health;
use ports::{ControlEntry, ControlLog, Discovery, HistoryPoint, LocationCache};
use serde_json::json;
use web::Scope;

use crate::world::World;

const ALICE: UserId = UserId(7);
const BOB: UserId = UserId(8);
const START: TimestampMs = TimestampMs(1_735_689_600_000);

/// Alice has friends, a history and a position, and Bob too.
async fn world() -> World {
    let world = World::of(&[7, 8, 9]).await;
    for (user, friend) in [(7, 8), (7, 9), (8, 9)] {
        world.befriend(user, friend).await;
    }
    for user in [ALICE, BOB] {
        let (position, ts) = (Position::new(40.0, 116.0).unwrap(), START.before(Duration::from_secs(1)));
        let yesterday = START.before(Duration::from_secs(30 * 3_600));
        let points = [ts, yesterday].map(|ts| HistoryPoint { user, ts, position, motion: Motion::UNKNOWN });
        world.state.history.append(&points).await.unwrap();
        let order = Order { generation: Generation(1), ts, ..Order::default() };
        let (place, policy) = (Place::new(position), PolicyVersion(0));
        let expires = MonotonicMs(u64::MAX);
        world.cache.put_many(&[Fix { user, place, order, expires, policy, motion: Motion::UNKNOWN }]).await.unwrap();
    }
    world
}

async fn assert_nothing_is_left(world: &World) {
    let state = &world.state;
    let users = state.users.get_many(&[ALICE, BOB]).await.unwrap();
    assert_eq!((users[0].is_some(), users[1].is_some()), (false, true));
    assert_eq!(state.users.deleting().await, Ok(vec![]));
    for (user, friends) in [(ALICE, vec![]), (BOB, vec![UserId(9)]), (UserId(9), vec![BOB])] {
        assert_eq!(state.friendships.list(user, None, 10).await, Ok(friends));
    }
    let cached = world.cache.get_many(&[ALICE, BOB]).await.unwrap();
    assert_eq!((cached[0].is_some(), cached[1].is_some()), (false, true));
    let ever = async |user| state.history.range(user, TimestampMs(0), TimestampMs(u64::MAX), 10).await.unwrap().len();
    assert_eq!((ever(ALICE).await, ever(BOB).await), (0, 2));
    for day in [START.day() - 1, START.day() - 2] {
        let points = state.history.export_day(day, None, 10).await.unwrap();
        assert!(points.iter().all(|point| point.user != ALICE));
    }
}

#[tokio::test(start_paused = true)]
async fn leaves_nothing_and_may_be_repeated() {
    let world = world().await;
    for _ in 0..2 {
        assert_eq!(world.backend("DELETE", "/v1/users/7", None).await.status, StatusCode::NO_CONTENT);
        assert_nothing_is_left(&world).await;
    }
    // Once before anything is forgotten, and once after the friendships were written.
    assert_eq!(world.log().await, [ControlEntry::UserDeleted(ALICE), ControlEntry::UserForgotten(ALICE)]);
    let notes = world.state.friendships.unannounced(Duration::ZERO).await.unwrap();
    assert_eq!(notes.len(), 3, "of the friendships that the test made itself, without an entry");
    world.user(7, "GET", "/v1/me").await.problem(404);
    // The id is free again, for somebody without a past.
    let anew = world.backend("PUT", "/v1/users/7", Some(json!({"name": "Ada"}))).await;
    assert_eq!(anew.status, StatusCode::CREATED);
    assert_eq!(world.user(7, "GET", "/v1/me/friends").await.json()["items"], json!([]));
}

#[tokio::test(start_paused = true)]
async fn a_named_subject_is_forgotten_too() {
    let world = world().await;
    let token = world.token("auth0|ada", &[Scope::User]);
    let id = async || world.ask(Some(&token), "GET", "/v1/me", None).await.json()["id"].clone();
    let first = id().await;
    let path = format!("/v1/users/{}", first.as_str().unwrap());
    assert_eq!(world.backend("DELETE", &path, None).await.status, StatusCode::NO_CONTENT);
    assert_ne!(id().await, first);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_forgotten_before_the_nodes_have_stopped() {
    let world = world().await;
    world.discovery.join(NodeId(1)).await.unwrap();
    let look_and_confirm = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        // A node may still take in a position now: forgetting would be in vain.
        assert_eq!(world.state.friendships.list(ALICE, None, 10).await.unwrap().len(), 2);
        assert_eq!(world.state.users.deleting().await, Ok(vec![ALICE]));
        // Meanwhile the user is nobody, and cannot be made anew.
        world.backend("GET", "/v1/users/7", None).await.problem(404);
        world.backend("PUT", "/v1/users/7", Some(json!({"name": "Ada"}))).await.problem(409);
        world.control.confirm(NodeId(1), PolicyVersion(1)).await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        // The node takes nothing in any more, but what it took in before may still be on its way.
        assert_eq!(world.state.friendships.list(ALICE, None, 10).await.unwrap().len(), 2);
        world.control.confirm_erased(NodeId(1), PolicyVersion(1)).await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(world.state.friendships.list(ALICE, None, 10).await.unwrap().len(), 0);
        world.control.confirm(NodeId(1), PolicyVersion(2)).await.unwrap();
    };
    let (answer, ()) = tokio::join!(world.backend("DELETE", "/v1/users/7", None), look_and_confirm);
    assert_eq!(answer.status, StatusCode::NO_CONTENT);
    assert_nothing_is_left(&world).await;
}

#[tokio::test(start_paused = true)]
async fn is_taken_up_again_after_a_crash_at_any_step() {
    for crash in ["before the log", "before the cache", "after the friendships"] {
        let world = world().await;
        match crash {
            "before the log" => world.control.set_health(Health::Down),
            "before the cache" => world.cache.set_health(Health::Down),
            _ => {
                world.state.users.begin_delete(ALICE).await.unwrap();
                world.state.friendships.forget(ALICE).await.unwrap();
            }
        }
        if crash.starts_with("before") {
            world.backend("DELETE", "/v1/users/7", None).await.problem(503);
            api::resume_deletions(&world.state).await.unwrap_err();
        }
        world.control.set_health(Health::Up);
        world.cache.set_health(Health::Up);
        assert_eq!(api::resume_deletions(&world.state).await, Ok(1), "{crash}");
        assert_nothing_is_left(&world).await;
        assert_eq!(api::resume_deletions(&world.state).await, Ok(0));
    }
}

#[tokio::test(start_paused = true)]
async fn many_interrupted_ones_wait_for_the_nodes_together() {
    let world = World::new();
    let ids: Vec<u64> = (100..350).collect();
    world.know(&ids).await;
    for id in &ids {
        world.state.users.begin_delete(UserId(*id)).await.unwrap();
    }
    world.discovery.join(NodeId(1)).await.unwrap();
    let start = tokio::time::Instant::now();
    assert_eq!(api::resume_deletions(&world.state).await, Ok(250));
    assert!(start.elapsed() <= 3 * ports::control::RIGHT_TO_SEND, "{:?}", start.elapsed());
    assert_eq!(world.state.users.deleting().await, Ok(vec![]));
}
