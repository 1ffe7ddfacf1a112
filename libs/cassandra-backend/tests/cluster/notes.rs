//! Notes of changes: what a process that crashed or hangs leaves behind, and what finding it costs.

use std::time::Duration;

use cassandra_backend::FriendshipLimits;
use futures_util::future::join_all;
use model::UserId;
use ports::conformance::{fresh_user, fresh_users};
use ports::friendships::Change;
use ports::{ChangeNote, Clock, Friendships};
use tokio::time::Instant;

use super::keyspace::{Keyspace, sees};

const HOUR: Duration = Duration::from_secs(3_600);

/// The age that the api asks for.
const SETTLED: Duration = Duration::from_secs(120);

/// Buckets of a minute.
const BUCKETS: i64 = 16;

/// A note and the pair's row, as of a process that was killed after it changed the pair and before it derived what both
/// see.
async fn half_done(keyspace: &Keyspace, low: UserId, high: UserId, friends: bool) {
    let now = Clock::System.wall().0;
    let minute = now / 60_000;
    let note = format!(
        "INSERT INTO friendship_changes (minute, bucket, low, high, nonce, since) \
         VALUES ({minute}, 3, {low}, {high}, 1, {minute})"
    );
    keyspace.run(&note).await;
    keyspace.run(&format!("DELETE FROM friendships WHERE low = {low} AND high = {high} IF EXISTS")).await;
    let pair = format!(
        "INSERT INTO friendships (low, high, epoch, friends) VALUES ({low}, {high}, {}, {friends}) IF NOT EXISTS",
        now * 1_000
    );
    keyspace.run(&pair).await;
}

fn pair(note: &ChangeNote) -> (UserId, UserId) {
    (note.user.min(note.friend), note.user.max(note.friend))
}

#[tokio::test]
async fn half_done_friendships_are_finished_and_returned() {
    let keyspace = Keyspace::new().await;
    let graph = keyspace.friendships().await;
    let [added, left, right, removed] = fresh_users();
    half_done(&keyspace, added, left, true).await;
    // One of the two rows was written.
    keyspace
        .run(&format!("INSERT INTO visible_to (viewer, friend, level) VALUES ({added}, {left}, 1) USING TIMESTAMP 1"))
        .await;
    let change = graph.add(right, removed).await.unwrap();
    graph.announced(change.note.as_slice()).await.unwrap();
    half_done(&keyspace, right, removed, false).await;
    assert!(!sees(&graph, left, added).await && sees(&graph, right, removed).await, "half done");

    assert_eq!(graph.unannounced(HOUR).await.unwrap(), [], "may still be under way");
    let mut notes: Vec<_> = graph.unannounced(Duration::ZERO).await.unwrap().iter().map(pair).collect();
    notes.sort();
    assert_eq!(notes, [(added, left), (right, removed)]);
    for (viewer, friend) in [(added, left), (left, added)] {
        assert!(sees(&graph, viewer, friend).await);
    }
    for (viewer, friend) in [(right, removed), (removed, right)] {
        assert!(!sees(&graph, viewer, friend).await);
    }
}

#[tokio::test]
async fn a_repeated_call_finishes_what_another_left_half_done() {
    let keyspace = Keyspace::new().await;
    let graph = keyspace.friendships().await;
    let [ada, grace] = fresh_users();
    half_done(&keyspace, ada, grace, true).await;
    assert_eq!(graph.add(grace, ada).await.unwrap().change, Change::Unchanged);
    assert!(sees(&graph, ada, grace).await && sees(&graph, grace, ada).await);
}

#[tokio::test]
async fn finishing_never_brings_back_a_friendship_of_somebody_who_was_forgotten() {
    let keyspace = Keyspace::new().await;
    let graph = keyspace.friendships().await;
    let [ada, gone] = fresh_users();
    half_done(&keyspace, ada, gone, true).await;
    graph.forget(gone).await.unwrap();
    graph.unannounced(Duration::ZERO).await.unwrap();
    assert!(!sees(&graph, ada, gone).await && !sees(&graph, gone, ada).await);
}

