//! Who is no friend learns nothing, not even that there is somebody.

use serde_json::json;

use crate::http::Answer;
use crate::server::Server;
use crate::site::{HERE, now, position};

const ALICE: u64 = 1;
const STRANGER: u64 = 2;
const EX: u64 = 3;
const NOBODY: u64 = 77;

#[tokio::test]
async fn a_stranger_and_who_was_a_friend_see_an_empty_place() {
    let server = Server::start().await;
    server.know(&[STRANGER]).await;
    server.friends(ALICE, EX).await;
    server.post(ALICE, &position(HERE, now())).await.ok();
    let look = format!("/v1/nearby?lat={}&lon={}&radius_m=50000", HERE.0, HERE.1);
    assert_eq!(server.get(EX, &look).await.ok()["friends"][0]["id"], "1");
    server.unfriend(ALICE, EX).await;

    // A place with nobody in it, for comparison.
    let empty = server.get(STRANGER, "/v1/nearby?lat=-40&lon=0&radius_m=50000").await;
    for user in [STRANGER, EX] {
        assert_eq!(server.get(user, &look).await.undated(), empty.clone().undated(), "{user}");
        // A cursor that names her opens nothing either.
        let cursor = format!("{:016x}{:016x}{:02x}", 0.0f64.to_bits(), ALICE - 1, 20);
        assert_eq!(server.get(user, &format!("{look}&cursor={cursor}")).await.undated(), empty.clone().undated());
        let (mut client, nearby) = server.joins(user, HERE).await;
        assert_eq!(nearby["friends"], json!([]));
        client.send(&json!({"type": "more", "cursor": cursor})).await;
        assert_eq!(client.reads("nearby").await["friends"], json!([]));
    }
}

#[tokio::test]
async fn her_history_answers_a_stranger_as_if_she_were_not() {
    let server = Server::start().await;
    server.know(&[STRANGER]).await;
    server.friends(ALICE, EX).await;
    server.post(ALICE, &position(HERE, now())).await.ok();
    for caller in [STRANGER, EX] {
        let of = async |user: u64, query: &str| -> Answer {
            let answer = server.get(caller, &format!("/v1/users/{user}/history{query}")).await.undated();
            Answer { text: answer.text.replace(&format!("\"{user}\""), "\"id\""), ..answer }
        };
        for query in ["", "?limit=1", "?limit=0", "?from=yesterday", "?cursor=x"] {
            let unknown = of(NOBODY, query).await;
            unknown.problem(404);
            assert_eq!(of(ALICE, query).await, unknown, "{query}");
        }
    }
}
