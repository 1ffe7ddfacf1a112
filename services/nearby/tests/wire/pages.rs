//! More near friends than fit on one page.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::server::Server;
use crate::site::{HERE, Site, north, now, position};

const ALICE: u64 = 1;
const FIRST_FRIEND: u64 = 100;

/// Alice, and so many friends who are near: number n at 10 n metres.
async fn crowd(server: &Site, friends: u64) {
    server.know(&[ALICE]).await;
    for n in 0..friends {
        let friend = FIRST_FRIEND + n;
        server.friends(ALICE, friend).await;
        server.post(friend, &position(north(10.0 * n as f64), now())).await.ok();
    }
}

fn ids(nearby: &Value) -> Vec<u64> {
    let friends = nearby["friends"].as_array().unwrap();
    friends.iter().map(|friend| friend["id"].as_str().unwrap().parse().unwrap()).collect()
}

#[tokio::test]
async fn the_first_page_holds_twenty_and_more_the_rest_and_pushes_come_from_all() {
    let server = Server::start().await;
    crowd(&server, 21).await;
    let (mut alice, first) = server.joins(ALICE, HERE).await;
    assert_eq!(ids(&first), (FIRST_FRIEND..FIRST_FRIEND + 20).collect::<Vec<_>>());
    alice.send(&json!({"type": "more", "cursor": first["next_cursor"]})).await;
    let last = alice.reads("nearby").await;
    assert_eq!((ids(&last), &last["next_cursor"]), (vec![FIRST_FRIEND + 20], &Value::Null));

    // Who is on the last page is told of all the same.
    let mut last_friend = server.at(FIRST_FRIEND + 20, north(250.0)).await;
    alice.sees(FIRST_FRIEND + 20, 250.0).await;
    last_friend.moves(north(260.0)).await;
    alice.sees(FIRST_FRIEND + 20, 260.0).await;
}

#[tokio::test]
async fn the_call_without_a_connection_pages_alike() {
    let server = Server::start().await;
    crowd(&server, 5).await;
    let query = format!("/v1/nearby?lat={}&lon={}&limit=2", HERE.0, HERE.1);
    let mut path = query.clone();
    let mut seen = Vec::new();
    loop {
        let page = server.get(ALICE, &path).await.ok();
        assert!(ids(&page).len() <= 2, "{page}");
        seen.extend(ids(&page));
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        path = format!("{query}&cursor={cursor}");
    }
    assert_eq!(seen, (FIRST_FRIEND..FIRST_FRIEND + 5).collect::<Vec<_>>());
    // The list is one list, whoever asks: a cursor of the one serves for the other.
    let first = server.get(ALICE, &query).await.ok();
    let mut alice = server.at(ALICE, HERE).await;
    alice.send(&json!({"type": "more", "cursor": first["next_cursor"]})).await;
    assert_eq!(ids(&alice.reads("nearby").await), [FIRST_FRIEND + 2, FIRST_FRIEND + 3]);
    alice.hears_nothing().await;
}

/// Pages are made by the connection's task and news written by another: on several threads, so that they meet.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_frame_shows_an_older_position_than_the_one_before() {
    const PAGES: usize = 1_500;
    let server = Server::with(|config| {
        config.limits.updates_per_second = 1_000_000.0;
        config.limits.update_burst = 1_000_000;
    })
    .await;
    server.friends(ALICE, FIRST_FRIEND).await;
    let (mut bob, _) = server.joins(FIRST_FRIEND, HERE).await;
    let (mut alice, _) = server.joins(ALICE, HERE).await;
    let begun = now();
    let mut moves = JoinSet::new();
    moves.spawn(async move {
        // A millisecond later each, of which a device may be two minutes ahead.
        for step in 1_u32.. {
            let mut frame = position(north(f64::from(step % 100)), begun + u64::from(step));
            frame["type"] = "location".into();
            bob.send(&frame).await;
            if step % 8 == 0 {
                sleep(Duration::from_millis(1)).await;
            }
        }
    });
    let (mut pushes, mut newest) = (0, 0);
    for page in 0..PAGES {
        // Moves come meanwhile, and with the page.
        sleep(Duration::from_millis(1)).await;
        alice.send(&json!({"type": "radius", "radius_m": 1_000 + page})).await;
        loop {
            let frame = alice.read().await;
            let is_page = frame["type"] == "nearby";
            let shown = if is_page { &frame["friends"][0]["ts"] } else { &frame["ts"] };
            let shown = shown.as_u64().unwrap_or_else(|| panic!("no position: {frame}"));
            assert!(shown >= newest, "{shown} after {newest}, on page {page}: {frame}");
            newest = shown;
            if is_page {
                break;
            }
            pushes += 1;
        }
    }
    assert!(pushes > PAGES / 10, "only {pushes} pushes between the pages");
}
