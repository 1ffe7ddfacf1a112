//! What the embedded store acknowledged survives `kill -9`.
//!
//! This program plays both roles. As parent it starts itself as child on one directory, kills it at a random moment,
//! opens the directory and looks for everything that the child said was acknowledged; then again on the same
//! directory. As child it changes history, users and friendships, and prints what was acknowledged.

#![expect(clippy::unwrap_used, reason = "a test panics when something is wrong")]

use std::collections::BTreeSet;
use std::hash::{BuildHasher, RandomState};
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use model::{Motion, Position, TimestampMs, UserId};
use ports::embedded::{FjallFriendships, FjallHistory, FjallUsers, Store};
use ports::{Friendships, HistoryPoint, LocationHistory, Users};
use tokio::runtime::Runtime;

const ROUNDS: u64 = 12;

/// The longest that a child writes.
const LIFE_MS: u64 = 250;

/// Points in one acknowledged batch.
const BATCH: u64 = 16;

/// Batches until history goes to the next day, so that days are made while the child is killed.
const BATCHES_A_DAY: u64 = 4;

/// Where the ids, names and days of a round begin.
const ROUND: u64 = 1_000_000;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.get(1).map(String::as_str) {
        Some("child") => child(Path::new(&arguments[2]), arguments[3].parse().unwrap()),
        Some("--list") => say("kill9: test"),
        _ => parent(),
    }
}

fn say(line: &str) {
    // One write each, so that a line is whole or, as the last one, cut.
    std::io::stdout().write_all(format!("{line}\n").as_bytes()).unwrap();
}

fn parent() {
    let directory = tempfile::tempdir().unwrap();
    let runtime = Runtime::new().unwrap();
    let mut said = BTreeSet::new();
    for round in 0..ROUNDS {
        let before = said.len();
        let life = Duration::from_millis(RandomState::new().hash_one(round) % LIFE_MS);
        said.extend(run_child(directory.path(), round, life));
        runtime.block_on(verify(directory.path(), &said, round));
        say(&format!("round {round}: {} acknowledged in {life:?}, all there", said.len() - before));
    }
    // A busy machine writes little in this time, but something.
    assert!(said.len() as u64 > 5 * ROUNDS, "only {} acknowledged: the test shows nothing", said.len());
}

/// What a child said until it was killed: every third time perhaps while it opened the directory, else while it wrote.
fn run_child(directory: &Path, round: u64, life: Duration) -> Vec<String> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["child".as_ref(), directory.as_os_str(), round.to_string().as_ref()])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = child.stdout.take().unwrap();
    let mut text = String::new();
    if !round.is_multiple_of(3) {
        let mut first = [0];
        output.read_exact(&mut first).unwrap();
        text.push(char::from(first[0]));
    }
    let reader = std::thread::spawn(move || {
        output.read_to_string(&mut text).unwrap();
        text
    });
    std::thread::sleep(life);
    assert_eq!(child.try_wait().unwrap(), None, "the child failed by itself");
    child.kill().unwrap();
    child.wait().unwrap();
    let text = reader.join().unwrap();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole.lines().map(str::to_owned).collect()
}

fn child(directory: &Path, round: u64) {
    let store = Store::open(directory).unwrap();
    let first = round * ROUND;
    Runtime::new().unwrap().block_on(async {
        tokio::join!(
            write_history(FjallHistory::new(store.clone()), first),
            write_users(FjallUsers::new(store.clone()), first),
            write_friendships(FjallFriendships::new(store.clone()), first),
        )
    });
}

async fn write_history(history: FjallHistory, first: u64) {
    for batch in first.. {
        history.append(&points(batch)).await.unwrap();
        say(&format!("history {batch}"));
        if batch == first + 2 {
            // Whatever earlier rounds left.
            say(&format!("dropping {first}"));
            history.drop_days_before(first).await.unwrap();
            say(&format!("dropped {first}"));
        }
    }
}

/// The points of a batch; a batch has a time and a place of its own.
fn points(batch: u64) -> Vec<HistoryPoint> {
    let (round, number) = (batch / ROUND, batch % ROUND);
    let day = round * ROUND + number / BATCHES_A_DAY;
    let position = Position::new((number % 90) as f64, 116.5).unwrap();
    let ts = TimestampMs(day * TimestampMs::DAY_MS + number % BATCHES_A_DAY);
    (0..BATCH).map(|user| HistoryPoint { user: UserId(user), ts, position, motion: Motion::UNKNOWN }).collect()
}

