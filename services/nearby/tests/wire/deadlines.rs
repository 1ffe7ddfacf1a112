//! How long the server waits for whom.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::raw::{Raw, frame, head};
use crate::server::Server;

const ALICE: u64 = 1;

/// What a busy machine may add.
const LATE: f64 = 2.0;

#[track_caller]
fn within(began: Instant, from: f64, to: f64) {
    let took = began.elapsed().as_secs_f64();
    assert!(took > from && took < to + LATE, "{took} s");
}

#[tokio::test]
async fn who_says_nothing_or_too_little_is_closed_in_time() {
    let server = Server::start().await;
    server.know(&[ALICE]).await;
    let at = Instant::now();
    let silent = async {
        let mut raw = Raw::connect(server.address).await;
        raw.rest(Duration::from_secs(9)).await;
        within(at, 4.5, 5.0);
    };
    let slowloris = async {
        let mut raw = Raw::connect(server.address).await;
        let request = b"GET /livez HTTP/1.1\r\nhost: nearby\r\nx-slow: aaaaaaaaaaaaaaa";
        for byte in request {
            if !raw.try_send(&[*byte], Duration::from_secs(1)).await || raw.is_closed() {
                break;
            }
            sleep(Duration::from_millis(500)).await;
        }
        raw.rest(Duration::from_secs(3)).await;
        within(at, 4.5, 6.0);
    };
    let idle = async {
        let mut raw = Raw::connect(server.address).await;
        raw.send(b"GET /livez HTTP/1.1\r\nhost: nearby\r\n\r\n").await;
        let answer = raw.rest(Duration::from_secs(9)).await;
        assert!(answer.starts_with(b"HTTP/1.1 200"));
        within(at, 4.5, 5.0);
    };
    let slow_body = async {
        let mut raw = Raw::connect(server.address).await;
        let token = server.token(ALICE);
        let request = format!(
            "POST /v1/locations HTTP/1.1\r\nhost: nearby\r\nauthorization: Bearer {token}\r\n\
             content-length: 1000\r\n\r\n"
        );
        raw.send(request.as_bytes()).await;
        for _ in 0..40 {
            if !raw.try_send(b" ", Duration::from_secs(1)).await || raw.is_closed() {
                break;
            }
            sleep(Duration::from_millis(500)).await;
        }
        raw.rest(Duration::from_secs(1)).await;
        within(at, 4.5, 10.0);
    };
    let unread_answers = async {
        let mut raw = Raw::narrow(server.address).await;
        let ask = "GET /openapi.json HTTP/1.1\r\nhost: nearby\r\n\r\n";
        raw.send(ask.repeat(20).as_bytes()).await;
        sleep(Duration::from_secs(16)).await;
        // Nothing is written any more: what the kernel has is the rest.
        let held = raw.in_kernel().await;
        let rest = raw.rest(Duration::from_secs(1)).await;
        assert!(rest.len() <= held, "{} bytes came, {held} were in the kernel", rest.len());
    };
    let without_init = async {
        let mut raw = Raw::connect(server.address).await;
        raw.upgrade(&server, ALICE, "").await;
        // Pings are no `init`.
        for _ in 0..8 {
            raw.send(&frame(0x89, b"")).await;
            assert_eq!(raw.frame().await.unwrap().first, 0x8a);
            sleep(Duration::from_millis(500)).await;
        }
        sleep(Duration::from_secs(3)).await;
        assert_eq!(raw.up_to_the_end().await.1, Some(4408));
        within(at, 9.5, 11.0);
    };
    let half_a_frame = async {
        let mut raw = Raw::connect(server.address).await;
        raw.upgrade(&server, ALICE, "").await;
        let mut half = head(0x81, 500);
        half.extend_from_slice(b"{\"type\":\"init\",");
        raw.send(&half).await;
        sleep(Duration::from_secs(5)).await;
        assert_eq!(raw.up_to_the_end().await.1, Some(4408));
        within(at, 9.5, 11.0);
    };
    tokio::join!(silent, slowloris, idle, slow_body, unread_answers, without_init, half_a_frame);
}
