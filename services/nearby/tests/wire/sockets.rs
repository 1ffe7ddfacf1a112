//! RFC 6455 in raw bytes: messages that come in pieces of any kind, and closes of any kind.

use std::time::Duration;

use crate::raw::{Raw, frame, head};
use crate::server::Server;

const ALICE: u64 = 1;

const TEXT: u8 = 0x81;
const TEXT_BEGINS: u8 = 0x01;
const GOES_ON: u8 = 0x00;
const ENDS: u8 = 0x80;
const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;
const PONG: u8 = 0x8a;

async fn server() -> Server {
    let server = Server::with(|config| config.limits.update_burst = 1_000).await;
    server.know(&[ALICE]).await;
    server
}

async fn upgraded(server: &Server) -> Raw {
    let mut raw = Raw::connect(server.address).await;
    assert_eq!(raw.upgrade(server, ALICE, "").await.status, 101);
    raw
}

/// The next frame is the answer to a message that means nothing.
async fn is_answered(raw: &mut Raw, code: &str) {
    assert_eq!(raw.frame().await.unwrap().json()["code"], code);
}

/// A masked frame with a mask that changes something.
fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [0x37, 0xfa, 0x21, 0x3d];
    let mut bytes = head(first, payload.len() as u64);
    let at = bytes.len() - 4;
    bytes[at..].copy_from_slice(&mask);
    bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

