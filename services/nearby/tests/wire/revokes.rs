//! A friendship ends while the viewer does not read: what is not in the kernel yet is never sent.

use std::time::Duration;

use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::client::Client;
use crate::raw::{Raw, frame};
use crate::server::Server;
use crate::site::{HERE, north, now, position};

const VIEWER: u64 = 1;
const BOB: u64 = 2;
const FIRST_FRIEND: u64 = 100;
const FRIENDS: u64 = 40;

/// What is answered within this time, waits for nobody who does not read.
const PROMPT: Duration = Duration::from_secs(2);

async fn server_of_many_friends() -> Server {
    let server = Server::with(|config| {
        config.limits.update_burst = 1_000_000;
        config.limits.updates_per_second = 1e6;
    })
    .await;
    server.friends(VIEWER, BOB).await;
    for friend in FIRST_FRIEND..FIRST_FRIEND + FRIENDS {
        server.friends(VIEWER, friend).await;
    }
    server
}

/// Lets friends move until the viewer's buffers are full and the server waits for it.
async fn fill(viewer: &Raw, friends: &mut [Client]) {
    let mut before = usize::MAX;
    for round in 0..200 {
        for friend in friends.iter_mut() {
            friend.moves(north(f64::from(round))).await;
        }
        let held = viewer.in_kernel().await;
        if held == before && held > 4_096 {
            return;
        }
        before = held;
    }
    panic!("the buffers never fill");
}

#[tokio::test]
async fn a_blocked_socket_is_cut() {
    let server = server_of_many_friends().await;
    let mut friends = Vec::new();
    for friend in FIRST_FRIEND..FIRST_FRIEND + FRIENDS {
        friends.push(server.at(friend, HERE).await);
    }
    let mut bob = server.at(BOB, HERE).await;
    let mut viewer = Raw::narrow(server.address).await;
    viewer.upgrade(&server, VIEWER, "").await;
    let init = json!({"type": "init", "lat": HERE.0, "lon": HERE.1, "ts": now()}).to_string();
    viewer.send(&frame(0x81, init.as_bytes())).await;
    bob.reads_of("friend", VIEWER).await;
    fill(&viewer, &mut friends).await;
    bob.moves(north(777.0)).await;

    let at = Instant::now();
    server.unfriend(VIEWER, BOB).await;
    assert!(at.elapsed() < PROMPT, "{:?}", at.elapsed());
    let held = viewer.in_kernel().await;
    bob.moves(north(888.0)).await;
    sleep(Duration::from_millis(500)).await;
    assert!(viewer.in_kernel().await <= held, "something was written after the revoke");
    let rest = viewer.rest(Duration::from_secs(10)).await;
    assert!(rest.len() <= held, "{} bytes came, {held} were in the kernel", rest.len());
    let text = String::from_utf8_lossy(&rest).into_owned();
    let after = north(888.0).0.to_string();
    assert!(!text.contains(&after[..8]), "a position that was sent after the revoke");
    // Nobody else noticed.
    let (mut again, nearby) = server.joins(VIEWER, HERE).await;
    assert_eq!(nearby["friends"].as_array().unwrap().len(), 20);
    friends[0].moves(north(1.5)).await;
    again.reads_of("friend", FIRST_FRIEND).await;
}

#[tokio::test]
async fn answers_that_nobody_reads_are_cut_too() {
    let server = server_of_many_friends().await;
    for friend in FIRST_FRIEND..FIRST_FRIEND + FRIENDS {
        server.post(friend, &position(HERE, now())).await.ok();
    }
    // At the end of each answer.
    server.post(BOB, &position(north(5_000.0), now())).await.ok();
    // However many answers fit into the kernel's buffers, the next ones wait in the server.
    let mut viewers = Vec::new();
    for pipelined in 1..=24 {
        let mut viewer = Raw::narrow(server.address).await;
        let ask = format!(
            "GET /v1/nearby?lat={}&lon={}&limit=100 HTTP/1.1\r\nhost: nearby\r\nauthorization: Bearer {}\r\n\r\n",
            HERE.0,
            HERE.1,
            server.token(VIEWER)
        );
        // The last ends the connection, so that nothing waits for more.
        let last = ask.replace("host", "connection: close\r\nhost");
        viewer.send((ask.repeat(pipelined - 1) + &last).as_bytes()).await;
        viewers.push((pipelined, viewer));
    }
    sleep(Duration::from_secs(2)).await;
    let at = Instant::now();
    server.unfriend(VIEWER, BOB).await;
    assert!(at.elapsed() < PROMPT, "{:?}", at.elapsed());
    let mut held = Vec::new();
    for (_, viewer) in &viewers {
        held.push(viewer.in_kernel().await);
    }
    assert!(held[0] * 10 < held[23] * 24, "the buffers never fill: {held:?}");
    let mut ends = JoinSet::new();
    for ((pipelined, mut viewer), held) in viewers.into_iter().zip(held) {
        ends.spawn(async move {
            let rest = viewer.rest(Duration::from_secs(15)).await;
            let late = String::from_utf8_lossy(&rest[held.min(rest.len())..]).into_owned();
            assert!(!late.contains("\"id\":\"2\""), "sent after the revoke, of {pipelined} answers");
        });
    }
    ends.join_all().await;
}

#[tokio::test]
async fn revokes_and_positions_race_and_nothing_comes_after_the_answer() {
    let server = server_of_many_friends().await;
    let mut viewer = server.at(VIEWER, HERE).await;
    let mut bob = server.at(BOB, HERE).await;
    let mut friends = true;
    for round in 0..25u32 {
        server.befriend(VIEWER, BOB).await;
        let moves = async {
            for step in 0..20 {
                bob.moves(north(f64::from(round * 20 + step))).await;
            }
        };
        let revoke = async {
            sleep(Duration::from_millis(u64::from(round % 10) * 4)).await;
            server.unfriend(BOB, VIEWER).await;
        };
        tokio::join!(moves, revoke);
        // What is sent from here on, after the answer to the revoke, is read in the next round.
        viewer.send(&json!({"type": "jump"})).await;
        loop {
            let frame = viewer.read().await;
            match frame["type"].as_str().unwrap() {
                "friend_added" => friends = true,
                "friend_removed" => friends = false,
                "friend" => assert!(friends, "{frame} of nobody's friend, round {round}"),
                "error" => break,
                _ => {}
            }
        }
        assert!(!friends, "not told of the end, round {round}");
    }
    viewer.hears_nothing().await;
}