/// A process reads the pair, makes its note, and is stopped. Its note is found, announced and removed. If it could
/// write when it goes on and then crash, nobody would ever announce what it wrote.
#[tokio::test]
async fn a_change_whose_note_was_given_away_can_no_longer_be_written() {
    let keyspace = Keyspace::new().await;
    let graph = keyspace.friendships().await;
    let [ada, grace, carol] = fresh_users();
    let added = graph.add(ada, grace).await.unwrap();
    graph.announced(added.note.as_slice()).await.unwrap();
    let minute = Clock::System.wall().0 / 60_000;
    for high in [grace, carol] {
        let note = format!(
            "INSERT INTO friendship_changes (minute, bucket, low, high, nonce, since) \
             VALUES ({minute}, 3, {ada}, {high}, 1, {minute})"
        );
        keyspace.run(&note).await;
    }
    let epochs = format!("SELECT epoch FROM friendships WHERE low = {ada} AND high = {grace}");
    let epoch = keyspace.rows::<(i64,)>(&epochs).await[0].0;

    assert_eq!(graph.unannounced(Duration::ZERO).await.unwrap().len(), 2);
    let later = epoch + 1;
    let write = |high, friends, known: &str| {
        format!(
            "UPDATE friendships SET epoch = {later}, friends = {friends} \
             WHERE low = {ada} AND high = {high} IF epoch = {known}"
        )
    };
    assert!(!keyspace.applies(&write(grace, false, &epoch.to_string())).await, "an end");
    assert!(!keyspace.applies(&write(carol, true, "null")).await, "a beginning");
    assert!(sees(&graph, ada, grace).await && !sees(&graph, ada, carol).await, "nothing else has changed");
}

/// It may be in a minute that has been swept.
#[tokio::test]
async fn a_change_that_was_noted_too_late_is_not_written() {
    let keyspace = Keyspace::new().await;
    let limits = FriendshipLimits { noted_within: Duration::ZERO, ..FriendshipLimits::default() };
    let graph = keyspace.friendships_with(limits).await;
    let refusal = graph.add(UserId(1), UserId(2)).await.unwrap_err();
    assert!(refusal.is_transient(), "{refusal}");
    assert_eq!(keyspace.rows::<(i64,)>("SELECT epoch FROM friendships").await, []);
}

#[tokio::test]
async fn a_note_that_was_left_behind_is_returned_until_it_is_announced() {
    let keyspace = Keyspace::new().await;
    let crashed = keyspace.friendships_before(HOUR).await;
    let [ada, grace] = fresh_users();
    crashed.add(ada, grace).await.unwrap();

    let graph = keyspace.friendships().await;
    assert_eq!(graph.unannounced(2 * HOUR).await.unwrap(), [], "none is as old");
    let mut last = Vec::new();
    for round in 0..3 {
        last = graph.unannounced(SETTLED).await.unwrap();
        assert_eq!(last.iter().map(pair).collect::<Vec<_>>(), [(ada, grace)], "round {round}");
    }
    let kept = keyspace.rows::<(i32,)>("SELECT TTL(since) FROM friendship_changes").await;
    assert_eq!(kept.len(), 1, "none of its copies is left");
    assert!(kept[0].0 > 47 * 3_600, "it lasts as long as anybody looks for it");
    let before = keyspace.partitions_read("friendship_changes").await;
    assert_eq!(graph.unannounced(HOUR - SETTLED).await.unwrap(), last, "its age is that of the change");
    let read = keyspace.partitions_read("friendship_changes").await - before;
    assert!(read <= 7 * BUCKETS, "{read} partitions, although one note has been left for an hour");
    graph.announced(&last).await.unwrap();
    assert_eq!(graph.unannounced(SETTLED).await.unwrap(), []);
}

#[tokio::test]
async fn many_that_were_left_behind_are_returned_some_at_a_time_and_none_is_lost() {
    let keyspace = Keyspace::new().await;
    let mut left = Vec::new();
    for minutes in [50, 40, 30] {
        let crashed = keyspace.friendships_before(Duration::from_secs(minutes * 60)).await;
        for _ in 0..3 {
            let [ada, grace] = fresh_users();
            crashed.add(ada, grace).await.unwrap();
            left.push((ada, grace));
        }
    }
    let graph = keyspace.friendships_with(FriendshipLimits { swept_at_once: 4, ..FriendshipLimits::default() }).await;
    let mut returned = Vec::new();
    for expected in [6, 3, 0] {
        let notes = graph.unannounced(SETTLED).await.unwrap();
        assert_eq!(notes.len(), expected, "of two minutes, of one, of none");
        returned.extend(notes.iter().map(pair));
        graph.announced(&notes).await.unwrap();
    }
    left.sort();
    returned.sort();
    assert_eq!(returned, left);
}

