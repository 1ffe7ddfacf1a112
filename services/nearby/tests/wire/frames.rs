//! Frames that are wrong, and frames that only look so.

use std::time::Duration;

use serde_json::json;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use crate::client::Client;
use crate::raw::{Raw, frame, head};
use crate::server::Server;
use crate::site::{HERE, north, now};

const ALICE: u64 = 1;
const BOB: u64 = 2;

const TEXT: u8 = 0x81;
const BINARY: u8 = 0x82;
/// The first and a middle fragment of a text that does not end.
const TEXT_BEGINS: u8 = 0x01;
const GOES_ON: u8 = 0x00;

#[tokio::test]
async fn a_wrong_frame_is_answered_and_changes_nothing() {
    let server = Server::start().await;
    server.friends(ALICE, BOB).await;
    let mut alice = server.at(ALICE, HERE).await;
    let mut bob = server.at(BOB, north(100.0)).await;
    alice.sees(BOB, 100.0).await;
    let ts = now() + 10;
    let cases = [
        ("{\"type\":\"jump\"}", "unknown_type", "type"),
        ("{\"type\":7}", "bad_json", ""),
        ("{}", "bad_value", "type"),
        ("[]", "bad_json", ""),
        ("{\"type\":\"location\"", "bad_json", ""),
        ("nearby?", "bad_json", ""),
        ("", "bad_json", ""),
        (&format!("{{\"type\":\"location\",\"lat\":NaN,\"lon\":0,\"ts\":{ts}}}"), "bad_json", ""),
        (&format!("{{\"type\":\"location\",\"lat\":1e999,\"lon\":0,\"ts\":{ts}}}"), "bad_json", ""),
        (&format!("{{\"type\":\"location\",\"lat\":\"NaN\",\"lon\":0,\"ts\":{ts}}}"), "bad_value", "lat"),
        (&format!("{{\"type\":\"location\",\"lat\":91,\"lon\":0,\"ts\":{ts}}}"), "bad_value", "lat"),
        (&format!("{{\"type\":\"location\",\"lat\":0,\"lon\":180.001,\"ts\":{ts}}}"), "bad_value", "lon"),
        (&format!("{{\"type\":\"location\",\"lat\":0,\"lon\":0,\"lat\":1,\"ts\":{ts}}}"), "bad_json", ""),
        (&format!("{{\"type\":\"location\",\"lat\":0,\"ts\":{ts}}}"), "bad_value", "lon"),
        ("{\"type\":\"location\",\"lat\":0,\"lon\":0}", "bad_value", "ts"),
        ("{\"type\":\"location\",\"lat\":0,\"lon\":0,\"ts\":-1}", "bad_value", "ts"),
        ("{\"type\":\"location\",\"lat\":0,\"lon\":0,\"ts\":1.5}", "bad_value", "ts"),
        (&format!("{{\"type\":\"location\",\"lat\":0,\"lon\":0,\"ts\":{}}}", ts + 200_000), "bad_value", "ts"),
        (&format!("{{\"type\":\"location\",\"lat\":0,\"lon\":0,\"ts\":{}}}", ts / 1_000), "bad_value", "ts"),
        (
            &format!("{{\"type\":\"location\",\"lat\":0,\"lon\":0,\"ts\":{ts},\"heading_deg\":400}}"),
            "bad_value",
            "heading_deg",
        ),
        (
            &format!("{{\"type\":\"location\",\"lat\":0,\"lon\":0,\"ts\":{ts},\"sent_at\":\"now\"}}"),
            "bad_value",
            "sent_at",
        ),
        ("{\"type\":\"more\",\"cursor\":\"made up\"}", "bad_value", "cursor"),
        ("{\"type\":\"more\"}", "bad_value", "cursor"),
        ("{\"type\":\"auth\"}", "bad_value", "token"),
    ];
    for (text, code, field) in cases {
        bob.send_message(Message::text(text)).await;
        let error = bob.is_told(code).await;
        assert_eq!(error["field"].as_str().unwrap_or_default(), field, "{text}: {error}");
    }
    alice.hears_nothing().await;
    bob.moves(north(200.0)).await;
    alice.sees(BOB, 200.0).await;
}

