//! Two friends, live: near, moving, leaving, silent, befriended, unfriended.

use std::time::Duration;

use serde_json::json;
use tokio::time::sleep;

use crate::client::QUIET;
use crate::server::Server;
use crate::site::{HERE, north};

const ALICE: u64 = 1;
const BOB: u64 = 2;

#[tokio::test]
async fn both_see_each_other_with_distance_and_follow_until_one_leaves() {
    let server = Server::start().await;
    server.friends(ALICE, BOB).await;
    let (mut alice, nearby) = server.joins(ALICE, HERE).await;
    assert_eq!(nearby["friends"], json!([]));
    assert_eq!((&nearby["radius_m"], &nearby["location_ttl_s"]), (&json!(8046.72), &json!(600)));

    let (mut bob, nearby) = server.joins(BOB, north(1_000.0)).await;
    let shown = &nearby["friends"][0];
    assert_eq!(shown["id"], "1");
    assert_eq!((&shown["lat"], &shown["lon"]), (&json!(HERE.0), &json!(HERE.1)));
    assert!((shown["distance_m"].as_f64().unwrap() - 1_000.0).abs() < 1.0, "{shown}");
    alice.sees(BOB, 1_000.0).await;

    bob.moves(north(3_000.0)).await;
    alice.sees(BOB, 3_000.0).await;
    alice.moves(north(2_000.0)).await;
    bob.sees(ALICE, 1_000.0).await;

    // Who moves is told of who stands still only when that changes sides.
    bob.moves(north(12_000.0)).await;
    alice.loses(BOB, "out_of_range").await;
    bob.loses(ALICE, "out_of_range").await;
    bob.moves(north(13_000.0)).await;
    alice.hears_nothing().await;
    bob.moves(north(2_500.0)).await;
    alice.sees(BOB, 500.0).await;
    bob.sees(ALICE, 500.0).await;
    bob.hears_nothing().await;
}

#[tokio::test]
async fn what_a_device_knows_of_itself_is_shown_and_nothing_more() {
    let server = Server::start().await;
    server.friends(ALICE, BOB).await;
    let mut alice = server.at(ALICE, HERE).await;
    let mut bob = server.connect(BOB).await;
    bob.init(HERE).await;
    alice.sees(BOB, 0.0).await;
    let ts = crate::site::now() + 1;
    bob.send(&json!({
        "type": "location", "lat": HERE.0, "lon": HERE.1, "ts": ts, "accuracy_m": 5, "altitude_m": 50,
        "speed_mps": 1.5, "heading_deg": 90, "battery_pct": 80, "charging": true, "shoe_size": 43,
    }))
    .await;
    let shown = alice.reads_of("friend", BOB).await;
    assert_eq!(
        shown,
        json!({
            "type": "friend", "id": "2", "lat": HERE.0, "lon": HERE.1, "ts": ts, "distance_m": 0.0,
            "accuracy_m": 5.0, "speed_mps": 1.5, "heading_deg": 90.0, "battery_pct": 80, "charging": true,
        })
    );
}

#[tokio::test]
async fn who_is_silent_for_the_ttl_is_gone_and_comes_back_with_the_next_word() {
    let server = Server::with(|config| config.location.ttl_s = 2).await;
    server.friends(ALICE, BOB).await;
    let mut alice = server.at(ALICE, HERE).await;
    let mut bob = server.at(BOB, north(500.0)).await;
    alice.sees(BOB, 500.0).await;
    alice.loses(BOB, "inactive").await;
    bob.loses(ALICE, "inactive").await;
    // Also when the connection is gone meanwhile.
    bob.moves(north(600.0)).await;
    alice.sees(BOB, 600.0).await;
    drop(bob);
    alice.loses(BOB, "inactive").await;
    assert_eq!(server.get(ALICE, "/v1/nearby").await.ok()["friends"], json!([]));
}

