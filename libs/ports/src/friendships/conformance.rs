//! The contract of [`Friendships`], as tests. What "durable" means is for each backend's own crash tests.

#![expect(clippy::unwrap_used, reason = "a suite panics when a sentence does not hold")]

use std::sync::Arc;

use model::{Level, UserId};
use tokio::task::JoinSet;

use super::{Change, Friendship, Friendships, MAX_FRIENDS};
use crate::conformance::{Harness, fresh_user, fresh_users};

/// Makes a test of every sentence: `friendships_conformance!([tokio::test] harness)`.
#[macro_export]
macro_rules! friendships_conformance {
    ($attribute:tt $harness:expr) => {
        $crate::conformance_tests! { $attribute $harness, friendships:
            add_makes_two_people_friends_and_remove_ends_it,
            nobody_is_their_own_friend,
            both_directions_are_equal_after_a_race,
            visible_to_is_ascending_and_shows_only_the_viewers_friends,
            list_pages_through_the_friends_in_order,
            nobody_gets_more_friends_than_allowed,
            forget_removes_all_of_a_user_and_nothing_else,
        }
    };
}

type Graph = Arc<dyn Friendships>;

/// Calls at a time where a test makes thousands.
const ABREAST: usize = 64;

async fn visible(graph: &Graph, viewer: UserId) -> Vec<UserId> {
    let friendships = graph.visible_to(viewer).await.unwrap();
    assert!(friendships.iter().all(|friendship| friendship.level == Level::Exact));
    friendships.iter().map(|friendship| friendship.friend).collect()
}

async fn add_all(graph: &Graph, user: UserId, friends: &[UserId]) {
    for friends in friends.chunks(ABREAST) {
        let mut adding = JoinSet::new();
        for friend in friends.iter().copied() {
            let graph = graph.clone();
            adding.spawn(async move { graph.add(user, friend).await });
        }
        assert!(adding.join_all().await.iter().all(|change| *change == Ok(Change::Done)));
    }
}

/// Sentence 1.
pub async fn add_makes_two_people_friends_and_remove_ends_it(harness: &impl Harness<Node = Graph>) {
    let [first, second] = [harness.node().await, harness.node().await];
    let [ada, grace] = fresh_users();
    for _ in 0..2 {
        assert_eq!(first.add(ada, grace).await, Ok(Change::Done));
        for (user, friend) in [(ada, grace), (grace, ada)] {
            assert_eq!(second.add(user, friend).await, Ok(Change::Unchanged));
            let expected = [Friendship { friend, level: Level::Exact }];
            assert_eq!(second.visible_to(user).await.unwrap(), expected);
        }
        assert_eq!(second.remove(grace, ada).await, Ok(Change::Done), "from either side");
        for (user, friend) in [(ada, grace), (grace, ada)] {
            assert_eq!(first.remove(user, friend).await, Ok(Change::Unchanged));
            assert_eq!(visible(&first, user).await, []);
        }
    }
}

/// Friendships are between two different people.
pub async fn nobody_is_their_own_friend(harness: &impl Harness<Node = Graph>) {
    let graph = harness.node().await;
    let user = fresh_user();
    assert!(!graph.add(user, user).await.unwrap_err().is_transient());
    assert_eq!(graph.remove(user, user).await, Ok(Change::Unchanged));
    assert_eq!(visible(&graph, user).await, []);
}

/// Sentence 2.
pub async fn both_directions_are_equal_after_a_race(harness: &impl Harness<Node = Graph>) {
    let nodes = [harness.node().await, harness.node().await];
    for round in 0..20 {
        let [ada, grace] = fresh_users();
        let mut racers = JoinSet::new();
        for racer in 0..6 {
            let node = nodes[racer % 2].clone();
            let (user, friend) = if racer % 3 == 0 { (ada, grace) } else { (grace, ada) };
            racers.spawn(async move {
                let change = if racer < 3 { node.add(user, friend) } else { node.remove(user, friend) };
                change.await.unwrap()
            });
        }
        racers.join_all().await;
        let friends = visible(&nodes[0], ada).await == [grace];
        assert_eq!(visible(&nodes[1], grace).await == [ada], friends, "round {round}");
        let expected = if friends { Change::Done } else { Change::Unchanged };
        assert_eq!(nodes[0].remove(ada, grace).await, Ok(expected), "round {round}");
    }
}