#[tokio::test]
async fn a_position_that_is_too_old_is_taken_and_its_sender_is_told_once() {
    let server = Server::with(|config| config.limits.update_burst = 1_000).await;
    server.friends(ALICE, BOB).await;
    let mut alice = server.at(ALICE, HERE).await;
    let old = |seconds: u64| json!({"lat": north(100.0).0, "lon": HERE.1, "ts": now() - 86_400_000 + seconds});
    let mut bob = server.connect(BOB).await;
    let mut init = old(0);
    init["type"] = json!("init");
    bob.send(&init).await;
    assert_eq!(bob.reads("nearby").await["friends"], json!([]));
    let notice = bob.reads("notice").await;
    assert_eq!(notice["code"], "too_old");
    assert!(notice["message"].as_str().unwrap().contains("sent_at"), "{notice}");
    // More than may be refused in a row: none of them is.
    for seconds in 1..=150 {
        let mut location = old(seconds);
        location["type"] = json!("location");
        bob.send(&location).await;
    }
    alice.hears_nothing().await;
    // By a clock that is a day slow, and says so.
    let mut location = old(200);
    location["type"] = json!("location");
    location["sent_at"] = json!(location["ts"].as_u64().unwrap() + 1_000);
    bob.send(&location).await;
    alice.sees(BOB, 100.0).await;
    bob.sees(ALICE, 100.0).await;
    bob.is_alive().await;
}

#[tokio::test]
async fn both_spellings_of_the_date_line_and_the_poles_are_places() {
    let server = Server::start().await;
    server.friends(ALICE, BOB).await;
    let mut alice = server.at(ALICE, (0.0, 180.0)).await;
    let mut bob = server.at(BOB, (0.0, -180.0)).await;
    alice.sees(BOB, 0.0).await;
    alice.moves((90.0, 0.0)).await;
    alice.loses(BOB, "out_of_range").await;
    bob.loses(ALICE, "out_of_range").await;
    bob.moves((90.0, 123.0)).await;
    alice.sees(BOB, 0.0).await;
    bob.moves((-90.0, 0.0)).await;
    alice.loses(BOB, "out_of_range").await;
}

#[tokio::test]
async fn what_is_no_text_of_ours_or_too_large_is_closed_with_a_code() {
    let server = Server::start().await;
    server.know(&[ALICE]).await;
    let large = |fill: usize| format!("{{\"type\":\"jump\",\"pad\":\"{}\"}}", "x".repeat(fill));
    // Up to 16 KiB is looked at.
    let mut alice = server.at(ALICE, HERE).await;
    alice.send_message(Message::text(large(16 * 1024 - 30))).await;
    alice.is_told("unknown_type").await;
    alice.send_message(Message::text(large(17 * 1024))).await;
    alice.is_closed(1009).await;

    let mut alice = server.at(ALICE, HERE).await;
    alice.send_message(Message::binary(b"{\"type\":\"init\"}".to_vec())).await;
    alice.is_closed(1008).await;

    let unmasked = [&[TEXT, 2][..], b"{}"].concat();
    let cases = [
        ("not UTF-8", frame(TEXT, b"\xff\xfe{}"), 1008),
        ("binary", frame(BINARY, b"{}"), 1008),
        ("unmasked", unmasked, 1008),
        ("compressed, which was not agreed on", frame(0xc1, b"\xaa\x56\x2a\x01"), 1008),
        ("RSV2", frame(0xa1, b"{}"), 1008),
        ("an opcode that there is not", frame(0x83, b"{}"), 1008),
        ("a control frame in fragments", frame(0x09, b""), 1008),
        ("a ping that is too long", frame(0x89, &[b'x'; 126]), 1008),
        ("goes on with nothing", frame(GOES_ON, b"{}"), 1008),
        ("announced as 17 KiB", head(TEXT, 17 * 1024), 1009),
        ("announced as 8 exabytes", head(TEXT, u64::MAX / 2), 1009),
        ("a cut UTF-8 in fragments", [frame(TEXT_BEGINS, b"\xe2\x82"), frame(0x80, b"(")].concat(), 1008),
    ];
    for (what, bytes, code) in cases {
        let mut raw = Raw::connect(server.address).await;
        raw.upgrade(&server, ALICE, "").await;
        raw.send(&bytes).await;
        assert_eq!(raw.up_to_the_end().await.1, Some(code), "{what}");
        assert!(raw.rest(Duration::from_secs(5)).await.is_empty(), "{what}");
    }
}

