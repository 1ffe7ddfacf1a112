//! Users.

use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::world::World;

#[tokio::test(start_paused = true)]
async fn made_known_renamed_and_read() {
    let world = World::new();
    let put = async |name: &str| world.backend("PUT", "/v1/users/7", Some(json!({"name": name}))).await;
    let created = put("Ada").await;
    assert_eq!((created.status, created.json()), (StatusCode::CREATED, json!({"id": "7", "name": "Ada"})));
    let renamed = put("Ada Lovelace").await;
    assert_eq!((renamed.status, renamed.json()), (StatusCode::OK, json!({"id": "7", "name": "Ada Lovelace"})));
    assert_eq!(world.backend("GET", "/v1/users/7", None).await.json(), renamed.json());
    assert_eq!(world.user(7, "GET", "/v1/me").await.json(), renamed.json());
}

#[tokio::test(start_paused = true)]
async fn a_name_is_something_that_can_be_shown() {
    let world = World::new();
    let put = async |body: Value| world.backend("PUT", "/v1/users/7", Some(body)).await;
    assert_eq!(put(json!({"name": "é".repeat(100), "unknown": 1})).await.status, StatusCode::CREATED);
    let long = "é".repeat(101);
    for bad in [json!(""), json!("  "), json!("a\nb"), json!(long), json!(7), json!(null), json!(["Ada"])] {
        assert_eq!(put(json!({"name": bad})).await.wrong(400), "name", "{bad}");
    }
    assert_eq!(put(json!({})).await.wrong(400), "name");
    for bad in [json!([]), json!("Ada"), json!(null)] {
        put(bad).await.problem(400);
    }
}

#[tokio::test(start_paused = true)]
async fn an_id_has_one_spelling_and_the_high_ones_are_given_out() {
    let world = World::new();
    for bad in ["07", "+7", "-1", "seven", "7.0", "18446744073709551616", "%00", "%FF", "7%20"] {
        let answer = world.backend("PUT", &format!("/v1/users/{bad}"), Some(json!({"name": "Ada"}))).await;
        assert_eq!(answer.wrong(400), "id", "{bad}");
        let answer = world.backend("PUT", &format!("/v1/users/7/friends/{bad}"), None).await;
        assert_eq!(answer.wrong(400), "friend", "{bad}");
    }
    for (id, status) in [("9223372036854775807", 201), ("9223372036854775808", 400), ("18446744073709551615", 400)] {
        let answer = world.backend("PUT", &format!("/v1/users/{id}"), Some(json!({"name": "Ada"}))).await;
        assert_eq!(answer.status.as_u16(), status, "{id}");
    }
}
