//! A user who is deleted while they and their friends are connected.

use serde_json::json;

use crate::http::request;
use crate::server::Server;
use crate::site::{HERE, north, now, position};

const ALICE: u64 = 1;
const BOB: u64 = 2;

#[tokio::test]
async fn a_deleted_user_is_gone_from_everywhere_at_once() {
    let server = Server::start().await;
    server.friends(ALICE, BOB).await;
    server.post(BOB, &position(HERE, now())).await.ok();
    let mut alice = server.at(ALICE, HERE).await;
    let mut bob = server.at(BOB, north(100.0)).await;
    let mut browser = server.connect(BOB).await;
    browser.watch().await;
    alice.sees(BOB, 100.0).await;
    let bobs = server.token(BOB);

    assert_eq!(server.backend_asks("DELETE", "/v1/users/2", None).await.status, 204);
    bob.is_closed(4403).await;
    browser.is_closed(4403).await;
    alice.loses(BOB, "hidden").await;
    alice.reads_of("friend_removed", BOB).await;
    for (method, path) in [("GET", "/v1/nearby"), ("GET", "/v1/me"), ("GET", "/v1/users/2/history")] {
        request(server.address, method, path, Some(&bobs), None).await.problem(404);
    }
    server.post(BOB, &position(HERE, now())).await.problem(404);
    assert_eq!(server.get(ALICE, "/v1/nearby").await.ok()["friends"], json!([]));
    assert_eq!(server.get(ALICE, "/v1/me/friends").await.ok()["items"], json!([]));

    // Whoever is given the number next finds nothing of him.
    server.know(&[BOB]).await;
    assert_eq!(server.get(BOB, "/v1/users/2/history").await.ok()["items"], json!([]));
    assert_eq!(server.get(BOB, "/v1/nearby").await.ok()["friends"], json!([]));
    let (_bob, nearby) = server.joins(BOB, HERE).await;
    assert_eq!(nearby["friends"], json!([]));
    alice.hears_nothing().await;
}

#[tokio::test]
async fn positions_sent_while_the_user_is_deleted_do_not_come_back() {
    let server = Server::start().await;
    for round in 0..5 {
        server.friends(ALICE, BOB).await;
        let mut alice = server.at(ALICE, HERE).await;
        let mut bob = server.at(BOB, HERE).await;
        alice.sees(BOB, 0.0).await;
        let flood = async {
            for step in 0..15 {
                let place = north(f64::from(step));
                if !bob
                    .try_send(&json!({"type": "location", "lat": place.0, "lon": place.1, "ts": now() + step as u64}))
                    .await
                {
                    break;
                }
            }
        };
        let posts = async {
            for step in 0..5 {
                // Taken or refused, both are right; which it was does not matter afterwards.
                server.post(BOB, &position(north(f64::from(step)), now())).await;
            }
        };
        let delete = async {
            tokio::time::sleep(std::time::Duration::from_millis(round)).await;
            assert_eq!(server.backend_asks("DELETE", "/v1/users/2", None).await.status, 204);
        };
        tokio::join!(flood, posts, delete);
        bob.is_closed(4403).await;
        server.know(&[BOB]).await;
        server.befriend(ALICE, BOB).await;
        let points = server.get(BOB, "/v1/users/2/history").await.ok();
        assert_eq!(points["items"], json!([]), "round {round}");
        assert_eq!(server.get(ALICE, "/v1/nearby").await.ok()["friends"], json!([]), "round {round}");
        server.unfriend(ALICE, BOB).await;
    }
}
