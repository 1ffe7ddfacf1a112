//! The process is killed.

use rustix::process::Signal;
use serde_json::json;

use crate::process::Process;
use crate::site::{HERE, north, now, position};

const ALICE: u64 = 1;
const BOB: u64 = 2;

#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = 0;
    let first = now() - 60_000;
    for round in 0..3 {
        let server = Process::start(dir.path(), &[]).await;
        if round == 0 {
            server.friends(ALICE, BOB).await;
        }
        let history = server.get(ALICE, "/v1/users/1/history?limit=1000").await.ok();
        assert_eq!(history["items"].as_array().unwrap().len(), acknowledged, "round {round}");
        assert_eq!(server.get(ALICE, "/v1/me/friends").await.ok()["items"][0]["id"], "2");
        for batch in 0..5u64 {
            let ts = first + (round * 5 + batch) * 10;
            let points: Vec<_> = (0..10).map(|n| position(north(n as f64), ts + n)).collect();
            server.post(ALICE, &json!(points)).await.ok();
            acknowledged += 10;
        }
        server.signal(Signal::KILL);
        let (status, _) = server.ended().await;
        assert!(!status.success());
    }
}

#[tokio::test]
async fn a_friendship_that_was_ended_stays_ended_after_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let server = Process::start(dir.path(), &[]).await;
    server.friends(ALICE, BOB).await;
    server.know(&[3]).await;
    server.unfriend(ALICE, BOB).await;
    assert_eq!(server.backend_asks("DELETE", "/v1/users/3", None).await.status, 204);
    server.signal(Signal::KILL);
    server.ended().await;

    let server = Process::start(dir.path(), &[]).await;
    assert_eq!(server.get(ALICE, "/v1/me/friends").await.ok()["items"], json!([]));
    server.get(3, "/v1/me").await.problem(404);
    let _bob = server.at(BOB, HERE).await;
    let (mut alice, nearby) = server.joins(ALICE, HERE).await;
    assert_eq!(nearby["friends"], json!([]));
    alice.hears_nothing().await;
}
