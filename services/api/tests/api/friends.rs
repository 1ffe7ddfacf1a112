//! Friendships, and the promise of a revoke.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::http::StatusCode;
use model::{Level, NodeId, PolicyVersion, UserId};
use ports::control::RIGHT_TO_SEND;
use ports::embedded::Health;
use ports::friendships::{Change, ChangeNote, Changed, Friendship, MAX_FRIENDS};
use ports::{ControlEntry, ControlLog, Discovery, Friendships, PortError, Users};
use serde_json::json;
use tokio::time::Instant;

use crate::world::{World, request};

const NODE: NodeId = NodeId(1);

fn befriended() -> ControlEntry {
    ControlEntry::Befriended(UserId(7), UserId(8))
}

fn unfriended() -> ControlEntry {
    ControlEntry::Unfriended(UserId(7), UserId(8))
}

#[tokio::test(start_paused = true)]
async fn made_listed_and_ended_in_both_directions() {
    let world = World::of(&[7, 8]).await;
    let put = async || world.backend("PUT", "/v1/users/7/friends/8", None).await.status;
    assert_eq!((put().await, put().await), (StatusCode::CREATED, StatusCode::NO_CONTENT));
    let bob = json!({"items": [{"id": "8", "name": "user 8"}], "next_cursor": null});
    assert_eq!(world.backend("GET", "/v1/users/7/friends", None).await.json(), bob);
    assert_eq!(world.user(7, "GET", "/v1/me/friends").await.json(), bob);
    assert_eq!(world.user(8, "GET", "/v1/me/friends").await.json()["items"][0]["id"], "7");

    assert_eq!(world.user(8, "DELETE", "/v1/me/friends/7").await.status, StatusCode::NO_CONTENT);
    let none = json!({"items": [], "next_cursor": null});
    assert_eq!(world.user(7, "GET", "/v1/me/friends").await.json(), none);
    assert_eq!(world.backend("DELETE", "/v1/users/7/friends/8", None).await.status, StatusCode::NO_CONTENT);

    // A repetition goes to the log too: the attempt before it may have ended before it came there.
    let by_bob = ControlEntry::Unfriended(UserId(8), UserId(7));
    assert_eq!(world.log().await, [befriended(), befriended(), by_bob, unfriended()]);
}

#[tokio::test(start_paused = true)]
async fn takes_two_different_users_who_exist() {
    let world = World::of(&[7, 8]).await;
    let put = async |path: &str| world.backend("PUT", path, None).await;
    assert_eq!(put("/v1/users/7/friends/7").await.wrong(400), "friend");
    let (missing_friend, missing_user) = (put("/v1/users/7/friends/9").await, put("/v1/users/9/friends/7").await);
    assert_eq!((missing_friend.wrong(404), missing_user.wrong(404)), ("friend".into(), "id".into()));
    assert!(missing_friend.problem(404).contains("user 9"));
    world.state.users.begin_delete(UserId(8)).await.unwrap();
    assert_eq!(put("/v1/users/7/friends/8").await.wrong(404), "friend");
    assert_eq!(world.log().await, []);
}

#[tokio::test(start_paused = true)]
async fn nobody_has_more_friends_than_the_limit() {
    let world = World::of(&[7, 8]).await;
    let many = 100..100 + MAX_FRIENDS as u64;
    let adding = many.map(|friend| {
        let friendships = world.state.friendships.clone();
        async move { friendships.add(UserId(7), UserId(friend)).await.map(|_| ()) }
    });
    let mut set = tokio::task::JoinSet::new();
    adding.for_each(|add| drop(set.spawn(add)));
    set.join_all().await.into_iter().collect::<Result<(), _>>().unwrap();
    for path in ["/v1/users/7/friends/8", "/v1/users/8/friends/7"] {
        let detail = world.backend("PUT", path, None).await.problem(409);
        assert!(detail.contains("user 7 has 5000 friends"), "{detail}");
    }
    assert_eq!(world.log().await, []);
}

