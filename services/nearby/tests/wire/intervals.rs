//! A viewer who is told of friends no more often than so: fewer writes, the same end, and no revoke comes too late.

use std::time::Duration;

use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::client::Client;
use crate::server::Server;
use crate::site::{HERE, north};

const ALICE: u64 = 1;
const BOB: u64 = 2;
const CAROL: u64 = 3;

const INTERVAL: Duration = Duration::from_millis(500);

async fn server() -> Server {
    let server = Server::with(|config| {
        config.location.push_interval_ms = INTERVAL.as_millis() as u64;
        config.limits.update_burst = 1_000;
    })
    .await;
    server.friends(ALICE, BOB).await;
    server.friends(ALICE, CAROL).await;
    server
}

/// Reads on until this friend is shown at this distance; how many frames that took.
async fn shown_at(viewer: &mut Client, metres: f64) -> usize {
    let mut frames = 0;
    loop {
        frames += 1;
        let frame = viewer.reads("friend").await;
        if (frame["distance_m"].as_f64().unwrap() - metres).abs() < 0.5 {
            return frames;
        }
    }
}

#[tokio::test]
async fn many_moves_are_few_frames_and_the_last_one_arrives() {
    let server = server().await;
    let mut alice = server.at(ALICE, HERE).await;
    let mut bob = server.at(BOB, north(100.0)).await;
    alice.sees(BOB, 100.0).await;
    let begin = Instant::now();
    let moves = async {
        for step in 1..=60 {
            bob.moves(north(100.0 + f64::from(step))).await;
            sleep(Duration::from_millis(48)).await;
        }
    };
    let ((), frames) = tokio::join!(moves, shown_at(&mut alice, 160.0));
    let intervals = begin.elapsed().as_secs_f64() / INTERVAL.as_secs_f64();
    // Sixty moves in 3 s: one write in each interval, and one more where it began.
    assert!((4.0..=intervals + 1.0).contains(&(frames as f64)), "{frames} frames in {intervals} intervals");
    alice.hears_nothing().await;
}

#[tokio::test]
async fn all_that_changed_meanwhile_comes_at_once_and_answers_do_not_wait() {
    let server = server().await;
    let mut alice = server.at(ALICE, HERE).await;
    let mut carol = server.at(CAROL, HERE).await;
    alice.sees(CAROL, 0.0).await;
    let shown = Instant::now();
    let mut bob = server.at(BOB, north(10.0)).await;
    carol.moves(north(20_000.0)).await;
    bob.moves(north(20.0)).await;
    alice.send(&json!({"type": "jump"})).await;
    alice.is_told("unknown_type").await;
    assert!(shown.elapsed() < INTERVAL, "too slow a machine to tell: {:?}", shown.elapsed());
    bob.moves(north(30.0)).await;
    let (mut first, mut second) = (alice.read().await, alice.read().await);
    let waited = shown.elapsed();
    assert!((INTERVAL.mul_f32(0.9)..INTERVAL * 3).contains(&waited), "{waited:?}");
    if first["type"] == "friend" {
        std::mem::swap(&mut first, &mut second);
    }
    assert_eq!((&first["type"], &first["id"], &first["reason"]), (&json!("gone"), &json!("3"), &json!("out_of_range")));
    assert_eq!((&second["type"], &second["id"]), (&json!("friend"), &json!("2")));
    assert!((second["distance_m"].as_f64().unwrap() - 30.0).abs() < 1.0, "{second}");
    alice.hears_nothing().await;
}

#[tokio::test]
async fn what_waits_when_a_friendship_ends_is_never_told() {
    let server = server().await;
    let mut alice = server.at(ALICE, HERE).await;
    let mut bob = server.at(BOB, HERE).await;
    alice.sees(BOB, 0.0).await;
    for round in 1..=5 {
        let shown = Instant::now();
        bob.moves(north(f64::from(round) * 7.0)).await;
        sleep(Duration::from_millis(50)).await;
        server.unfriend(ALICE, BOB).await;
        // The revoke itself does not wait for the interval.
        assert!(shown.elapsed() < INTERVAL, "{:?}", shown.elapsed());
        alice.loses(BOB, "hidden").await;
        alice.reads_of("friend_removed", BOB).await;
        server.befriend(ALICE, BOB).await;
        alice.reads_of("friend_added", BOB).await;
        alice.sees(BOB, f64::from(round) * 7.0).await;
    }
}
