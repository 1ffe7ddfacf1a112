//! Who may connect, how a token is given, and what happens when it ends.

use std::time::Duration;

use model::TimestampMs;
use serde_json::json;
use tokio::time::sleep;
use tokio_tungstenite::tungstenite::Message;
use web::Scope;

use crate::client::{Client, try_connect, upgrade};
use crate::http::{Answer, request};
use crate::server::Server;
use crate::site::{HERE, north, now};

const ALICE: u64 = 1;
const BOB: u64 = 2;
const NOBODY: u64 = 77;

async fn refused(server: &Server, name: &'static str, value: &str) -> Answer {
    let mut request = upgrade(server.address);
    request.headers_mut().insert(name, value.parse().unwrap());
    match try_connect(server.address, request).await {
        Ok(_) => panic!("let in with {name}"),
        Err(answer) => answer,
    }
}

#[tokio::test]
async fn without_a_token_that_counts_there_is_no_upgrade() {
    let server = Server::start().await;
    server.know(&[ALICE]).await;
    let Err(none) = try_connect(server.address, upgrade(server.address)).await else { panic!("let in") };
    none.problem(401);
    assert_eq!(none.header("www-authenticate"), Some("Bearer"));
    let token = server.token(ALICE);
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let forged = format!("{signed}.{}", signature.chars().rev().collect::<String>());
    let old = server.token_of("1", &[], Duration::ZERO);
    for bad in ["Bearer", "Bearer x", "Basic YTpi", &format!("Bearer {forged}"), &format!("Bearer {signed}.")] {
        refused(&server, "authorization", bad).await.problem(401);
    }
    // Its leeway has not passed yet.
    refused(&server, "authorization", &format!("Bearer {old}x")).await.problem(401);
    // In the URL it would end up in logs.
    for name in ["token", "access_token", "authorization"] {
        let path = format!("/v1/ws?{name}={token}");
        let mut with_token = upgrade(server.address);
        *with_token.uri_mut() = format!("ws://{}{path}", server.address).parse().unwrap();
        let Err(answer) = try_connect(server.address, with_token).await else { panic!("let in") };
        answer.problem(401);
    }
    // Not even asked politely.
    request(server.address, "GET", "/v1/ws", Some(&token), None).await.problem(400);
}

#[tokio::test]
async fn a_browser_gives_it_as_subprotocol_and_does_not_get_it_back() {
    let server = Server::start().await;
    server.know(&[ALICE]).await;
    let token = server.token(ALICE);
    let mut request = upgrade(server.address);
    let offered = format!("nearby.v1.json, bearer.{token}");
    request.headers_mut().insert("sec-websocket-protocol", offered.parse().unwrap());
    let (mut alice, answer) = try_connect(server.address, request).await.unwrap_or_else(|no| panic!("{no:?}"));
    assert_eq!(answer.header("sec-websocket-protocol"), Some("nearby.v1.json"));
    assert!(!format!("{answer:?}").contains(&token), "{answer:?}");
    alice.init(HERE).await;

    refused(&server, "sec-websocket-protocol", "nearby.v1.json, bearer.x").await.problem(401);
    refused(&server, "sec-websocket-protocol", "nearby.v1.json").await.problem(401);
    refused(&server, "sec-websocket-protocol", &format!("bearer.{token}")).await.wrong("Sec-WebSocket-Protocol");
    refused(&server, "sec-websocket-protocol", "graphql-ws").await.wrong("Sec-WebSocket-Protocol");
}

#[tokio::test]
async fn the_token_of_who_is_nobody_or_a_server_opens_nothing() {
    let server = Server::start().await;
    server.know(&[ALICE, BOB]).await;
    let bearer = |token: String| format!("Bearer {token}");
    refused(&server, "authorization", &bearer(server.token(NOBODY))).await.problem(404);
    refused(&server, "authorization", &bearer(server.backend())).await.problem(403);
    let history = server.token_of("1", &[Scope::History], Duration::from_secs(60));
    refused(&server, "authorization", &bearer(history)).await.problem(403);
    assert_eq!(server.backend_asks("DELETE", "/v1/users/2", None).await.status, 204);
    let deleted = refused(&server, "authorization", &bearer(server.token(BOB))).await;
    deleted.problem(404);
    // Who says `user` too, speaks for the user.
    let both = server.token_of("1", &[Scope::User, Scope::Backend], Duration::from_secs(60));
    Client::connect(server.address, &both).await.init(HERE).await;
}

#[tokio::test]
async fn a_connection_lasts_as_long_as_its_token_and_a_fresh_one_prolongs_it() {
    let server = Server::start().await;
    server.friends(ALICE, BOB).await;
    let mut short = Client::connect(server.address, &server.token_for(ALICE, Duration::from_secs(2))).await;
    let mut fresh = Client::connect(server.address, &server.token_for(ALICE, Duration::from_secs(2))).await;
    short.init(HERE).await;
    fresh.watch().await;
    fresh.send(&json!({"type": "auth", "token": server.token(BOB)})).await;
    assert_eq!(fresh.is_told("bad_token").await["field"], "token");
    for bad in ["x", "", &server.backend(), &server.token(NOBODY)] {
        fresh.send(&json!({"type": "auth", "token": bad})).await;
        let error = fresh.is_told("bad_token").await;
        assert!(bad.len() < 9 || !error.to_string().contains(bad), "{error}");
    }
    fresh.send(&json!({"type": "auth", "token": server.token(ALICE)})).await;
    short.is_closed(4401).await;
    fresh.is_alive().await;
    let _bob = server.at(BOB, north(50.0)).await;
    fresh.sees(BOB, 50.0).await;
    // A shorter one counts too: it is the newest.
    fresh.send(&json!({"type": "auth", "token": server.token_for(ALICE, Duration::from_millis(100))})).await;
    fresh.is_closed(4401).await;
}

/// The connection is closed within a second of that moment, and is told nothing in between.
#[tokio::test]
async fn nothing_is_told_that_was_sent_after_the_token_expired() {
    let server = Server::with(|config| config.limits.update_burst = 10_000).await;
    server.friends(ALICE, BOB).await;
    let until = (now() + 1_500).next_multiple_of(1_000);
    let mut alice = Client::connect(server.address, &server.token_until(ALICE, TimestampMs(until))).await;
    alice.init(HERE).await;
    let mut bob = server.at(BOB, north(50.0)).await;
    let moves = async {
        loop {
            bob.moves(north(50.0)).await;
            sleep(Duration::from_millis(5)).await;
        }
    };
    let reads = async {
        let mut newest = 0;
        while let Some(Ok(Message::Text(text))) = alice.message().await {
            let frame: serde_json::Value = serde_json::from_str(&text).unwrap();
            newest = frame["ts"].as_u64().unwrap_or_else(|| panic!("no position: {frame}"));
        }
        newest
    };
    let newest = tokio::select! {
        () = moves => unreachable!(),
        newest = reads => newest,
    };
    // The two clocks of one machine, read one after the other.
    assert!((until - 500..until + 20).contains(&newest), "{} ms after it", newest as i64 - until as i64);
}
