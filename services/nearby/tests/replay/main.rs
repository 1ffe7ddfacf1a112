//! The load tester, an independent judge, against the real server: people who wander in and out of each other's
//! radius, fall silent, reconnect and change their friends; every frame is judged, and at the end every view.

#![expect(clippy::unwrap_used, reason = "the helpers of tests are tests too")]

mod people;
mod process;

mod fleet;
mod one_node;

use std::path::Path;

use clap::Parser;
use loadtest::replay::{self, Options};
use loadtest::report::Report;
use tokio::task::LocalSet;

/// Short enough that those whose track ends early are silent past it before the others' ends.
const TTL_S: &str = "4";

#[derive(Parser)]
struct Replay {
    #[command(flatten)]
    options: Options,
}

/// Lets people made from the seed live against the server at `address`, and panics if the judge finds anything.
fn judge(address: &str, secret_dir: &Path, seed: u64, more: &[&str]) -> Report {
    let dir = tempfile::tempdir().unwrap();
    let (tracks, friends) = people::write(dir.path(), seed);
    let (url, secret_dir) = (format!("ws://{address}/v1/ws"), secret_dir.display().to_string());
    let arguments = ["replay", "--tracks", &tracks, "--friends", &friends, "--data-dir", &secret_dir, "--url", &url];
    let arguments = arguments.iter().chain(&["--speedup", "180", "--ttl-s", TTL_S]).chain(more);
    let options = Replay::try_parse_from(arguments).unwrap().options;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let report = LocalSet::new().block_on(&runtime, replay::run(options)).unwrap();
    assert!(report.is_clean(), "seed {seed}\n{report}");
    report
}