#[tokio::test]
async fn one_process_sweeps_until_it_asks_no_more() {
    let keyspace = Keyspace::new().await;
    keyspace.friendships_before(HOUR).await.add(UserId(1), UserId(2)).await.unwrap();
    let [first, second] = [keyspace.friendships().await, keyspace.friendships().await];
    assert_eq!(first.unannounced(SETTLED).await.unwrap().len(), 1);
    let before = keyspace.partitions_read("friendship_changes").await;
    assert_eq!(second.unannounced(SETTLED).await.unwrap(), []);
    assert_eq!(keyspace.partitions_read("friendship_changes").await, before, "the other one reads");
    assert_eq!(first.unannounced(SETTLED).await.unwrap().len(), 1, "it goes on");
    assert_eq!(second.unannounced(Duration::ZERO).await.unwrap().len(), 1, "whoever asks for all is given all");
    let left = keyspace.rows::<(i32,)>("SELECT TTL(holder) FROM friendship_sweeps").await[0].0;
    assert!((1..=120).contains(&left), "{left} s after its last question another may");
    keyspace.run("UPDATE friendship_sweeps SET holder = null WHERE part = 0 IF EXISTS").await;
    assert_eq!(second.unannounced(SETTLED).await.unwrap().len(), 1);
    assert_eq!(first.unannounced(SETTLED).await.unwrap(), []);
}

/// The bound is of partitions and not of time: the same on every machine.
#[tokio::test]
async fn forgetting_and_sweeping_read_the_minutes_since_the_last_sweep_and_not_a_day() {
    let keyspace = Keyspace::new().await;
    let graph = keyspace.friendships().await;
    let hub = fresh_user();
    let start = Instant::now();
    for _ in 0..16 {
        let adds = join_all((0..63).map(|_| graph.add(hub, fresh_user()))).await;
        let notes: Vec<ChangeNote> = adds.into_iter().filter_map(|added| added.unwrap().note).collect();
        assert_eq!(notes.len(), 63);
        graph.announced(&notes).await.unwrap();
    }
    println!("1,008 adds, 63 at a time: {:?}", start.elapsed());
    let [user, friend] = fresh_users();
    graph.add(user, friend).await.unwrap();
    for call in ["forget", "unannounced"] {
        let before = keyspace.partitions_read("friendship_changes").await;
        let start = Instant::now();
        if call == "forget" {
            assert_eq!(graph.forget(user).await.unwrap().len(), 1);
        } else {
            graph.unannounced(SETTLED).await.unwrap();
        }
        let took = start.elapsed();
        let read = keyspace.partitions_read("friendship_changes").await - before;
        println!("{call}: {read} partitions of notes, {took:?}");
        // Two minutes that are not settled, this one, two that clocks may be ahead, and the ones that pass meanwhile.
        assert!(read <= 8 * BUCKETS, "{call} reads {read} partitions");
    }
}

/// Six calls at a time change a few pairs while two processes look for notes and announce what they are given.
#[tokio::test]
async fn changes_that_race_with_their_own_announcement_leave_rows_that_agree_and_no_note() {
    let keyspace = Keyspace::new().await;
    let [first, second] = [keyspace.friendships().await, keyspace.friendships().await];
    let users: [UserId; 4] = fresh_users();
    let pairs: Vec<(UserId, UserId)> = users
        .iter()
        .flat_map(|low| users.iter().map(move |high| (*low, *high)))
        .filter(|(low, high)| low < high)
        .collect();
    for round in 0..20 {
        let changes = join_all(pairs.iter().enumerate().map(async |(number, (user, friend))| {
            let graph = if number % 2 == 0 { &first } else { &second };
            let changes = join_all([
                graph.add(*user, *friend),
                graph.remove(*friend, *user),
                if round % 2 == 0 { graph.add(*friend, *user) } else { graph.remove(*user, *friend) },
            ]);
            let notes: Vec<ChangeNote> =
                changes.await.into_iter().filter_map(|changed| changed.unwrap().note).collect();
            graph.announced(&notes).await.unwrap();
        }));
        let announcing = join_all([&first, &second].map(async |graph| {
            for _ in 0..3 {
                let notes = graph.unannounced(Duration::ZERO).await.unwrap();
                graph.announced(&notes).await.unwrap();
            }
        }));
        tokio::join!(changes, announcing);
        assert_eq!(first.unannounced(Duration::ZERO).await.unwrap(), [], "round {round}");
        for (low, high) in &pairs {
            let truth = format!("SELECT friends FROM friendships WHERE low = {low} AND high = {high}");
            let friends = keyspace.rows::<(bool,)>(&truth).await == [(true,)];
            for (viewer, friend) in [(*low, *high), (*high, *low)] {
                assert_eq!(sees(&second, viewer, friend).await, friends, "round {round}");
            }
        }
    }
}
