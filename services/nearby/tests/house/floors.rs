//! Who may depend on whom.

use crate::tree::{Crate, crates, files, none};

/// A crate depends only on lower floors, so those of one floor never name each other.
fn floor(name: &str) -> u8 {
    match name {
        "model" => 1,
        "protocol" | "ports" => 2,
        "web" | "node" => 3,
        backend if backend.ends_with("-backend") => 3,
        "gateway" | "api" => 4,
        "nearby" => 5,
        other => panic!("{other} has no floor: give it one here and in docs/ARCHITECTURE.md"),
    }
}

const KINDS: [&str; 3] = ["dependencies", "dev-dependencies", "build-dependencies"];

/// Dependencies on crates of the workspace.
fn ours(krate: &Crate, kind: &str, all: &[Crate]) -> Vec<String> {
    krate.packages(kind).into_iter().filter(|name| all.iter().any(|other| other.name == *name)).collect()
}

#[test]
fn every_dependency_leads_to_a_lower_floor() {
    let all = crates();
    let mut wrong = Vec::new();
    for krate in all.iter().filter(|krate| !["loadtest", "servers"].contains(&krate.name.as_str())) {
        for kind in KINDS {
            for other in ours(krate, kind, &all) {
                // What starts real servers is for tests.
                if (other.as_str(), kind) == ("servers", "dev-dependencies") {
                    continue;
                }
                // Beside the floors: the executable's tests may call the judge, nobody else and nothing that is served.
                let is_judged = (krate.name.as_str(), kind) == ("nearby", "dev-dependencies");
                let is_lower = if other == "loadtest" { is_judged } else { floor(&other) < floor(&krate.name) };
                if !is_lower {
                    wrong.push(format!("{} -> {other} ({kind})", krate.name));
                }
            }
        }
    }
    none(wrong, "a crate depends only on lower floors");
}

/// It starts processes and nothing else: also the tests of the lowest floor might use it.
#[test]
fn what_starts_servers_for_tests_knows_nothing_of_us() {
    let all = crates();
    let servers = all.iter().find(|krate| krate.name == "servers").unwrap();
    none(KINDS.into_iter().flat_map(|kind| ours(servers, kind, &all)), "servers names a crate of ours");
}

/// A judge that used the server's own types would not see what these get wrong. One file drives the engine without
/// sockets, to count what it costs; it judges nobody.
#[test]
fn the_load_tester_judges_from_outside() {
    let all = crates();
    let loadtest = all.iter().find(|krate| krate.name == "loadtest").unwrap();
    assert_eq!(ours(loadtest, "dependencies", &all), ["model", "node", "ports", "protocol"]);
    none(ours(loadtest, "dev-dependencies", &all), "the load tester's tests know no more than it does");
    let files = files();
    let inside = |path: &str| path.starts_with("loadtest/src/") && path != "loadtest/src/engine/shard.rs";
    let judges = files.iter().filter(|file| file.is_rust() && inside(&file.path));
    let named =
        judges.flat_map(|file| file.naming(&["use node::", "use ports::", "use protocol::"]).collect::<Vec<_>>());
    none(named, "of the load tester only engine/shard.rs names the engine or its wire");
}

/// Records are written and the control log appended to; the nodes read it there. The floors alone would allow it.
#[test]
fn the_api_never_names_the_engine() {
    let all = crates();
    let api = all.iter().find(|krate| krate.name == "api").unwrap();
    none(KINDS.into_iter().flat_map(|kind| ours(api, kind, &all)).filter(|name| name == "node"), "api names node");
}

/// Also tests of a service run on the embedded backends.
#[test]
fn only_the_executable_names_a_backend() {
    let all = crates();
    for krate in all.iter().filter(|krate| krate.name != "nearby") {
        let named = KINDS.into_iter().flat_map(|kind| ours(krate, kind, &all));
        none(named.filter(|name| name.ends_with("-backend")), &format!("{} names a backend", krate.name));
    }
}

#[test]
fn only_one_file_chooses_backends() {
    let services = files();
    let services = services.iter().filter(|file| file.is_served() && !file.path.starts_with("libs/ports/"));
    let elsewhere = services.filter(|file| file.path != "services/nearby/src/backends.rs");
    let named =
        elsewhere.flat_map(|file| file.naming(&["ports::embedded", "::embedded::", "_backend::"]).collect::<Vec<_>>());
    none(named, "only backends.rs chooses embedded or cluster");
}

/// What comes from outside the workspace into the crates that are pure. Another one is to be read first: no async, no
/// I/O, no clock, no logging.
#[test]
fn what_is_pure_depends_only_on_what_is_pure() {
    let pure = ["geo", "model", "schemars", "serde", "serde_json", "thiserror"];
    for krate in crates().iter().filter(|krate| ["model", "protocol"].contains(&krate.name.as_str())) {
        let foreign = krate.packages("dependencies").into_iter().filter(|name| !pure.contains(&name.as_str()));
        none(foreign, &format!("{} is pure", krate.name));
    }
}

/// One build of everything: what is chosen is chosen by configuration.
#[test]
fn there_are_no_features_of_our_own() {
    let with = crates().into_iter().filter(|krate| krate.manifest.contains_key("features")).map(|krate| krate.name);
    none(with, "no cargo features");
}

#[test]
fn every_crate_keeps_the_rules_of_the_workspace() {
    for krate in crates() {
        let lints = krate.manifest.get("lints").and_then(|lints| lints.get("workspace"));
        assert_eq!(lints.and_then(|all| all.as_bool()), Some(true), "{}: [lints] workspace = true", krate.name);
        assert!(krate.folder.ends_with(&krate.name), "folder = crate: {} is in {}", krate.name, krate.folder);
    }
}
