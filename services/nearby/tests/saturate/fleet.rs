//! A fleet under load, and one gateway of it among others that are not there.

use std::fs;

use loadtest::saturate::{Findings, Measured};
use servers::fleet::{Fleet, FleetOptions};

use crate::runs::saturate;

fn roles(found: &Findings) -> Vec<&str> {
    server(found).roles.iter().map(|role| role.role.as_str()).collect()
}

fn server(found: &Findings) -> &Measured {
    &found.rounds[0].server
}

#[test]
fn a_fleet_is_put_under_load_as_a_whole_and_by_its_parts() {
    let mut options = FleetOptions::new(env!("CARGO_BIN_EXE_nearby")).with("NEARBY_LIMITS__UPDATES_PER_SECOND", "100");
    (options.gateways, options.pubsub) = (2, 1);
    let fleet = Fleet::start(options).unwrap_or_else(|failure| panic!("{failure}"));
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("fleet.json");
    fs::write(&file, fleet.description().to_string()).unwrap();
    let file = format!("--fleet={}", file.display());
    let run = |more: &[&str]| {
        let always = ["--friends=10", "--warm-up=1", "--window=2", "--at-once=16", &file];
        saturate(&[&always, more].concat())
    };

    for way in ["--user-base=0", "--direct"] {
        let found = run(&["--connections=30", "--rate=60", way]);
        let all = ["api", "cache", "cassandra", "etcd", "gateway", "haproxy", "pubsub", "standby"];
        assert_eq!((roles(&found), found.friends_near), (all.to_vec(), 10.0), "{found}");
        assert!((0.9..=1.02).contains(&server(&found).pushes_of_expected), "{found}");
        let gateways = server(&found).roles.iter().find(|role| role.role == "gateway").unwrap();
        assert!(gateways.us_per_update > 0.0 && gateways.us_per_update < server(&found).us_per_update(), "{found}");
    }

    let nearby = concat!("--server=", env!("CARGO_BIN_EXE_nearby"));
    let people = ["--connections=20", "--near-share=0.5", "--user-base=1000", "--published-for=5", "--rate=60"];
    let found = run(&[&people[..], &[nearby]].concat());
    let bus = server(&found).bus.unwrap();
    assert!((4.7..=5.3).contains(&bus.messages_per_update) && bus.received == bus.messages, "{found}");
    assert!(found.friends_online > 9.0 && found.friends_near > 3.0, "{found}");
    // All that its people are told comes from the bus: nobody near is connected to it.
    assert!((0.9..=1.02).contains(&server(&found).pushes_of_expected), "{found}");
    assert!(server(&found).traffic.pushes() > 300 && server(&found).age_ms.p50 > 0.0, "{found}");
    assert_eq!(roles(&found), ["server"], "what it costs is its own");
    assert!(server(&found).beside.iter().any(|role| role.role == "pubsub" && role.cpu_s >= 0.0), "{found}");
    fleet.stop().unwrap();
}