#[tokio::test(start_paused = true)]
async fn a_list_is_read_to_its_end() {
    let world = World::of(&[7]).await;
    let friends: Vec<u64> = (0..250).map(|n| n * n + 100).collect();
    world.know(&friends).await;
    for friend in &friends {
        world.befriend(7, *friend).await;
    }
    let expected: Vec<_> =
        friends.iter().map(|id| json!({"id": id.to_string(), "name": format!("user {id}")})).collect();
    let token = world.user_token(7);
    for (limit, pages) in [(1, 250), (100, 3), (125, 2), (250, 1), (1_000, 1)] {
        let read = world.walk(&token, "/v1/me/friends", limit).await;
        assert_eq!(read, (expected.clone(), pages), "{limit} a page");
    }
    let default = world.user(7, "GET", "/v1/me/friends").await.json();
    assert_eq!(default["items"].as_array().unwrap().len(), 100);

    for (query, field) in [("limit=0", "limit"), ("limit=1001", "limit"), ("limit=x", "limit"), ("cursor=x", "cursor")]
    {
        assert_eq!(world.user(7, "GET", &format!("/v1/me/friends?{query}")).await.wrong(400), field, "{query}");
    }
    world.user(7, "GET", "/v1/me/friends?limit=1&limit=2").await.problem(400);
}

#[tokio::test(start_paused = true)]
async fn an_end_is_acknowledged_when_every_sender_has_applied_it() {
    let world = World::of(&[7, 8]).await;
    world.befriend(7, 8).await;
    world.discovery.join(NODE).await.unwrap();
    let start = Instant::now();
    let revoke = async {
        let answer = world.backend("DELETE", "/v1/users/7/friends/8", None).await;
        (answer.status, start.elapsed())
    };
    let apply = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        world.control.confirm(NODE, PolicyVersion(1)).await.unwrap();
    };
    let (answer, ()) = tokio::join!(revoke, apply);
    assert_eq!(answer, (StatusCode::NO_CONTENT, Duration::from_millis(300)));
}

#[tokio::test(start_paused = true)]
async fn a_sender_that_is_cut_off_delays_it_by_the_right_to_send() {
    let world = World::of(&[7, 8]).await;
    world.befriend(7, 8).await;
    world.discovery.join(NODE).await.unwrap();
    let start = Instant::now();
    let answer = world.user(7, "DELETE", "/v1/me/friends/8").await;
    assert_eq!((answer.status, start.elapsed()), (StatusCode::NO_CONTENT, RIGHT_TO_SEND));
}

