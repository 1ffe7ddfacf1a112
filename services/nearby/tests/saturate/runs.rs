//! Small runs of every kind.

use clap::Parser;
use loadtest::saturate::{Findings, Measured};
use loadtest::{connect, saturate};

#[derive(Parser)]
struct Saturate {
    #[command(flatten)]
    options: saturate::Options,
}

#[derive(Parser)]
struct Connect {
    #[command(flatten)]
    options: connect::Options,
}

/// People with ten friends each, on a server that the run starts and stops.
const PEOPLE: [&str; 4] =
    ["test", "--connections=40", "--friends=10", concat!("--server=", env!("CARGO_BIN_EXE_nearby"))];

/// With a target and people of its own.
pub(crate) fn saturate(arguments: &[&str]) -> Findings {
    let line = Saturate::try_parse_from(["test"].iter().chain(arguments)).unwrap();
    let found = saturate::run(&line.options).unwrap();
    assert!(found.is_sound(), "{found}");
    found
}

fn embedded(more: &[&str]) -> Findings {
    saturate(&[&PEOPLE[1..], more].concat())
}

fn server(found: &Findings) -> &Measured {
    &found.rounds[0].server
}

#[test]
fn in_an_open_loop_every_friend_near_is_told_of_every_position() {
    let found = embedded(&["--rate=100", "--warm-up=1", "--window=2"]);
    let server = server(&found);
    assert_eq!((found.friends_online, found.friends_near), (10.0, 10.0));
    assert!((195..=205).contains(&server.traffic.updates), "{found}");
    // A position may replace the one before only where a viewer was not told for 0.4 s.
    assert!((0.9..=1.02).contains(&server.pushes_of_expected), "{found}");
    assert!(server.age_ms.count > 1_800 && server.age_ms.p50 > 0.0 && server.age_ms.p50 < 2_000.0, "{found}");
    assert!(server.pushes_per_read.unwrap() >= 1.0, "{found}");
    let [role] = &server.roles[..] else { panic!("{found}") };
    assert!(role.cpu_s > 0.0 && role.us_per_update > role.us_per_push.unwrap() && role.rss_bytes > 1 << 20, "{found}");
    // A `friend` frame of this server is about 100 bytes.
    let per_push = server.traffic.bytes_in / server.traffic.pushes();
    assert!((90..130).contains(&per_push), "{found}");
    let json = serde_json::to_value(&found).unwrap();
    assert!(json["rounds"][0]["server"]["roles"][0]["us_per_push"].is_f64(), "{json}");
}

#[test]
fn in_a_closed_loop_every_update_is_answered_by_all_its_pushes() {
    let found = embedded(&["--outstanding=4", "--warm-up=0.5", "--window=2"]);
    let server = server(&found);
    assert_eq!(server.unanswered, 0, "{found}");
    assert!(server.traffic.updates > 50, "{found}");
    assert!(server.traffic.pushes().abs_diff(server.traffic.updates * 10) <= 40, "{found}");
}

#[test]
fn as_many_friends_are_told_as_are_near() {
    let near = embedded(&["--near-share=0.2", "--rate=100", "--warm-up=1", "--window=1"]);
    assert_eq!(near.friends_near, 2.0);
    assert!(server(&near).pushes_of_expected > 0.9, "{near}");
    let nobody = embedded(&["--near-share=0", "--rate=100", "--warm-up=1", "--window=1"]);
    assert_eq!((server(&nobody).traffic.pushes(), server(&nobody).pushes_per_read), (0, None), "{nobody}");
}

#[test]
fn everybody_comes_back_from_a_storm() {
    let line = Connect::try_parse_from(PEOPLE.iter().chain(&["--storms=0,0.5", "--quiet=1"])).unwrap();
    let found = connect::run(&line.options).unwrap();
    assert_eq!((found.first.connections, found.first.connect_ms.count), (40, 40));
    assert!(found.first.us_per_connect.is_some() && found.first.init_ms.p50 > 0.0, "{found}");
    for storm in &found.storms {
        assert_eq!((storm.connections, storm.back_ms.count), (20, 20), "{found}");
        assert!(storm.ages.unwrap().quiet_ms.count > 100, "{found}");
        assert!(storm.connect_ms.p50 >= storm.init_ms.p50 && storm.back_ms.max >= storm.init_ms.p50, "{found}");
    }
    assert!(found.storms[1].back_ms.max > 300.0, "with jitter they come over half a second: {found}");
}
