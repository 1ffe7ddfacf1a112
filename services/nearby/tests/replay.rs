//! The load tester, an independent judge, against the real server: people who wander in and out of each other's
//! radius, fall silent, reconnect and change their friends; every frame is judged, and at the end every view.

#![expect(clippy::unwrap_used, reason = "the helpers of tests are tests too")]

use std::fmt::Write as _;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use clap::Parser;
use loadtest::replay::{self, Options};
use loadtest::report::Report;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::task::LocalSet;

const PEOPLE: usize = 60;
const POINTS: usize = 60;
/// Short enough that those whose track ends early are silent past it before the others' ends.
const TTL_S: &str = "4";

#[derive(Parser)]
struct Replay {
    #[command(flatten)]
    options: Options,
}

struct Server {
    process: Child,
    address: String,
}

impl Server {
    fn start(data_dir: &Path) -> Server {
        let mut process = Command::new(env!("CARGO_BIN_EXE_nearby"))
            .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
            .arg(data_dir)
            .env("NEARBY_LOCATION__TTL_S", TTL_S)
            .env("NEARBY_LIMITS__UPDATES_PER_SECOND", "100")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.split("http://").nth(1).and_then(|rest| rest.split(' ').next()).expect("an address");
        Server { address: address.to_owned(), process }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// People on a line of about 20 km who walk up and down; every third stops early.
fn tracks(rng: &mut StdRng) -> String {
    let mut text = String::from("track,offset_s,lat,lon\n");
    for person in 0..PEOPLE {
        let mut lat = 40.0 + rng.random_range(0.0..0.2);
        let points = if person % 3 == 0 { POINTS / 3 } else { POINTS };
        for point in 0..points {
            lat += rng.random_range(-0.02..0.02);
            writeln!(text, "{person},{},{lat:.5},116.3", point * 30).unwrap();
        }
    }
    text
}

fn friends(rng: &mut StdRng) -> String {
    let pairs = (0..PEOPLE).flat_map(|person| (person + 1..PEOPLE).map(move |friend| (person, friend)));
    let pairs = pairs.filter(|_| rng.random_bool(0.4)).collect::<Vec<_>>();
    pairs.iter().fold(String::new(), |mut text, (person, friend)| {
        writeln!(text, "{person} {friend}").unwrap();
        text
    })
}

fn judge(seed: u64, more: &[&str]) -> Report {
    let dir = tempfile::tempdir().unwrap();
    let data_dir = dir.path().join("data");
    let server = Server::start(&data_dir);
    let mut rng = StdRng::seed_from_u64(seed);
    let write = |name: &str, text: String| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let (tracks, friends) = (write("tracks.csv", tracks(&mut rng)), write("friends.txt", friends(&mut rng)));
    let (url, data_dir) = (format!("ws://{}/v1/ws", server.address), data_dir.display().to_string());
    let arguments = ["replay", "--tracks", &tracks, "--friends", &friends, "--data-dir", &data_dir, "--url", &url];
    let arguments = arguments.iter().chain(&["--speedup", "180", "--ttl-s", TTL_S]).chain(more);
    let options = Replay::try_parse_from(arguments).unwrap().options;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let report = LocalSet::new().block_on(&runtime, replay::run(options)).unwrap();
    assert!(report.is_clean(), "seed {seed}\n{report}");
    report
}

#[test]
fn the_judge_finds_nothing_wrong_missing_or_extra() {
    let report = judge(1, &[]);
    assert!(report.updates > 2_000 && report.frames.friend > 5_000 && report.frames.gone > 100, "{report}");
}

#[test]
fn nor_while_friendships_and_connections_come_and_go() {
    let report = judge(2, &["--churn", "--churn-per-s", "30", "--seed", "2"]);
    assert!(report.reconnects > 10 && report.friendship_changes > 50, "{report}");
}
