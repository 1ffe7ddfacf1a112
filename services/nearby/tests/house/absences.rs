//! What is nowhere, or in one place only.

use std::fs;

use toml::Table;

use crate::tree::{File, files, none, root, workspace};

fn lines_naming(files: &[File], which: impl Fn(&File) -> bool, words: &[&str]) -> Vec<String> {
    files.iter().filter(|file| which(file)).flat_map(|file| file.naming(words).collect::<Vec<_>>()).collect()
}

#[test]
fn model_and_protocol_are_pure() {
    let banned = [
        "tokio",
        "tracing",
        "async ",
        "await",
        "Instant",
        "SystemTime",
        "std::fs",
        "std::io",
        "std::net",
        "std::env",
        "std::thread",
        "std::process",
        "println!",
    ];
    let pure = |file: &File| file.is_of("libs/model") || file.is_of("libs/protocol");
    none(lines_naming(&files(), pure, &banned), "model and protocol have no async, I/O, clock or logging");
}

#[test]
fn a_shard_is_plain_data() {
    let banned = ["tokio", "tracing", "async ", "await", "Clock", "Mutex", "std::io"];
    let shard = |file: &File| file.path.starts_with("libs/node/src/shard/") && file.is_served();
    none(lines_naming(&files(), shard, &banned), "a shard has no async, I/O, clock or lock");
}

#[test]
fn only_the_configuration_reads_the_environment() {
    let elsewhere = |file: &File| file.is_served() && file.path != "services/nearby/src/config.rs";
    let banned = ["Environment", "env::var", "env::vars", "env::{"];
    none(lines_naming(&files(), elsewhere, &banned), "only config.rs reads the environment");
}

#[test]
fn only_protocol_knows_the_live_wire() {
    let elsewhere = |file: &File| file.is_served() && !file.is_of("libs/protocol");
    none(lines_naming(&files(), elsewhere, &["tag = \"type\""]), "frames are protocol's");
}

/// A fix has no way to a client: only what came through `Edge::reveal` is written.
#[test]
fn an_exact_position_cannot_be_serialised() {
    let vocabulary = |file: &File| {
        ["fix", "edge", "position", "distance"].iter().any(|name| file.path == format!("libs/model/src/{name}.rs"))
    };
    none(lines_naming(&files(), vocabulary, &["Serialize", "serde"]), "positions are not serialisable");
}

const BANS: [&str; 11] = [
    "tokio::spawn",
    "tokio::task::spawn",
    "tokio::sync::mpsc::unbounded_channel",
    "std::sync::mpsc::channel",
    "std::env::var",
    "std::env::vars",
    "std::time::SystemTime::now",
    "std::time::Instant::now",
    "std::sync::Mutex",
    "std::sync::RwLock",
    "tokio::sync::Mutex",
];

#[test]
fn the_bans_hold_and_say_why() {
    let clippy: Table = fs::read_to_string(root().join("clippy.toml")).unwrap().parse().unwrap();
    let lists = ["disallowed-methods", "disallowed-types"].map(|list| clippy[list].as_array().unwrap());
    let bans = lists.into_iter().flatten();
    let mut known: Vec<&str> = Vec::new();
    for ban in bans {
        let path = ban["path"].as_str().unwrap();
        assert!(ban["reason"].as_str().unwrap().len() > 10, "{path} is banned without a reason");
        known.push(path);
    }
    none(BANS.iter().filter(|ban| !known.contains(ban)).map(|ban| ban.to_string()), "no longer banned in clippy.toml");
    let lints = workspace();
    let clippy = &lints["workspace"]["lints"]["clippy"];
    for lint in ["await_holding_lock", "disallowed_methods", "disallowed_types", "todo", "dbg_macro"] {
        assert_eq!(clippy[lint].as_str(), Some("deny"), "{lint}");
    }
    for lint in ["missing_docs", "unsafe_code", "unused_must_use"] {
        assert_eq!(lints["workspace"]["lints"]["rust"][lint].as_str(), Some("deny"), "{lint}");
    }
}

#[test]
fn no_ban_is_lifted_where_it_counts() {
    let lifts = ["clippy::disallowed", "clippy::await_holding_lock", "allow(unsafe_code", "expect(unsafe_code"];
    none(lines_naming(&files(), File::is_served, &lifts), "bans are lifted in tests and in the load tester only");
}

#[test]
fn no_queue_is_unbounded() {
    none(lines_naming(&files(), File::is_served, &["unbounded"]), "no unbounded channel, of whatever crate");
}
