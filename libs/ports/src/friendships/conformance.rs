//! The contract of [`Friendships`], as tests. What "durable" means is for each backend's own crash tests.

#![expect(clippy::unwrap_used, reason = "a suite panics when a sentence does not hold")]

use std::sync::Arc;
use std::time::Duration;

use model::{Level, UserId};
use tokio::task::JoinSet;

use super::{Change, ChangeNote, Friendship, Friendships, MAX_FRIENDS};
use crate::PortError;
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
            levels_are_what_each_viewer_may_see,
            a_write_is_noted_until_it_is_announced,
            what_wrote_nothing_leaves_no_note,
            forget_notes_every_record_that_it_wrote,
        }
    };
}

type Graph = Arc<dyn Friendships>;

/// Adds, announces what was written, and says what became of it.
async fn add(graph: &Graph, user: UserId, friend: UserId) -> Result<Change, PortError> {
    let changed = graph.add(user, friend).await?;
    graph.announced(changed.note.as_slice()).await?;
    Ok(changed.change)
}

async fn remove(graph: &Graph, user: UserId, friend: UserId) -> Result<Change, PortError> {
    let changed = graph.remove(user, friend).await?;
    graph.announced(changed.note.as_slice()).await?;
    Ok(changed.change)
}

async fn forget(graph: &Graph, user: UserId) {
    let notes = graph.forget(user).await.unwrap();
    graph.announced(&notes).await.unwrap();
}

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
            adding.spawn(async move { add(&graph, user, friend).await });
        }
        assert!(adding.join_all().await.iter().all(|change| *change == Ok(Change::Done)));
    }
}

/// Sentence 1.
pub async fn add_makes_two_people_friends_and_remove_ends_it(harness: &impl Harness<Node = Graph>) {
    let [first, second] = [harness.node().await, harness.node().await];
    let [ada, grace] = fresh_users();
    for _ in 0..2 {
        assert_eq!(add(&first, ada, grace).await, Ok(Change::Done));
        for (user, friend) in [(ada, grace), (grace, ada)] {
            assert_eq!(add(&second, user, friend).await, Ok(Change::Unchanged));
            let expected = [Friendship { friend, level: Level::Exact }];
            assert_eq!(second.visible_to(user).await.unwrap(), expected);
        }
        assert_eq!(remove(&second, grace, ada).await, Ok(Change::Done), "from either side");
        for (user, friend) in [(ada, grace), (grace, ada)] {
            assert_eq!(remove(&first, user, friend).await, Ok(Change::Unchanged));
            assert_eq!(visible(&first, user).await, []);
        }
    }
}

/// Friendships are between two different people.
pub async fn nobody_is_their_own_friend(harness: &impl Harness<Node = Graph>) {
    let graph = harness.node().await;
    let user = fresh_user();
    assert!(!add(&graph, user, user).await.unwrap_err().is_transient());
    assert_eq!(remove(&graph, user, user).await, Ok(Change::Unchanged));
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
                if racer < 3 { add(&node, user, friend).await } else { remove(&node, user, friend).await }
            });
        }
        assert!(racers.join_all().await.iter().all(Result::is_ok));
        let friends = visible(&nodes[0], ada).await == [grace];
        assert_eq!(visible(&nodes[1], grace).await == [ada], friends, "round {round}");
        let expected = if friends { Change::Done } else { Change::Unchanged };
        assert_eq!(remove(&nodes[0], ada, grace).await, Ok(expected), "round {round}");
    }
}

/// Sentence 3.
pub async fn visible_to_is_ascending_and_shows_only_the_viewers_friends(harness: &impl Harness<Node = Graph>) {
    let [first, second] = [harness.node().await, harness.node().await];
    let [low, before, viewer, after, high] = fresh_users();
    for friend in [high, low, after] {
        add(&first, viewer, friend).await.unwrap();
        assert!(visible(&second, viewer).await.contains(&friend), "every change that returned before is seen");
    }
    add(&first, before, low).await.unwrap();
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
    remove(&graph, viewer, last).await.unwrap();
}

/// Sentence 5.
pub async fn nobody_gets_more_friends_than_allowed(harness: &impl Harness<Node = Graph>) {
    let graph = harness.node().await;
    let popular = fresh_user();
    let friends: Vec<UserId> = (0..MAX_FRIENDS).map(|_| fresh_user()).collect();
    add_all(&graph, popular, &friends).await;
    let [late, later] = fresh_users();
    assert_eq!(add(&graph, popular, late).await, Ok(Change::TooMany(popular)));
    assert_eq!(add(&graph, late, popular).await, Ok(Change::TooMany(popular)));
    assert_eq!(visible(&graph, late).await, [], "nothing changed");
    assert_eq!(add(&graph, popular, friends[0]).await, Ok(Change::Unchanged), "it was so before");
    assert_eq!(visible(&graph, popular).await.len(), MAX_FRIENDS);
    // Whoever leaves makes room for one.
    remove(&graph, popular, friends[0]).await.unwrap();
    forget(&graph, friends[1]).await;
    assert_eq!(add(&graph, popular, late).await, Ok(Change::Done));
    assert_eq!(add(&graph, later, popular).await, Ok(Change::Done));
    assert_eq!(add(&graph, popular, friends[0]).await, Ok(Change::TooMany(popular)));
    forget(&graph, popular).await;
    assert_eq!(visible(&graph, friends[2]).await, []);
    assert_eq!(add(&graph, popular, late).await, Ok(Change::Done), "a new beginning");
}

