//! Requests that are meant to cost the server more than the client, or to be understood in two ways.

use std::time::Duration;

use crate::http::{Answer, request};
use crate::raw::Raw;
use crate::server::Server;

const ALICE: u64 = 1;

/// Refused at once, not by a timeout.
const QUICKLY: Duration = Duration::from_secs(3);

/// The answer to these bytes, which ends the connection.
async fn answer_to(server: &Server, bytes: &[u8]) -> Option<Answer> {
    let mut raw = Raw::connect(server.address).await;
    raw.try_send(bytes, QUICKLY).await;
    Answer::parse(&raw.rest(QUICKLY).await)
}

#[tokio::test]
async fn a_giant_head_is_refused_before_it_is_read() {
    let server = Server::start().await;
    let long_header = format!("GET /livez HTTP/1.1\r\nhost: nearby\r\nx-long: {}\r\n\r\n", "x".repeat(10_000));
    let many = "x-more: x\r\n".repeat(900);
    let many_headers = format!("GET /livez HTTP/1.1\r\nhost: nearby\r\n{many}\r\n");
    let long_path = format!("GET /{} HTTP/1.1\r\nhost: nearby\r\n\r\n", "x".repeat(10_000));
    let endless = "x".repeat(1_000_000);
    for (bytes, statuses) in
        [(&long_header, &[431][..]), (&many_headers, &[431]), (&long_path, &[414, 431]), (&endless, &[400, 414, 431])]
    {
        if let Some(answer) = answer_to(&server, bytes.as_bytes()).await {
            assert!(statuses.contains(&answer.status), "{answer:?}");
        }
    }
    assert_eq!(request(server.address, "GET", "/livez", None, None).await.status, 200);
}

#[tokio::test]
async fn what_can_be_read_in_two_ways_is_not_read() {
    let server = Server::start().await;
    server.know(&[ALICE]).await;
    let token = server.token(ALICE);
    for head in [
        "content-length: 5\r\ncontent-length: 6",
        "content-length: +5",
        "content-length: 5\r\ntransfer-encoding: chunked, identity",
        "transfer-encoding: x",
        "transfer-encoding : chunked",
        "host : other",
        " folded: x",
        "x\0y: z",
        "authorization: Bearer other",
    ] {
        let text = format!(
            "POST /v1/locations HTTP/1.1\r\nhost: nearby\r\nauthorization: Bearer {token}\r\n{head}\r\n\
             connection: close\r\n\r\n0\r\n\r\n"
        );
        let answer = answer_to(&server, text.as_bytes()).await.unwrap_or_else(|| panic!("no answer: {head}"));
        assert!((400..500).contains(&answer.status), "{head}: {answer:?}");
    }
    for bytes in [
        &b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..],
        b"\x16\x03\x01\x02\x00\x01",
        b"GET / HTTP/9.9\r\n\r\n",
        b"\r\n\r\n\0",
    ] {
        let answer = answer_to(&server, bytes).await;
        assert!(answer.is_none_or(|answer| answer.status >= 400), "{bytes:?}");
    }
    assert_eq!(request(server.address, "GET", "/livez", None, None).await.status, 200);
}

#[tokio::test]
async fn a_body_without_end_is_not_taken() {
    let server = Server::start().await;
    server.know(&[ALICE]).await;
    let token = server.token(ALICE);
    let begin = |token: &str| {
        format!(
            "POST /v1/locations HTTP/1.1\r\nhost: nearby\r\nauthorization: Bearer {token}\r\n\
             transfer-encoding: chunked\r\n\r\n"
        )
    };
    let chunk = format!("1000\r\n{}\r\n", " ".repeat(4_096));
    for (token, status) in [(token.as_str(), 413), ("x", 401)] {
        let mut raw = Raw::connect(server.address).await;
        raw.send(begin(token).as_bytes()).await;
        let mut taken = 0;
        while taken < 2_000 && !raw.is_closed() && raw.try_send(chunk.as_bytes(), QUICKLY).await {
            taken += 1;
        }
        assert!(taken < 2_000, "8 MB were taken");
        let answer = Answer::parse(&raw.rest(QUICKLY).await);
        assert!(answer.is_none_or(|answer| answer.status == status));
    }
}

#[tokio::test]
async fn connections_are_capped_and_given_back() {
    let server = Server::with(|config| config.server.connections_per_address = 3).await;
    let mut held = Vec::new();
    for _ in 0..3 {
        let mut raw = Raw::connect(server.address).await;
        raw.send(b"GET /livez HTTP/1.1\r\nhost: nearby\r\n\r\n").await;
        raw.wait_for(b"live\n").await;
        held.push(raw);
    }
    assert!(Raw::connect(server.address).await.rest(QUICKLY).await.is_empty());
    drop(held.pop());
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(request(server.address, "GET", "/livez", None, None).await.status, 200);
}