async fn write_users(users: FjallUsers, first: u64) {
    for number in first.. {
        users.put(UserId(number), &format!("name {number}")).await.unwrap();
        say(&format!("user {number}"));
        let id = users.resolve(&subject(number)).await.unwrap();
        say(&format!("subject {number} {}", id.0));
        if number.is_multiple_of(3) {
            users.begin_delete(id).await.unwrap();
            users.finish_delete(id).await.unwrap();
            say(&format!("deleted {number}"));
        }
    }
}

fn subject(number: u64) -> String {
    format!("auth0|{number}")
}

async fn write_friendships(friendships: FjallFriendships, first: u64) {
    for number in first.. {
        let (user, friend) = pair(number);
        friendships.add(user, friend).await.unwrap();
        say(&format!("friends {number}"));
        if number.is_multiple_of(3) {
            say(&format!("parting {number}"));
            friendships.remove(friend, user).await.unwrap();
            say(&format!("parted {number}"));
        }
    }
}

/// Neighbours, so that everybody has two friendships.
fn pair(number: u64) -> (UserId, UserId) {
    (UserId(number), UserId(number + 1))
}

async fn verify(directory: &Path, said: &BTreeSet<String>, round: u64) {
    let store = Store::open(directory).unwrap();
    let history = FjallHistory::new(store.clone());
    let users = FjallUsers::new(store.clone());
    let friendships = FjallFriendships::new(store);
    for line in said {
        let words: Vec<&str> = line.split(' ').collect();
        let number: u64 = words[1].parse().unwrap();
        match words[0] {
            "history" => verify_batch(&history, said, number).await,
            "dropped" => verify_dropped(&history, number).await,
            "user" => {
                let found = users.get_many(&[UserId(number)]).await.unwrap().remove(0);
                assert_eq!(found.map(|user| user.name), Some(format!("name {number}")), "{line}");
            }
            "subject" => {
                let (id, deleted) = (UserId(words[2].parse().unwrap()), said.contains(&format!("deleted {number}")));
                let found = users.get_many(&[id]).await.unwrap().remove(0);
                // Every third was being deleted; the end of that may have taken effect and not been said.
                let gone = deleted || number.is_multiple_of(3) && found.is_none();
                assert_eq!(found.map(|user| user.name), (!gone).then(|| subject(number)), "{line}");
            }
            "friends" => {
                let both = both_directions(&friendships, number).await;
                if said.contains(&format!("parted {number}")) {
                    assert_eq!(both, [false, false], "{line}, and then no longer");
                } else if !said.contains(&format!("parting {number}")) {
                    assert_eq!(both, [true, true], "{line}");
                }
            }
            _ => {}
        }
    }
    // What was under way when the child was killed is there as a whole or not at all.
    for number in (round * ROUND).. {
        let [there, back] = both_directions(&friendships, number).await;
        assert_eq!(there, back, "half a friendship {number}");
        if !there && !number.is_multiple_of(3) {
            break;
        }
    }
}

async fn verify_batch(history: &FjallHistory, said: &BTreeSet<String>, batch: u64) {
    let expected = points(batch);
    let day = expected[0].ts.day();
    let later = (batch / ROUND + 1..ROUNDS).any(|round| said.contains(&format!("dropping {}", round * ROUND)));
    if later {
        return;
    }
    for point in expected {
        let found = history.range(point.user, point.ts, TimestampMs(point.ts.0 + 1), 2).await.unwrap();
        assert_eq!(found, [point], "batch {batch} of day {day}");
    }
}

async fn verify_dropped(history: &FjallHistory, day: u64) {
    let end = TimestampMs(day * TimestampMs::DAY_MS);
    for user in 0..BATCH {
        assert_eq!(history.range(UserId(user), TimestampMs(0), end, 1).await.unwrap(), [], "before day {day}");
    }
}

async fn both_directions(friendships: &FjallFriendships, number: u64) -> [bool; 2] {
    let (user, friend) = pair(number);
    let sees = async |viewer: UserId, whom: UserId| {
        let visible = friendships.visible_to(viewer).await.unwrap();
        visible.iter().any(|friendship| friendship.friend == whom)
    };
    [sees(user, friend).await, sees(friend, user).await]
}
