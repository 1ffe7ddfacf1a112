//! One process on the embedded backends.

use loadtest::report::Report;

use crate::judge;
use crate::process::Nearby;

fn one_node(seed: u64, more: &[&str]) -> Report {
    let dir = tempfile::tempdir().unwrap();
    let data_dir = dir.path().display().to_string();
    let server = Nearby::serve(&["--data-dir", &data_dir]);
    judge(&server.address, dir.path(), seed, more)
}

#[test]
fn the_judge_finds_nothing_wrong_missing_or_extra() {
    let report = one_node(1, &[]);
    assert!(report.updates > 2_000 && report.frames.friend > 5_000 && report.frames.gone > 100, "{report}");
}

#[test]
fn nor_while_friendships_and_connections_come_and_go() {
    let report = one_node(2, &["--churn", "--churn-per-s", "30", "--seed", "2"]);
    assert!(report.reconnects > 10 && report.friendship_changes > 50, "{report}");
}
