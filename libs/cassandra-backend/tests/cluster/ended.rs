//! Ended friendships stay as ended: what is deleted, or expires, comes back from a replica that missed it.

use cassandra_backend::FriendshipLimits;
use model::UserId;
use ports::conformance::{fresh_user, fresh_users};
use ports::friendships::Change;
use ports::{Clock, Friendships};

use super::keyspace::{Keyspace, sees};

/// Level and time to live of the derived rows of a viewer.
async fn derived(keyspace: &Keyspace, viewer: UserId) -> Vec<(i8, Option<i32>)> {
    keyspace.rows(&format!("SELECT level, TTL(level) FROM visible_to WHERE viewer = {viewer}")).await
}

/// `friends` of all pairs, and its time to live.
async fn pairs(keyspace: &Keyspace) -> Vec<(bool, Option<i32>)> {
    keyspace.rows("SELECT friends, TTL(friends) FROM friendships").await
}

#[tokio::test]
async fn an_ended_friendship_stays_as_ended_and_never_expires() {
    let keyspace = Keyspace::new().await;
    let graph = keyspace.friendships().await;
    let [ada, grace] = fresh_users();
    for _ in 0..2 {
        graph.add(ada, grace).await.unwrap();
        assert!(sees(&graph, ada, grace).await);
        graph.remove(grace, ada).await.unwrap();
        for viewer in [ada, grace] {
            assert_eq!(derived(&keyspace, viewer).await, [(0, None)]);
            assert_eq!(graph.visible_to(viewer).await.unwrap(), []);
            assert_eq!(graph.list(viewer, None, 10).await.unwrap(), []);
        }
        assert_eq!(pairs(&keyspace).await, [(false, None)]);
    }
}

#[tokio::test]
async fn pages_and_levels_leave_out_who_is_no_friend_any_more() {
    let keyspace = Keyspace::new().await;
    let graph = keyspace.friendships().await;
    let [viewer] = fresh_users();
    let friends: [UserId; 9] = fresh_users();
    for friend in friends {
        graph.add(viewer, friend).await.unwrap();
    }
    for friend in [friends[0], friends[3], friends[4], friends[8]] {
        graph.remove(viewer, friend).await.unwrap();
    }
    let left = [1, 2, 5, 6, 7].map(|index| friends[index]);
    assert_eq!(graph.list(viewer, None, 2).await.unwrap(), left[..2]);
    assert_eq!(graph.list(viewer, Some(friends[2]), 2).await.unwrap(), left[2..4], "fewer only when there are no more");
    assert_eq!(graph.list(viewer, Some(friends[4]), 5).await.unwrap(), left[2..]);
    let levels = graph.levels(&friends.map(|friend| (viewer, friend))).await.unwrap();
    for (friend, level) in friends.iter().zip(levels) {
        assert_eq!(level.is_some(), left.contains(friend));
    }
}

#[tokio::test]
async fn nothing_of_somebody_who_was_forgotten_is_left() {
    let keyspace = Keyspace::new().await;
    let graph = keyspace.friendships().await;
    let [ada, gone, grace] = fresh_users();
    for (user, friend) in [(ada, gone), (gone, grace), (ada, grace)] {
        graph.add(user, friend).await.unwrap();
    }
    graph.remove(gone, grace).await.unwrap();
    assert_eq!(graph.forget(gone).await.unwrap().len(), 1, "the other one had ended before");
    assert_eq!(pairs(&keyspace).await, [(true, None)], "ada and grace");
    for (viewer, rows) in [(gone, 0), (ada, 1), (grace, 1)] {
        assert_eq!(derived(&keyspace, viewer).await.len(), rows);
    }
    // A new beginning is above what deleted the rows.
    assert_eq!(graph.add(gone, ada).await.unwrap().change, Change::Done);
    assert!(sees(&graph, ada, gone).await && sees(&graph, gone, ada).await);
}

/// A process was killed after it deleted the pair's row and before the derived rows.
#[tokio::test]
async fn a_repeated_forget_deletes_what_the_first_one_left() {
    let keyspace = Keyspace::new().await;
    let graph = keyspace.friendships().await;
    let [gone, ada] = fresh_users();
    graph.add(gone, ada).await.unwrap();
    graph.remove(gone, ada).await.unwrap();
    keyspace.run(&format!("DELETE FROM friendships WHERE low = {gone} AND high = {ada} IF EXISTS")).await;
    graph.forget(gone).await.unwrap();
    assert_eq!((derived(&keyspace, gone).await.len(), derived(&keyspace, ada).await.len()), (0, 0));
}

/// A friendship that ended so many hours ago.
async fn ended_before(keyspace: &Keyspace, one: UserId, other: UserId, hours: u64) {
    let at = (Clock::System.wall().0 - hours * 3_600_000) * 1_000;
    for (viewer, friend) in [(one, other), (other, one)] {
        let row = format!("INSERT INTO visible_to (viewer, friend, level) VALUES ({viewer}, {friend}, 0)");
        keyspace.run(&format!("{row} USING TIMESTAMP {at}")).await;
    }
    let row = format!("INSERT INTO friendships (low, high, epoch, friends) VALUES ({one}, {other}, {at}, false)");
    keyspace.run(&format!("{row} IF NOT EXISTS")).await;
}

#[tokio::test]
async fn who_makes_and_ends_many_friendships_has_a_bounded_number_of_rows() {
    let keyspace = Keyspace::new().await;
    let limits = FriendshipLimits { ended_kept: 4, ..FriendshipLimits::default() };
    let graph = keyspace.friendships_with(limits).await;
    let [viewer, friend, recent, last] = fresh_users();
    graph.add(viewer, friend).await.unwrap();
    for hours in 2..14 {
        ended_before(&keyspace, viewer, fresh_user(), hours).await;
    }
    graph.add(viewer, recent).await.unwrap();
    graph.remove(viewer, recent).await.unwrap();
    graph.add(viewer, last).await.unwrap();
    assert!(sees(&graph, viewer, friend).await && sees(&graph, viewer, last).await, "friends stay");
    assert_eq!(derived(&keyspace, recent).await, [(0, None)], "what has just ended stays as ended");
    let rows = derived(&keyspace, viewer).await.len();
    assert!(rows <= 2 + 1 + limits.ended_kept, "{rows} rows");
    assert_eq!(pairs(&keyspace).await.len(), rows, "of the pairs too");
}
