//! Names and sizes.

use std::path::Path;

use crate::tree::{crates, files, none, root};

/// Nobody finds anything by these names.
const EMPTY_NAMES: [&str; 7] = ["core", "common", "types", "util", "utils", "helper", "helpers"];

/// A file longer than this is two.
const LINES: usize = 500;

#[test]
fn no_name_says_nothing() {
    let files = files();
    let paths = files.iter().filter(|file| file.is_rust()).filter(|file| {
        let path = file.path.strip_suffix(".rs").unwrap_or(&file.path);
        path.split('/').any(|part| EMPTY_NAMES.contains(&part))
    });
    none(paths.map(|file| file.path.clone()), "no crate or module is called so");
    none(crates().into_iter().map(|krate| krate.name).filter(|name| EMPTY_NAMES.contains(&name.as_str())), "no crate");
    let inline = files.iter().filter(|file| file.is_rust()).flat_map(|file| {
        let modules = file.code().filter_map(|line| line.trim().trim_start_matches("pub ").strip_prefix("mod "));
        let named = modules.map(|rest| rest.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().unwrap());
        let empty = named.filter(|name| EMPTY_NAMES.contains(name));
        empty.map(|name| format!("{}: {name}", file.path)).collect::<Vec<_>>()
    });
    none(inline, "no module is called so");
}

#[test]
fn no_file_is_too_long() {
    let long = files().into_iter().filter(|file| file.is_rust() && file.text.lines().count() > LINES);
    none(long.map(|file| file.path), "a file has at most 500 lines");
}

/// The tree stands by itself, wherever it is.
#[test]
fn no_path_of_a_machine_is_named() {
    let machines = [concat!("/wo", "rk/"), concat!("/ro", "ot/")];
    let mut found = Vec::new();
    for file in files() {
        let lines = file.text.lines().filter(|line| machines.iter().any(|path| line.contains(path)));
        found.extend(lines.map(|line| format!("{}: {}", file.path, line.trim())));
    }
    none(found, "paths of one machine");
}

/// `ls libs/ports/src` is the list of what leaves the process.
#[test]
fn every_port_has_its_contract_its_embedded_backend_and_its_suite() {
    let ports = root().join("libs/ports/src");
    for port in ["broker", "cache", "history", "users", "friendships", "sessions", "control", "discovery"] {
        for part in ["mod.rs", "embedded.rs", "conformance.rs"] {
            assert!(ports.join(port).join(part).is_file(), "{port}/{part}");
        }
    }
    let folders = ports.read_dir().unwrap().filter(|entry| entry.as_ref().unwrap().path().join("mod.rs").exists());
    assert_eq!(folders.count(), 8, "a port that this test does not know");
}

#[test]
fn every_manifest_is_a_member() {
    let members: Vec<String> = crates().into_iter().map(|krate| krate.folder).collect();
    let manifests = files().into_iter().filter_map(|file| file.path.strip_suffix("/Cargo.toml").map(str::to_owned));
    none(manifests.filter(|folder| !members.contains(folder)), "not in the workspace");
    assert!(members.iter().all(|folder| Path::new(folder).is_relative()));
}
