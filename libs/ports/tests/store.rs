//! The directory that the embedded backends share: who may open it, and what is there when it is opened again.
#![expect(clippy::unwrap_used, reason = "the helpers of tests are tests too")]

use std::path::Path;
use std::sync::Arc;

use model::{Motion, Position, TimestampMs, UserId};
use ports::embedded::{FjallFriendships, FjallHistory, FjallUsers, Store};
use ports::{Friendships, HistoryPoint, LocationHistory, PortError, Users};
use tokio::task::JoinSet;

const ADA: UserId = UserId(1);
const GRACE: UserId = UserId(2);

/// Why a directory cannot be opened; trying again later must not look promising.
fn refusal(directory: &Path) -> String {
    match Store::open(directory) {
        Err(PortError::Refused { reason, .. }) => reason,
        Err(error) => panic!("not refused: {error}"),
        Ok(_) => panic!("opened"),
    }
}

#[test]
fn a_directory_in_use_is_refused_by_name_and_free_when_its_user_is_gone() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    let reason = refusal(directory.path());
    assert!(reason.contains(directory.path().to_str().unwrap()) && reason.contains("in use"), "{reason}");
    drop(store);
    Store::open(directory.path()).unwrap();
}

#[test]
fn a_newer_or_unknown_layout_is_refused_and_left_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    drop(Store::open(directory.path()).unwrap());
    let mark = directory.path().join("layout");
    for (text, expected) in [("2\n", "newer"), ("1000000", "newer"), ("", "unknown"), ("one", "unknown")] {
        std::fs::write(&mark, text).unwrap();
        let reason = refusal(directory.path());
        assert!(reason.contains(expected) && reason.contains(directory.path().to_str().unwrap()), "{reason}");
        assert_eq!(std::fs::read_to_string(&mark).unwrap(), text);
    }
    std::fs::write(&mark, "1\n").unwrap();
    Store::open(directory.path()).unwrap();
}

#[test]
fn what_is_no_directory_is_refused() {
    let file = tempfile::NamedTempFile::new().unwrap();
    refusal(file.path());
}

#[tokio::test]
async fn everything_is_there_when_it_is_opened_again() {
    let directory = tempfile::tempdir().unwrap();
    let points = [3, 1, 2].map(|day| HistoryPoint {
        user: ADA,
        ts: TimestampMs(day * TimestampMs::DAY_MS),
        position: Position::new(40.0, 116.0).unwrap(),
        motion: Motion::UNKNOWN,
    });
    let store = Store::open(directory.path()).unwrap();
    let (history, users) = (FjallHistory::new(store.clone()), FjallUsers::new(store.clone()));
    history.append(&points).await.unwrap();
    history.drop_days_before(2).await.unwrap();
    let resolved = users.resolve("auth0|ada").await.unwrap();
    users.begin_delete(resolved).await.unwrap();
    FjallFriendships::new(store).add(ADA, GRACE).await.unwrap();
    drop((history, users));

    let store = Store::open(directory.path()).unwrap();
    let (history, users) = (FjallHistory::new(store.clone()), FjallUsers::new(store.clone()));
    let kept = history.range(ADA, TimestampMs(0), TimestampMs(u64::MAX), 10).await.unwrap();
    assert_eq!(kept, [points[2], points[0]]);
    assert_eq!(users.resolve("auth0|ada").await, Ok(resolved));
    assert_eq!(users.deleting().await, Ok(vec![resolved]));
    assert_ne!(users.resolve("auth0|grace").await, Ok(resolved));
    assert_eq!(FjallFriendships::new(store).list(GRACE, None, 10).await, Ok(vec![ADA]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn changes_at_the_same_time_all_take_effect_once() {
    let directory = tempfile::tempdir().unwrap();
    let friendships = Arc::new(FjallFriendships::new(Store::open(directory.path()).unwrap()));
    let mut adding = JoinSet::new();
    for friend in 0..500 {
        // Each twice, from either side.
        for (user, friend) in [(ADA, UserId(100 + friend)), (UserId(100 + friend), ADA)] {
            let friendships = friendships.clone();
            adding.spawn(async move { friendships.add(user, friend).await.unwrap().change });
        }
    }
    let changes = adding.join_all().await;
    assert_eq!(changes.iter().filter(|change| **change == ports::friendships::Change::Done).count(), 500);
    assert_eq!(friendships.visible_to(ADA).await.unwrap().len(), 500);
}

/// The journals of a directory, by inode: another file is another number.
fn journals(directory: &Path) -> Vec<(u64, std::path::PathBuf)> {
    let entries = std::fs::read_dir(directory.join("fjall")).unwrap().map(|entry| entry.unwrap().path());
    let journals = entries.filter(|path| path.extension().is_some_and(|extension| extension == "jnl"));
    journals.map(|path| (std::os::unix::fs::MetadataExt::ino(&path.metadata().unwrap()), path)).collect()
}

/// Which of its pages are on disk is not known: the mark is what a failed fsync leaves.
#[tokio::test]
async fn a_journal_whose_fsync_failed_is_written_anew_before_anything_is_appended() {
    let directory = tempfile::tempdir().unwrap();
    let mark = directory.path().join("unsynced");
    for user in 1..=3 {
        let store = Store::open(directory.path()).unwrap();
        let users = FjallUsers::new(store);
        users.put(UserId(user), "somebody").await.unwrap();
        drop(users);
        let before = journals(directory.path());
        std::fs::write(&mark, "").unwrap();
        // A copy that a crash left behind.
        std::fs::write(before[0].1.with_extension("copy"), "half").unwrap();

        let in_use = Store::open(directory.path()).unwrap();
        let after = journals(directory.path());
        assert_eq!(after.len(), 1);
        assert_eq!(after[0].1, before[0].1);
        assert_ne!(after[0].0, before[0].0, "another file");
        assert!(!mark.exists());
        let all: Vec<UserId> = (1..=user).map(UserId).collect();
        let found = FjallUsers::new(in_use.clone()).get_many(&all).await.unwrap();
        assert!(found.iter().all(Option::is_some));

        // Not while somebody writes to it.
        std::fs::write(&mark, "").unwrap();
        refusal(directory.path());
        assert_eq!(journals(directory.path()), after);
        assert!(mark.exists());
        std::fs::remove_file(&mark).unwrap();
    }
}