#[tokio::test]
async fn a_friendship_counts_from_when_it_is_made_until_its_end_is_answered() {
    let server = Server::start().await;
    server.know(&[ALICE, BOB]).await;
    let mut alice = server.at(ALICE, HERE).await;
    let mut bob = server.at(BOB, north(700.0)).await;
    alice.hears_nothing().await;

    server.befriend(ALICE, BOB).await;
    alice.reads_of("friend_added", BOB).await;
    alice.sees(BOB, 700.0).await;
    bob.reads_of("friend_added", ALICE).await;
    bob.sees(ALICE, 700.0).await;
    bob.moves(north(800.0)).await;
    alice.sees(BOB, 800.0).await;

    server.unfriend(BOB, ALICE).await;
    for step in 0..10 {
        bob.moves(north(900.0 + f64::from(step))).await;
        alice.moves(north(f64::from(step))).await;
    }
    alice.loses(BOB, "hidden").await;
    alice.reads_of("friend_removed", BOB).await;
    bob.loses(ALICE, "hidden").await;
    bob.reads_of("friend_removed", ALICE).await;
    sleep(QUIET).await;
    alice.hears_nothing().await;
    bob.hears_nothing().await;
    assert_eq!(server.get(ALICE, "/v1/nearby").await.ok()["friends"], json!([]));
    let (_, nearby) = server.joins(ALICE, HERE).await;
    assert_eq!(nearby["friends"], json!([]));

    // And again.
    server.befriend(BOB, ALICE).await;
    alice.reads_of("friend_added", BOB).await;
    alice.reads_of("friend", BOB).await;
}

#[tokio::test]
async fn a_user_ends_a_friendship_of_their_own() {
    let server = Server::start().await;
    server.friends(ALICE, BOB).await;
    let mut alice = server.at(ALICE, HERE).await;
    let mut bob = server.at(BOB, HERE).await;
    alice.sees(BOB, 0.0).await;
    assert_eq!(server.asks(BOB, "DELETE", "/v1/me/friends/1", None).await.status, 204);
    bob.moves(north(10.0)).await;
    alice.loses(BOB, "hidden").await;
    alice.reads_of("friend_removed", BOB).await;
    alice.hears_nothing().await;
}

#[tokio::test]
async fn another_radius_is_answered_with_its_list() {
    let server = Server::start().await;
    server.friends(ALICE, BOB).await;
    let mut alice = server.at(ALICE, HERE).await;
    let mut bob = server.at(BOB, north(5_000.0)).await;
    alice.sees(BOB, 5_000.0).await;
    alice.send(&json!({"type": "radius", "radius_m": 1_000})).await;
    let nearby = alice.reads("nearby").await;
    assert_eq!((&nearby["friends"], &nearby["radius_m"]), (&json!([]), &json!(1_000.0)));
    bob.moves(north(5_100.0)).await;
    alice.hears_nothing().await;
    alice.send(&json!({"type": "radius", "radius_m": 50_000})).await;
    assert_eq!(alice.reads("nearby").await["friends"][0]["id"], "2");
    bob.moves(north(40_000.0)).await;
    alice.sees(BOB, 40_000.0).await;
    for bad in [json!(0), json!(-1), json!(50_001), json!("far"), json!(null)] {
        alice.send(&json!({"type": "radius", "radius_m": bad})).await;
        assert_eq!(alice.is_told("bad_value").await["field"], "radius_m");
    }
}

#[tokio::test]
async fn a_silent_reconnect_loses_nothing() {
    let server = Server::start().await;
    server.friends(ALICE, BOB).await;
    let mut alice = server.at(ALICE, HERE).await;
    let bob = server.at(BOB, north(500.0)).await;
    alice.sees(BOB, 500.0).await;
    drop(alice);
    let (mut alice, nearby) = server.joins(ALICE, HERE).await;
    assert_eq!(nearby["friends"][0]["id"], "2");
    drop(bob);
    let mut bob = server.at(BOB, north(600.0)).await;
    alice.sees(BOB, 600.0).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    bob.moves(north(700.0)).await;
    alice.sees(BOB, 700.0).await;
}
