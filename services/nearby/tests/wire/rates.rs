//! Too much of everything.

use serde_json::json;

use crate::server::Server;
use crate::site::{HERE, north};

const ALICE: u64 = 1;
const BOB: u64 = 2;

/// Connections of one user at the same time.
const CONNECTIONS: usize = 8;

#[tokio::test]
async fn a_burst_is_taken_and_what_is_above_is_said_and_dropped() {
    let server = Server::with(|config| {
        config.limits.update_burst = 3;
        config.limits.updates_per_second = 0.5;
    })
    .await;
    server.friends(ALICE, BOB).await;
    let mut alice = server.at(ALICE, HERE).await;
    let mut bob = server.at(BOB, HERE).await;
    alice.sees(BOB, 0.0).await;
    for step in 1..=3 {
        bob.moves(north(f64::from(step) * 10.0)).await;
        alice.sees(BOB, f64::from(step) * 10.0).await;
    }
    bob.moves(north(1_000.0)).await;
    let error = bob.is_told("rate_limited").await;
    assert!(error["message"].as_str().unwrap().contains("0.5"), "{error}");
    alice.hears_nothing().await;
    // After a while there is room for one.
    tokio::time::sleep(std::time::Duration::from_millis(2_000)).await;
    bob.moves(north(40.0)).await;
    alice.sees(BOB, 40.0).await;
}

#[tokio::test]
async fn calls_above_the_users_rate_are_refused_for_a_while_and_nobody_elses() {
    let server = Server::with(|config| config.limits.update_burst = 3).await;
    server.friends(ALICE, BOB).await;
    for _ in 0..3 {
        server.get(ALICE, "/v1/nearby").await.ok();
    }
    let refused = server.get(ALICE, "/v1/nearby").await;
    refused.problem(429);
    assert_eq!(refused.header("retry-after"), Some("1"));
    server.get(BOB, "/v1/nearby").await.ok();
}

#[tokio::test]
async fn the_oldest_connection_of_a_user_gives_way_to_the_ninth() {
    let server = Server::start().await;
    server.know(&[ALICE]).await;
    let mut clients = Vec::new();
    for _ in 0..=CONNECTIONS {
        let mut client = server.connect(ALICE).await;
        client.watch().await;
        clients.push(client);
    }
    clients.remove(0).is_closed(4409).await;
    for client in &mut clients {
        client.is_alive().await;
    }
}

#[tokio::test]
async fn also_when_they_come_faster_than_the_oldest_can_go() {
    let server = Server::start().await;
    server.know(&[ALICE]).await;
    let mut clients = Vec::new();
    // Nobody answers the close meanwhile.
    for _ in 0..3 * CONNECTIONS {
        clients.push(server.connect(ALICE).await);
    }
    for mut oldest in clients.drain(..2 * CONNECTIONS) {
        oldest.is_closed(4409).await;
    }
    for client in &mut clients {
        client.is_alive().await;
    }
}

#[tokio::test]
async fn who_sends_nothing_but_bad_frames_is_closed() {
    let server = Server::start().await;
    server.know(&[ALICE]).await;
    let mut alice = server.at(ALICE, HERE).await;
    // Not in a row: forgiven.
    for _ in 0..3 {
        for _ in 0..60 {
            alice.send(&json!({"type": "jump"})).await;
            alice.is_told("unknown_type").await;
        }
        alice.moves(HERE).await;
    }
    let mut sent = 0;
    while sent < 1_000 && alice.try_send(&json!({"type": "jump"})).await {
        sent += 1;
    }
    let (answers, code) = alice.up_to_the_end().await;
    assert_eq!((answers.len(), code), (100, Some(4429)));
}