/// Sentence 6.
pub async fn forget_removes_all_of_a_user_and_nothing_else(harness: &impl Harness<Node = Graph>) {
    let [first, second] = [harness.node().await, harness.node().await];
    let [ada, gone, grace] = fresh_users();
    for (user, friend) in [(ada, gone), (gone, grace), (ada, grace)] {
        add(&first, user, friend).await.unwrap();
    }
    for _ in 0..2 {
        forget(&second, gone).await;
        assert_eq!(visible(&first, gone).await, []);
        assert_eq!(visible(&first, ada).await, [grace]);
        assert_eq!(visible(&first, grace).await, [ada]);
    }
    forget(&second, fresh_user()).await;
}

/// Sentence 7.
pub async fn levels_are_what_each_viewer_may_see(harness: &impl Harness<Node = Graph>) {
    let [first, second] = [harness.node().await, harness.node().await];
    let [ada, grace, carol] = fresh_users();
    let pairs = [(ada, grace), (grace, ada), (ada, carol), (carol, grace), (ada, grace)];
    for _ in 0..3 {
        add(&first, ada, grace).await.unwrap();
        let exact = Some(Level::Exact);
        assert_eq!(second.levels(&pairs).await.unwrap(), [exact, exact, None, None, exact]);
        remove(&second, ada, grace).await.unwrap();
        assert_eq!(first.levels(&pairs).await.unwrap(), [None; 5]);
    }
    assert_eq!(first.levels(&[]).await.unwrap(), []);
}

async fn notes_of(graph: &Graph, user: UserId) -> Vec<ChangeNote> {
    let notes = graph.unannounced(Duration::ZERO).await.unwrap();
    notes.into_iter().filter(|note| note.user == user || note.friend == user).collect()
}

/// Sentences 8 and 9.
pub async fn a_write_is_noted_until_it_is_announced(harness: &impl Harness<Node = Graph>) {
    let [first, second] = [harness.node().await, harness.node().await];
    let [ada, grace] = fresh_users();
    let added = first.add(ada, grace).await.unwrap().note.expect("a write has a note");
    let removed = second.remove(grace, ada).await.unwrap().note.expect("a write has a note");
    let both = |note: &ChangeNote| note.user.min(note.friend) == ada && note.user.max(note.friend) == grace;
    assert!(both(&added) && both(&removed) && added != removed);
    for _ in 0..2 {
        let mut notes = notes_of(&second, ada).await;
        notes.sort();
        let mut expected = [added, removed];
        expected.sort();
        assert_eq!(notes, expected, "asking takes nothing away");
    }
    assert_eq!(first.unannounced(Duration::from_secs(3_600)).await.unwrap(), [], "none is an hour old");
    for _ in 0..2 {
        second.announced(&[added]).await.unwrap();
        assert_eq!(notes_of(&first, ada).await, [removed]);
    }
    first.announced(&[removed, added]).await.unwrap();
    assert_eq!(notes_of(&second, ada).await, []);
}

/// Sentence 8.
pub async fn what_wrote_nothing_leaves_no_note(harness: &impl Harness<Node = Graph>) {
    let graph = harness.node().await;
    let [ada, grace] = fresh_users();
    assert_eq!(graph.remove(ada, grace).await.unwrap().note, None);
    add(&graph, ada, grace).await.unwrap();
    assert_eq!(graph.add(grace, ada).await.unwrap().note, None);
    assert_eq!(notes_of(&graph, ada).await, []);
}

/// Sentences 6 and 8.
pub async fn forget_notes_every_record_that_it_wrote(harness: &impl Harness<Node = Graph>) {
    let graph = harness.node().await;
    let [gone, ada, grace] = fresh_users();
    add(&graph, gone, ada).await.unwrap();
    add(&graph, grace, gone).await.unwrap();
    let notes = graph.forget(gone).await.unwrap();
    let mut friends: Vec<UserId> =
        notes.iter().map(|note| if note.user == gone { note.friend } else { note.user }).collect();
    friends.sort();
    assert_eq!(friends, [ada, grace]);
    assert_eq!(notes_of(&graph, gone).await.len(), 2);
    graph.announced(&notes).await.unwrap();
    assert_eq!(notes_of(&graph, gone).await, []);
    assert_eq!(graph.forget(gone).await.unwrap(), []);
}
