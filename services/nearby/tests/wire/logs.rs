//! What the server writes to its log, however much it is asked to say.

use rustix::process::Signal;
use serde_json::json;

use crate::client::{try_connect, upgrade};
use crate::process::Process;
use crate::site::{now, position};

const ALICE: u64 = 1;
const BOB: u64 = 2;

#[tokio::test]
async fn neither_positions_nor_tokens_are_in_the_log() {
    for format in ["text", "json"] {
        let dir = tempfile::tempdir().unwrap();
        let variables =
            [("NEARBY_LOG__LEVEL", "trace"), ("NEARBY_LOG__FORMAT", format), ("NEARBY_SERVER__DRAIN_MS", "50")];
        let server = Process::start(dir.path(), &variables).await;
        server.friends(ALICE, BOB).await;
        // Digits that nothing else has.
        let (here, there, wrong) = ((48.137_154, 11.576_124), (48.137_354, 11.576_824), (48.137_154, 911.576_124));
        let (alices, bobs) = (server.token(ALICE), server.token(BOB));

        let mut alice = server.at(ALICE, here).await;
        let mut request = upgrade(server.address);
        let offered = format!("nearby.v1.json, bearer.{bobs}");
        request.headers_mut().insert("sec-websocket-protocol", offered.parse().unwrap());
        let (mut bob, _) = try_connect(server.address, request).await.unwrap_or_else(|no| panic!("{no:?}"));
        bob.init(there).await;
        alice.reads_of("friend", BOB).await;
        bob.moves(wrong).await;
        bob.is_told("bad_value").await;
        bob.send(&json!({"type": "location", "lat": here.0, "lon": here.1, "ts": now() + 1_000_000})).await;
        bob.is_told("bad_value").await;
        bob.send(&json!({"type": "auth", "token": &bobs})).await;
        bob.send(&json!({"type": "auth", "token": format!("{alices}x")})).await;
        bob.is_told("bad_token").await;
        bob.send(&json!({"type": "auth", "token": &alices})).await;
        bob.is_told("bad_token").await;
        server.post(BOB, &position(here, now())).await.ok();
        server.post(BOB, &position(wrong, now())).await.problem(400);
        let look = format!("/v1/nearby?lat={}&lon={}", there.0, there.1);
        server.get(ALICE, &look).await.ok();
        server.get(ALICE, &format!("/v1/nearby?lat={}&lon={}", wrong.0, wrong.1)).await.problem(400);
        crate::http::request(server.address, "GET", &format!("/v1/ws?token={alices}"), None, None).await.problem(400);
        crate::http::request(server.address, "GET", &look, Some(&format!("{alices}x")), None).await.problem(401);
        server.get(BOB, "/v1/users/2/history").await.ok();
        server.unfriend(ALICE, BOB).await;
        assert_eq!(server.backend_asks("DELETE", "/v1/users/2", None).await.status, 204);
        bob.is_closed(4403).await;
        server.signal(Signal::TERM);
        alice.is_closed(1012).await;
        let (status, log) = server.ended().await;
        assert_eq!(status.code(), Some(0), "{log}");

        // There is something in it, so that what is not in it means something.
        assert!(log.contains("TRACE") || log.contains("DEBUG"), "{log}");
        for secret in ["137154", "137354", "576124", "576824", "48.1", "11.57"] {
            let line = log.lines().find(|line| line.contains(secret));
            assert_eq!(line, None, "a position is in the log");
        }
        for token in [alices, bobs] {
            for part in token.split('.').skip(1) {
                let line = log.lines().find(|line| line.contains(part));
                assert_eq!(line, None, "a part of a token is in the log");
            }
        }
    }
}