#[tokio::test(start_paused = true)]
async fn without_the_log_it_is_not_acknowledged_and_a_repetition_makes_it_safe() {
    let world = World::of(&[7, 8]).await;
    world.befriend(7, 8).await;
    world.control.set_health(Health::Down);
    for (method, path) in [("DELETE", "/v1/users/7/friends/8"), ("PUT", "/v1/users/7/friends/8")] {
        let answer = world.backend(method, path, None).await;
        let detail = answer.problem(503);
        assert!(!detail.contains("control log"), "{detail}");
        assert_eq!(answer.headers["retry-after"], "2");
    }
    world.user(7, "DELETE", "/v1/me/friends/8").await.problem(503);
    world.control.set_health(Health::Up);
    assert_eq!(world.log().await, []);
    assert_eq!(world.user(7, "DELETE", "/v1/me/friends/8").await.status, StatusCode::NO_CONTENT);
    assert_eq!(world.log().await, [unfriended()]);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_hangs_up_leaves_nothing_half_done() {
    let world = World::of(&[7, 8]).await;
    world.befriend(7, 8).await;
    world.control.set_health(Health::Frozen);
    let ask = world.send(request(Some(&world.user_token(7)), "DELETE", "/v1/me/friends/8", None));
    tokio::time::timeout(Duration::from_secs(5), ask).await.unwrap_err();
    world.control.set_health(Health::Up);
    world.state.changes.finished().await;
    assert_eq!(world.log().await, [unfriended()]);
}

/// What happens between the first look and the return of `add`.
#[derive(Clone, Copy)]
enum Meanwhile {
    /// The friend is deleted.
    Deleted,
    /// Others befriend them too: it is written, counted, and taken back.
    TooMany,
}

struct Raced(Arc<dyn Users>, Arc<dyn Friendships>, Meanwhile);

#[async_trait]
impl Friendships for Raced {
    async fn add(&self, user: UserId, friend: UserId) -> Result<Changed, PortError> {
        match self.2 {
            Meanwhile::Deleted => {
                self.0.begin_delete(friend).await?;
                self.1.forget(friend).await?;
                self.0.finish_delete(friend).await?;
                self.1.add(user, friend).await
            }
            Meanwhile::TooMany => {
                self.1.add(user, friend).await?;
                let note = self.1.remove(user, friend).await?.note;
                Ok(Changed { change: Change::TooMany(user), note })
            }
        }
    }

    async fn remove(&self, user: UserId, friend: UserId) -> Result<Changed, PortError> {
        self.1.remove(user, friend).await
    }

    async fn visible_to(&self, viewer: UserId) -> Result<Vec<Friendship>, PortError> {
        self.1.visible_to(viewer).await
    }

    async fn list(&self, user: UserId, after: Option<UserId>, limit: usize) -> Result<Vec<UserId>, PortError> {
        self.1.list(user, after, limit).await
    }

    async fn levels(&self, pairs: &[(UserId, UserId)]) -> Result<Vec<Option<Level>>, PortError> {
        self.1.levels(pairs).await
    }

    async fn forget(&self, user: UserId) -> Result<Vec<ChangeNote>, PortError> {
        self.1.forget(user).await
    }

    async fn announced(&self, notes: &[ChangeNote]) -> Result<(), PortError> {
        self.1.announced(notes).await
    }

    async fn unannounced(&self, age: Duration) -> Result<Vec<ChangeNote>, PortError> {
        self.1.unannounced(age).await
    }
}

#[tokio::test(start_paused = true)]
async fn a_friendship_with_who_was_deleted_meanwhile_does_not_stay() {
    let world = World::with(|users, friendships| Arc::new(Raced(users, friendships, Meanwhile::Deleted)));
    world.know(&[7, 8]).await;
    assert_eq!(world.backend("PUT", "/v1/users/7/friends/8", None).await.wrong(404), "friend");
    for user in [7, 8] {
        assert_eq!(world.state.friendships.visible_to(UserId(user)).await, Ok(vec![]));
    }
    assert_eq!(world.log().await, [unfriended()]);
}

/// Who connected between the write and its taking back would keep the edge.
#[tokio::test(start_paused = true)]
async fn a_friendship_that_was_taken_back_is_announced_as_an_end() {
    let world = World::with(|users, friendships| Arc::new(Raced(users, friendships, Meanwhile::TooMany)));
    world.know(&[7, 8]).await;
    world.backend("PUT", "/v1/users/7/friends/8", None).await.problem(409);
    assert_eq!(world.log().await, [unfriended()]);
}

/// A process that crashed or hangs between its write and its entry leaves a note, and another one announces the write.
#[tokio::test(start_paused = true)]
async fn what_was_written_and_not_announced_is_announced_later() {
    let world = World::of(&[7, 8, 9]).await;
    let friendships = &world.state.friendships;
    friendships.add(UserId(7), UserId(8)).await.unwrap();
    assert_eq!(api::announce_left_behind(&world.state, api::SETTLED).await, Ok(0), "it may still be under way");
    tokio::time::sleep(api::SETTLED).await;
    world.control.set_health(Health::Down);
    api::announce_left_behind(&world.state, api::SETTLED).await.unwrap_err();
    world.control.set_health(Health::Up);
    assert_eq!(world.log().await, []);
    assert_eq!(api::announce_left_behind(&world.state, api::SETTLED).await, Ok(1));
    assert_eq!(api::announce_left_behind(&world.state, api::SETTLED).await, Ok(0), "once");
    assert_eq!(world.log().await, [unfriended()], "nodes take the edge away and read what is");

    // An attempt whose entry could not be appended is one of these.
    world.control.set_health(Health::Down);
    world.backend("PUT", "/v1/users/7/friends/9", None).await.problem(503);
    world.control.set_health(Health::Up);
    tokio::time::sleep(api::SETTLED).await;
    assert_eq!(api::announce_left_behind(&world.state, api::SETTLED).await, Ok(1));
}