#[tokio::test]
async fn a_message_in_endless_fragments_ends_before_it_is_large() {
    let server = Server::start().await;
    server.know(&[ALICE]).await;
    let mut raw = Raw::connect(server.address).await;
    raw.upgrade(&server, ALICE, "").await;
    raw.send(&frame(TEXT_BEGINS, b"{\"type\":\"")).await;
    let fragment = frame(GOES_ON, &[b'x'; 1_000]);
    let mut taken = 0;
    // Far more than the kernel's buffers hold.
    while taken < 20_000 && raw.try_send(&fragment, Duration::from_secs(2)).await {
        taken += 1;
    }
    assert!(taken < 20_000, "20 MB were taken");
    assert_eq!(raw.up_to_the_end().await.1, Some(1009));

    // Fragments that add nothing cost nothing, and do not hide the frames between them.
    let mut raw = Raw::connect(server.address).await;
    raw.upgrade(&server, ALICE, "").await;
    raw.send(&frame(TEXT_BEGINS, b"{\"type\":")).await;
    for _ in 0..1_000 {
        raw.send(&frame(GOES_ON, b"")).await;
    }
    raw.send(&frame(0x89, b"there?")).await;
    assert_eq!(raw.frame().await.unwrap().payload, b"there?");
    raw.send(&frame(0x80, b"\"jump\"}")).await;
    assert_eq!(raw.frame().await.unwrap().json()["code"], "unknown_type");
}

#[tokio::test]
async fn no_extension_is_agreed_on() {
    let server = Server::start().await;
    server.know(&[ALICE]).await;
    let mut raw = Raw::connect(server.address).await;
    let offer = "sec-websocket-extensions: permessage-deflate; client_max_window_bits\r\n";
    let answer = raw.upgrade(&server, ALICE, offer).await;
    assert_eq!(answer.status, 101, "{answer:?}");
    assert_eq!(answer.header("sec-websocket-extensions"), None, "{answer:?}");
}

#[tokio::test]
async fn a_ping_is_answered_and_a_close_too() {
    let server = Server::start().await;
    server.know(&[ALICE]).await;
    let mut alice = server.at(ALICE, HERE).await;
    alice.send_message(Message::Ping(b"there?".to_vec().into())).await;
    assert_eq!(alice.message().await.unwrap().unwrap(), Message::Pong(b"there?".to_vec().into()));
    // A browser that hears no close in return takes the connection for broken.
    let close = CloseFrame { code: CloseCode::Normal, reason: "bye".into() };
    alice.send_message(Message::Close(Some(close))).await;
    alice.is_closed(1000).await;
}

#[tokio::test]
async fn the_first_frame_is_init_and_only_that() {
    let server = Server::start().await;
    server.know(&[ALICE]).await;
    let mut alice: Client = server.connect(ALICE).await;
    alice.moves(HERE).await;
    alice.is_told("not_initialized").await;
    for early in [json!({"type": "radius", "radius_m": 500})] {
        alice.send(&early).await;
        alice.is_told("not_initialized").await;
    }
    for (wrong, field) in [
        (json!({"type": "init", "lat": HERE.0, "lon": HERE.1}), "ts"),
        (json!({"type": "init", "lat": HERE.0, "lon": HERE.1, "ts": now(), "radius_m": 60_000}), "radius_m"),
        (json!({"type": "init", "lat": HERE.0, "lon": HERE.1, "ts": now(), "limit": 101}), "limit"),
    ] {
        alice.send(&wrong).await;
        assert_eq!(alice.is_told("bad_value").await["field"], field);
    }
    alice.init(HERE).await;
    alice.send(&json!({"type": "init", "lat": HERE.0, "lon": HERE.1, "ts": now()})).await;
    alice.is_told("already_initialized").await;
    alice.is_alive().await;
}