#[tokio::test]
async fn the_handshake_is_that_of_the_rfc() {
    let server = server().await;
    let mut raw = Raw::connect(server.address).await;
    let answer = raw.upgrade(&server, ALICE, "sec-websocket-protocol: other, nearby.v1.json\r\n").await;
    assert_eq!(answer.status, 101);
    // The example of RFC 6455, 1.3.
    assert_eq!(answer.header("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    assert_eq!(answer.header("sec-websocket-protocol"), Some("nearby.v1.json"));
    assert_eq!(answer.header("upgrade"), Some("websocket"));
    assert_eq!(answer.header("content-length"), None);
    let mut raw = Raw::connect(server.address).await;
    assert_eq!(raw.upgrade(&server, ALICE, "").await.header("sec-websocket-protocol"), None);

    let good = "GET /v1/ws HTTP/1.1\r\nhost: nearby\r\nconnection: close, Upgrade\r\nupgrade: websocket\r\n\
                sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    for (part, other) in [
        ("GET", "HEAD"),
        ("HTTP/1.1", "HTTP/1.0"),
        ("close, Upgrade", "close"),
        ("upgrade: websocket", "upgrade: h2c"),
        ("version: 13", "version: 8"),
        ("key: dGhlIHNhbXBsZSBub25jZQ==", "no-key: x"),
        ("host: nearby", "host: nearby"),
    ] {
        let mut raw = Raw::connect(server.address).await;
        raw.send(good.replace(part, other).as_bytes()).await;
        // The whole of it lacks only the token.
        let status = if part == other { "401" } else { "400" };
        raw.wait_for(format!(" {status} ").as_bytes()).await;
    }
}

#[tokio::test]
async fn frames_come_in_any_pieces() {
    let server = server().await;
    let mut raw = upgraded(&server).await;
    // With the request, and several in one packet.
    let both = [masked(TEXT, b"{\"type\":\"jump\"}"), masked(PING, b"p"), masked(TEXT, b"{\"type\":7}")].concat();
    raw.send(&both).await;
    is_answered(&mut raw, "unknown_type").await;
    assert_eq!(raw.frame().await.unwrap().payload, b"p");
    is_answered(&mut raw, "bad_json").await;

    // A text in fragments with a ping, a pong and nothing in between, and a sign cut in two.
    let pieces = [
        masked(TEXT_BEGINS, b"{\"type\":\"jump\",\"pad\":\"\xe2\x82"),
        masked(PING, b"still there?"),
        masked(PONG, b""),
        masked(GOES_ON, b""),
        masked(GOES_ON, b"\xac"),
        masked(PING, &[b'x'; 125]),
        masked(ENDS, b"\"}"),
    ];
    let all = pieces.concat();
    for pieces in [vec![&all[..]], all.chunks(7).collect(), all.chunks(1).collect()] {
        for piece in pieces {
            raw.send(piece).await;
            tokio::task::yield_now().await;
        }
        assert_eq!(raw.frame().await.unwrap().payload, b"still there?");
        let pong = raw.frame().await.unwrap();
        assert_eq!((pong.first, pong.payload), (PONG, vec![b'x'; 125]));
        is_answered(&mut raw, "unknown_type").await;
    }

    // Every length at which a head changes, up to the largest message.
    for length in [125, 126, 127, 16 * 1024] {
        let text = format!("{{\"type\":\"jump\",\"pad\":\"{}\"}}", "x".repeat(length - 24));
        assert_eq!(text.len(), length);
        raw.send(&masked(TEXT, text.as_bytes())).await;
        is_answered(&mut raw, "unknown_type").await;
        raw.send(&[masked(TEXT_BEGINS, &text.as_bytes()[..100]), masked(ENDS, &text.as_bytes()[100..])].concat()).await;
        is_answered(&mut raw, "unknown_type").await;
    }
}

#[tokio::test]
async fn what_is_sent_with_the_request_is_heard() {
    let server = server().await;
    let mut raw = Raw::connect(server.address).await;
    let request = format!(
        "GET /v1/ws HTTP/1.1\r\nhost: nearby\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nauthorization: Bearer {}\r\n\r\n",
        server.token(ALICE)
    );
    raw.send(&[request.as_bytes(), &masked(TEXT, b"{\"type\":\"jump\"}")].concat()).await;
    raw.wait_for(b"unknown_type").await;
}

#[tokio::test]
async fn what_breaks_the_rules_is_closed_with_a_code() {
    let server = server().await;
    let fragments = |each: usize, count: usize| {
        let middle = masked(GOES_ON, &vec![b' '; each]).repeat(count);
        [masked(TEXT_BEGINS, b"{"), middle, masked(ENDS, b"}")].concat()
    };
    let cases = [
        ("not UTF-8", masked(TEXT, b"{\"type\":\"\xc3\x28\"}"), 1008),
        ("a surrogate", masked(TEXT, b"\xed\xa0\x80"), 1008),
        ("a sign that does not end", masked(TEXT, b"{}\xe2\x82"), 1008),
        ("unmasked", vec![TEXT, 2, b'{', b'}'], 1008),
        ("an unmasked ping", vec![PING, 0], 1008),
        ("a text within a text", [masked(TEXT_BEGINS, b"{"), masked(TEXT, b"{}")].concat(), 1008),
        ("reserved for data", masked(0x87, b""), 1008),
        ("reserved for control", masked(0x8b, b""), 1008),
        ("reserved within a text", [masked(TEXT_BEGINS, b"{"), masked(0x8f, b"")].concat(), 1008),
        ("RSV3", masked(0x91, b"{}"), 1008),
        ("RSV1 on a ping", masked(0xc9, b""), 1008),
        ("a long pong", masked(PONG, &[0; 126]), 1008),
        ("a close in fragments", masked(0x08, b""), 1008),
        ("half a code", masked(CLOSE, b"\x03"), 1008),
        ("a code that is not sent", masked(CLOSE, &1005u16.to_be_bytes()), 1008),
        ("a code that there is not", masked(CLOSE, &2999u16.to_be_bytes()), 1008),
        ("a reason that is no text", masked(CLOSE, b"\x03\xe8\xff"), 1008),
        ("one byte too many", masked(TEXT, &vec![b' '; 16 * 1024 + 1]), 1009),
        ("one byte too many, in fragments", fragments(1_000, 17), 1009),
        ("in two", [masked(TEXT_BEGINS, &[b' '; 16_000]), masked(ENDS, &[b' '; 385])].concat(), 1009),
        ("a length above all lengths", head(TEXT, u64::MAX), 1009),
    ];
    for (what, bytes, code) in cases {
        let mut raw = upgraded(&server).await;
        raw.send(&bytes).await;
        let (frames, closed) = raw.up_to_the_end().await;
        assert_eq!((frames.len(), closed), (0, Some(code)), "{what}");
        // The client's answer is waited for, and not longer.
        raw.send(&masked(CLOSE, &code.to_be_bytes())).await;
        assert!(raw.rest(Duration::from_secs(5)).await.is_empty(), "{what}");
    }
}

#[tokio::test]
async fn a_close_is_answered_with_the_same_and_nothing_comes_after_it() {
    let server = server().await;
    for payload in [&b""[..], b"\x03\xe8", b"\x03\xe9bye", b"\x0f\xa0", b"\x13\x87"] {
        let mut raw = upgraded(&server).await;
        // What comes after a close is not looked at.
        raw.send(&[masked(CLOSE, payload), frame(TEXT, b"{\"type\":\"jump\"}")].concat()).await;
        let close = raw.frame().await.unwrap();
        assert_eq!((close.first, &close.payload[..]), (CLOSE, &payload[..payload.len().min(2)]));
        assert_eq!(raw.frame().await, None);
    }
    // Also in the middle of a message.
    let mut raw = upgraded(&server).await;
    raw.send(&[masked(TEXT_BEGINS, b"{"), masked(CLOSE, b"\x03\xe8")].concat()).await;
    assert_eq!(raw.frame().await.unwrap().close_code(), Some(1000));
    assert_eq!(raw.frame().await, None);
}

#[tokio::test]
async fn many_small_frames_cost_no_more_than_their_bytes() {
    let server = server().await;
    let mut raw = upgraded(&server).await;
    let mut bytes = masked(PONG, b"").repeat(50_000);
    bytes.extend(masked(TEXT, b"{\"type\":\"jump\"}"));
    raw.send(&bytes).await;
    is_answered(&mut raw, "unknown_type").await;
}