/// Sentence 3.
pub async fn visible_to_is_ascending_and_shows_only_the_viewers_friends(harness: &impl Harness<Node = Graph>) {
    let [first, second] = [harness.node().await, harness.node().await];
    let [low, before, viewer, after, high] = fresh_users();
    for friend in [high, low, after] {
        first.add(viewer, friend).await.unwrap();
        assert!(visible(&second, viewer).await.contains(&friend), "every change that returned before is seen");
    }
    first.add(before, low).await.unwrap();
    assert_eq!(visible(&second, viewer).await, [low, after, high]);
    assert_eq!(visible(&second, low).await, [before, viewer]);
    assert_eq!(visible(&second, fresh_user()).await, []);
}

/// Sentence 4.
pub async fn list_pages_through_the_friends_in_order(harness: &impl Harness<Node = Graph>) {
    let graph = harness.node().await;
    let [viewer, last] = [fresh_user(), UserId(u64::MAX)];
    let mut friends = fresh_users::<24>().to_vec();
    friends.push(last);
    add_all(&graph, viewer, &friends).await;
    for page in [1, 7, 24, 25, 26] {
        let mut listed: Vec<UserId> = Vec::new();
        loop {
            let next = graph.list(viewer, listed.last().copied(), page).await.unwrap();
            let full = next.len() == page;
            listed.extend(next);
            if !full {
                break;
            }
        }
        assert_eq!(listed, friends, "pages of {page}");
    }
    assert_eq!(graph.list(viewer, Some(friends[3]), 2).await.unwrap(), friends[4..6]);
    assert_eq!(graph.list(viewer, None, 0).await.unwrap(), []);
    graph.remove(viewer, last).await.unwrap();
}

/// Sentence 5.
pub async fn nobody_gets_more_friends_than_allowed(harness: &impl Harness<Node = Graph>) {
    let graph = harness.node().await;
    let popular = fresh_user();
    let friends: Vec<UserId> = (0..MAX_FRIENDS).map(|_| fresh_user()).collect();
    add_all(&graph, popular, &friends).await;
    let [late, later] = fresh_users();
    assert_eq!(graph.add(popular, late).await, Ok(Change::TooMany(popular)));
    assert_eq!(graph.add(late, popular).await, Ok(Change::TooMany(popular)));
    assert_eq!(visible(&graph, late).await, [], "nothing changed");
    assert_eq!(graph.add(popular, friends[0]).await, Ok(Change::Unchanged), "it was so before");
    assert_eq!(visible(&graph, popular).await.len(), MAX_FRIENDS);
    // Whoever leaves makes room for one.
    graph.remove(popular, friends[0]).await.unwrap();
    graph.forget(friends[1]).await.unwrap();
    assert_eq!(graph.add(popular, late).await, Ok(Change::Done));
    assert_eq!(graph.add(later, popular).await, Ok(Change::Done));
    assert_eq!(graph.add(popular, friends[0]).await, Ok(Change::TooMany(popular)));
    graph.forget(popular).await.unwrap();
    assert_eq!(visible(&graph, friends[2]).await, []);
    assert_eq!(graph.add(popular, late).await, Ok(Change::Done), "a new beginning");
}

/// Sentence 6.
pub async fn forget_removes_all_of_a_user_and_nothing_else(harness: &impl Harness<Node = Graph>) {
    let [first, second] = [harness.node().await, harness.node().await];
    let [ada, gone, grace] = fresh_users();
    for (user, friend) in [(ada, gone), (gone, grace), (ada, grace)] {
        first.add(user, friend).await.unwrap();
    }
    for _ in 0..2 {
        second.forget(gone).await.unwrap();
        assert_eq!(visible(&first, gone).await, []);
        assert_eq!(visible(&first, ada).await, [grace]);
        assert_eq!(visible(&first, grace).await, [ada]);
    }
    second.forget(fresh_user()).await.unwrap();
}
