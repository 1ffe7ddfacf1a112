//! Starting and stopping the real process.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

use crate::http::request;
use crate::process::{Process, fails_to_start};
use crate::server::Server;
use crate::site::{HERE, north, now, position};

const ALICE: u64 = 1;
const BOB: u64 = 2;

/// Over what the closes are spread here.
const DRAIN: Duration = Duration::from_millis(1_500);

/// What a busy machine may add.
const LATE: Duration = Duration::from_millis(700);

#[tokio::test]
async fn sigterm_says_goodbye_to_everybody_in_turn_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let drain_ms = DRAIN.as_millis().to_string();
    let server = Process::start(dir.path(), &[("NEARBY_SERVER__DRAIN_MS", &drain_ms)]).await;
    server.know(&[ALICE, BOB]).await;
    server.post(ALICE, &position(HERE, now())).await.ok();
    let mut clients = Vec::new();
    for user in [ALICE, BOB] {
        for n in 0..7 {
            let mut client = server.connect(user).await;
            // Some have not said a word yet.
            if n > 2 {
                client.watch().await;
            }
            clients.push(client);
        }
    }
    let mut sharing = server.at(BOB, HERE).await;
    sharing.moves(north(10.0)).await;
    clients.push(sharing);
    let at = Instant::now();
    server.signal(Signal::TERM);
    sleep(Duration::from_millis(100)).await;
    request(server.address, "GET", "/readyz", None, None).await.problem(503);
    request(server.address, "GET", "/livez", None, None).await;

    let mut closed_at = Vec::new();
    let mut ends: tokio::task::JoinSet<_> =
        clients.into_iter().map(|mut client| async move { (client.up_to_the_end().await, Instant::now()) }).collect();
    while let Some(end) = ends.join_next().await {
        let ((frames, code), when) = end.unwrap();
        let drain = frames.iter().position(|frame| frame["type"] == "drain").expect("a drain frame");
        let told = Duration::from_millis(frames[drain]["retry_after_ms"].as_u64().unwrap());
        assert!(told <= DRAIN, "{frames:?}");
        assert_eq!(code, Some(1012), "{frames:?}");
        let took = when - at;
        assert!(took + Duration::from_millis(50) > told && took < told + LATE, "closed after {took:?}, told {told:?}");
        closed_at.push(took);
    }
    // Spread, and not in heaps: no half of them within a twentieth of the time, which chance brings about once in 10,000.
    closed_at.sort();
    let half = closed_at.len() / 2;
    let densest = closed_at.windows(half).map(|run| run[half - 1] - run[0]).min().unwrap();
    assert!(densest > DRAIN / 20, "{closed_at:?}");

    let address = server.address;
    let (status, log) = server.ended().await;
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(at.elapsed() < DRAIN + Duration::from_secs(3), "{:?}", at.elapsed());
    assert!(TcpStream::connect(address).await.is_err());

    let again = Process::start(dir.path(), &[]).await;
    let history = async |user: u64| -> Value { again.get(user, &format!("/v1/users/{user}/history")).await.ok() };
    assert_eq!(history(ALICE).await["items"].as_array().unwrap().len(), 1);
    assert_eq!(history(BOB).await["items"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn a_stop_that_could_not_write_everything_says_so_and_fails() {
    let dir = tempfile::tempdir().unwrap();
    let server = Process::start_on_a_disk_that_fills(dir.path(), &[("NEARBY_SERVER__DRAIN_MS", "50")]).await;
    server.know(&[BOB]).await;
    let mut bob = server.at(BOB, HERE).await;
    bob.moves(north(10.0)).await;
    server.comes_to_measure("nearby_history_points_total{kind=\"written\"}", 2).await;
    server.fill_disk(true);
    for step in 1..=3_u8 {
        bob.moves(north(10.0 * f64::from(step))).await;
        server.comes_to_measure("nearby_updates_total{kind=\"newest\"}", 2 + u64::from(step)).await;
    }
    server.signal(Signal::TERM);
    let (status, log) = server.ended().await;
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(!log.contains("nothing lost"), "{log}");
    let said: Vec<&str> = log.lines().filter(|line| line.contains("ERROR node")).collect();
    assert!(said.len() == 1 && said[0].contains("points=3"), "{log}");
    assert!(log.lines().any(|line| line.starts_with("error: ") && line.contains("3 points")), "{log}");

    let again = Process::start(dir.path(), &[]).await;
    let history = again.get(BOB, &format!("/v1/users/{BOB}/history")).await.ok();
    assert_eq!(history["items"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn sigint_stops_at_once_when_nobody_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let server = Process::start(dir.path(), &[]).await;
    // Connections that only stand there do not hold it up for long.
    let _idle = TcpStream::connect(server.address).await.unwrap();
    let at = Instant::now();
    server.signal(Signal::INT);
    let (status, log) = server.ended().await;
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(at.elapsed() < Duration::from_secs(7), "{:?}", at.elapsed());
}

#[tokio::test]
async fn while_it_stops_nobody_new_is_let_in() {
    let server = Server::with(|config| config.server.drain_ms = 1_000).await;
    server.know(&[ALICE]).await;
    let mut alice = server.at(ALICE, HERE).await;
    let site = (*server).clone();
    let knocks = async {
        alice.reads("drain").await;
        let refused = request(site.address, "GET", "/readyz", None, None).await;
        refused.problem(503);
        let mut upgrade = crate::client::upgrade(site.address);
        upgrade.headers_mut().insert("authorization", format!("Bearer {}", site.token(ALICE)).parse().unwrap());
        let Err(refused) = crate::client::try_connect(site.address, upgrade).await else { panic!("let in") };
        refused.problem(503);
        assert!(refused.header("retry-after").is_some(), "{refused:?}");
        alice.is_closed(1012).await;
    };
    tokio::join!(server.stop(), knocks);
}

#[tokio::test]
async fn what_keeps_it_from_starting_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let server = Process::start(dir.path(), &[]).await;
    let complaint = fails_to_start(dir.path(), "127.0.0.1:0").await;
    assert!(complaint.contains(dir.path().to_str().unwrap()), "{complaint}");
    assert!(complaint.contains("use") || complaint.contains("lock"), "{complaint}");
    assert!(!complaint.contains("panicked"), "{complaint}");

    let other = tempfile::tempdir().unwrap();
    let address = server.address.to_string();
    let complaint = fails_to_start(other.path(), &address).await;
    assert!(complaint.contains(&address) && complaint.contains("in use"), "{complaint}");

    let file = other.path().join("file");
    std::fs::write(&file, "").unwrap();
    let complaint = fails_to_start(&file, "127.0.0.1:0").await;
    assert!(complaint.contains(file.to_str().unwrap()), "{complaint}");
    // The first is not disturbed by any of that.
    assert_eq!(request(server.address, "GET", "/readyz", None, None).await.status, 200);
    server.know(&[ALICE]).await;
    assert_eq!(server.get(ALICE, "/v1/me").await.ok()["name"], json!("user 1"));
}
