//! The whole load test against a server that is right, and against servers that are wrong in one way each.

#![expect(clippy::unwrap_used, reason = "the helpers of tests are tests too")]

mod fake;

use std::fmt::Write as _;
use std::path::Path;

use clap::Parser;
use fake::{Lie, SECRET};
use loadtest::faults::Fault;
use loadtest::idle::{self, Findings};
use loadtest::replay::{self, Options};
use loadtest::report::Report;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::runtime::Builder;
use tokio::task::{JoinSet, LocalSet};

const PEOPLE: usize = 16;
const POINTS: usize = 60;

#[derive(Parser)]
struct Replay {
    #[command(flatten)]
    options: Options,
}

#[derive(Parser)]
struct Idle {
    #[command(flatten)]
    options: idle::Options,
}

/// People who wander about 20 km of a line, crossing each other's radius.
fn tracks(seed: u64) -> String {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut text = String::from("track,offset_s,lat,lon\n");
    for person in 0..PEOPLE {
        let (mut lat, points) = (40.0 + rng.random_range(0.0..0.2), rng.random_range(POINTS / 2..POINTS));
        for point in 0..points {
            lat += rng.random_range(-0.02..0.02);
            writeln!(text, "{person},{},{lat:.5},116.3", point * 30).unwrap();
        }
    }
    text
}

/// Two of three pairs.
fn friends() -> String {
    let pairs = (0..PEOPLE).flat_map(|person| (person + 1..PEOPLE).map(move |friend| (person, friend)));
    pairs.filter(|(person, friend)| (person + friend) % 3 != 0).fold(String::new(), |mut text, (person, friend)| {
        writeln!(text, "{person} {friend}").unwrap();
        text
    })
}

/// Everything on one thread, as the program has it; the fake server is one more task.
fn replay(lie: Lie, speedup: &str, more: &[&str]) -> Report {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    write("tracks.csv", &tracks(7));
    write("friends.txt", &friends());
    write("signing-secret", SECRET);
    let path = |name: &str| dir.path().join(name).display().to_string();
    run(async {
        let mut tasks = JoinSet::new();
        let url = fake::serve(lie, &mut tasks).await;
        let (tracks, friends, secret) = (path("tracks.csv"), path("friends.txt"), path(""));
        let arguments = [
            "replay",
            "--tracks",
            &tracks,
            "--friends",
            &friends,
            "--data-dir",
            &secret,
            "--url",
            &url,
            "--speedup",
            speedup,
        ];
        let arguments = arguments.iter().chain(more);
        replay::run(Replay::try_parse_from(arguments).unwrap().options).await.unwrap()
    })
}

fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, test)
}

#[track_caller]
fn finds(report: &Report, fault: Fault) {
    assert!(report.faults.iter().any(|found| found.fault == fault), "no {fault:?} in:\n{report}");
    assert!(!report.is_clean());
}

#[test]
fn a_right_server_is_clean() {
    let report = replay(Lie::None, "600", &[]);
    assert!(report.is_clean(), "{report}");
    assert!(report.updates > 400 && report.frames.friend > 1_000 && report.frames.gone > 10, "{report}");
    assert!(report.frames.nearby > PEOPLE as u64 && report.age_ms.count > 1_000, "{report}");
    assert_eq!((report.reconnects, report.friendship_changes, report.duplicates), (0, 0, 0), "{report}");
}

#[test]
fn a_right_server_is_clean_while_friendships_and_connections_come_and_go() {
    let report = replay(Lie::None, "300", &["--churn", "--churn-per-s", "60", "--seed", "3"]);
    assert!(report.is_clean(), "{report}");
    assert!(report.reconnects > 10 && report.friendship_changes > 50 && report.removal_ms.count > 20, "{report}");
}

#[test]
fn wrong_distances_are_found() {
    finds(&replay(Lie::Distance, "600", &[]), Fault::Distance);
}

#[test]
fn strangers_are_found() {
    finds(&replay(Lie::NoPrivacy, "600", &[]), Fault::Stranger);
}

#[test]
fn positions_after_the_end_of_a_friendship_are_found() {
    let report = replay(Lie::StaysFriends, "300", &["--churn", "--churn-per-s", "60"]);
    finds(&report, Fault::AfterRemoval);
    finds(&report, Fault::ShownRemoved);
}

#[test]
fn people_who_are_never_gone_are_found() {
    let report = replay(Lie::NoGone, "600", &[]);
    assert!(report.missing > 0, "{report}");
    assert_eq!(report.frames.gone, 0);
}

#[test]
fn a_view_that_does_not_follow_its_viewer_is_found() {
    assert!(!replay(Lie::OnlyFriendsMove, "600", &[]).is_clean());
}

#[test]
fn positions_not_heard_are_found() {
    let report = replay(Lie::HardOfHearing, "600", &[]);
    finds(&report, Fault::Stale);
    assert!(report.missing > 0, "{report}");
}

#[test]
fn dropped_updates_are_found_and_the_way_out_is_told() {
    let report = replay(Lie::RateLimit, "600", &["--duration", "300"]);
    finds(&report, Fault::ErrorFrame);
    assert!(report.to_string().contains("raise `limits.updates_per_second`"), "{report}");
}

#[test]
fn without_a_server_the_way_to_start_one_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        std::fs::write(dir.path().join(name), text).unwrap();
        dir.path().join(name).display().to_string()
    };
    let (tracks, friends, secret) = (write("t", "0,0,40,116\n"), write("f", ""), write("s", SECRET));
    let arguments =
        ["replay", "--tracks", &tracks, "--friends", &friends, "--secret-file", &secret, "--url", "ws://127.0.0.1:9"];
    let error = run(replay::run(Replay::try_parse_from(arguments).unwrap().options)).unwrap_err();
    assert!(format!("{error:#}").contains("start it with `nearby serve`"), "{error:#}");
}

#[test]
fn idle_connections_are_counted_and_see_their_neighbours() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("signing-secret"), SECRET).unwrap();
    let findings = run(async { idle_in(dir.path()).await });
    // A ring has one place where its ends, far apart, are friends.
    assert_eq!((findings.connections, findings.friendships, findings.lost), (20, 60, 0));
    assert!(findings.shown > 0, "{findings}");
    let roles: Vec<&str> = findings.servers.iter().map(|server| server.role.as_str()).collect();
    assert_eq!(roles, ["server", "both"], "{findings}");
    assert!(findings.servers[1].rss_after_bytes > findings.servers[0].rss_after_bytes * 3 / 2, "{findings}");
}

async fn idle_in(dir: &Path) -> Findings {
    let mut tasks = JoinSet::new();
    let url = fake::serve(Lie::None, &mut tasks).await;
    let (dir, pid) = (dir.display().to_string(), std::process::id().to_string());
    let arguments = ["idle", "--connections", "20", "--friends", "6", "--window", "1", "--settle", "0", "--url", &url];
    let both = format!("both={pid},{pid}");
    let arguments = arguments.into_iter().chain(["--data-dir", &dir, "--server-pid", &pid, "--server-pid", &both]);
    idle::run(Idle::try_parse_from(arguments).unwrap().options).await.unwrap()
}
