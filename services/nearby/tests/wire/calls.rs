//! The same without a connection: `GET /v1/nearby` and `POST /v1/locations`.

use serde_json::{Value, json};

use crate::http::request;
use crate::server::Server;
use crate::site::{HERE, north, now, position};

const ALICE: u64 = 1;
const BOB: u64 = 2;

#[tokio::test]
async fn a_call_answers_what_init_would() {
    let server = Server::start().await;
    server.friends(ALICE, BOB).await;
    let full = json!({
        "lat": north(300.0).0, "lon": HERE.1, "ts": now(), "speed_mps": 2.5, "battery_pct": 40, "charging": false,
    });
    assert_eq!(server.post(BOB, &full).await.ok(), json!({"accepted": 1}));
    let called = server.get(ALICE, &format!("/v1/nearby?lat={}&lon={}", HERE.0, HERE.1)).await.ok();
    assert_eq!(called["friends"][0]["id"], "2");
    let (_alice, mut shown) = server.joins(ALICE, HERE).await;
    shown.as_object_mut().unwrap().remove("type");
    assert_eq!(called, shown);
    // Around the caller's own newest position.
    assert_eq!(server.get(ALICE, "/v1/nearby").await.ok(), shown);
    let narrow = server.get(ALICE, "/v1/nearby?radius_m=299").await.ok();
    assert_eq!((&narrow["friends"], &narrow["radius_m"]), (&json!([]), &json!(299.0)));
}

#[tokio::test]
async fn who_has_no_position_and_gives_none_sees_nobody() {
    let server = Server::start().await;
    server.friends(ALICE, BOB).await;
    server.post(BOB, &position(HERE, now())).await.ok();
    assert_eq!(server.get(ALICE, "/v1/nearby").await.ok()["friends"], json!([]));
}

#[tokio::test]
async fn a_posted_position_moves_live_viewers() {
    let server = Server::start().await;
    server.friends(ALICE, BOB).await;
    let mut alice = server.at(ALICE, HERE).await;
    server.post(BOB, &position(north(300.0), now())).await.ok();
    alice.sees(BOB, 300.0).await;
    // The newest of a batch counts, wherever it stands in it.
    let ts = now();
    let batch = json!([position(north(500.0), ts + 2), position(north(400.0), ts + 1)]);
    assert_eq!(server.post(BOB, &batch).await.ok(), json!({"accepted": 2}));
    alice.sees(BOB, 500.0).await;
    // What is older, or the same again, moves nobody.
    server.post(BOB, &batch).await.ok();
    server.post(BOB, &position(north(100.0), ts)).await.ok();
    alice.hears_nothing().await;
    // Alice's own phone posts beside its connection, which goes along.
    server.post(ALICE, &position(north(9_000.0), now() + 1)).await.ok();
    alice.loses(BOB, "out_of_range").await;
}

#[tokio::test]
async fn all_that_is_posted_is_history_and_each_once() {
    let server = Server::start().await;
    server.know(&[ALICE]).await;
    let ts = now() - 60_000;
    let batch: Vec<Value> = (0..5u32).map(|n| position(north(f64::from(n)), ts + u64::from(n))).collect();
    for _ in 0..2 {
        assert_eq!(server.post(ALICE, &json!(batch)).await.ok(), json!({"accepted": 5}));
    }
    let points = server.get(ALICE, "/v1/users/1/history?limit=3").await.ok();
    assert_eq!(points["items"].as_array().unwrap().len(), 3);
    let cursor = points["next_cursor"].as_str().unwrap();
    let rest = server.get(ALICE, &format!("/v1/users/1/history?cursor={cursor}")).await.ok();
    assert_eq!(rest["items"].as_array().unwrap().len(), 2, "{rest}");
    let last = rest["items"][1]["lat"].as_f64().unwrap();
    assert!((last - north(4.0).0).abs() < 1e-6, "{last}");
}

#[tokio::test]
async fn a_queue_of_last_month_is_history_and_each_of_it_is_told_so() {
    let server = Server::start().await;
    server.friends(ALICE, BOB).await;
    let mut alice = server.at(ALICE, HERE).await;
    let old = now() - 20 * 86_400_000;
    let queue = json!([position(north(300.0), old), position(north(400.0), now()), position(north(500.0), old + 1)]);
    let answer = server.post(BOB, &queue).await.ok();
    assert_eq!(answer["accepted"], 3);
    let notices: Vec<(&Value, &Value)> =
        answer["notices"].as_array().unwrap().iter().map(|notice| (&notice["index"], &notice["code"])).collect();
    assert_eq!(notices, [(&json!(0), &json!("too_old")), (&json!(2), &json!("too_old"))], "{answer}");
    assert!(answer["notices"][0]["message"].as_str().unwrap().contains("600 s"), "{answer}");
    alice.sees(BOB, 400.0).await;
    // A device whose clock is wrong says by which clock it counts.
    let mut slow = position(north(600.0), now() - 3_600_000);
    assert_eq!(server.post(BOB, &slow).await.ok()["notices"][0]["code"], "too_old");
    slow["sent_at"] = slow["ts"].clone();
    assert_eq!(server.post(BOB, &slow).await.ok(), json!({"accepted": 1}));
    alice.hears_nothing().await;
    let points = server.get(BOB, "/v1/users/2/history?from=2025-01-01T00:00:00Z").await.ok();
    assert_eq!(points["items"].as_array().unwrap().len(), 4, "{points}");
}

#[tokio::test]
async fn what_is_wrong_is_named_and_nothing_of_it_is_taken() {
    let server = Server::with(|config| config.limits.update_burst = 1_000).await;
    server.know(&[ALICE]).await;
    let ts = now();
    for (bad, field) in [
        (json!({"lat": 91, "lon": 0, "ts": ts}), "lat"),
        (json!({"lat": 0, "lon": -180.5, "ts": ts}), "lon"),
        (json!({"lat": 0, "lon": "0", "ts": ts}), "lon"),
        (json!({"lat": 0, "ts": ts}), "lon"),
        (json!({"lat": 0, "lon": 0}), "ts"),
        (json!({"lat": 0, "lon": 0, "ts": ts + 300_000}), "ts"),
        (json!({"lat": 0, "lon": 0, "ts": ts / 1_000}), "ts"),
        (json!({"lat": 0, "lon": 0, "ts": ts, "sent_at": 1.5}), "sent_at"),
        (json!({"lat": 0, "lon": 0, "ts": ts, "battery_pct": 101}), "battery_pct"),
        (json!([position(HERE, ts), {"lat": 0, "lon": 0, "ts": ts + 300_000}]), "ts"),
        (json!([position(HERE, ts), {"lat": -91, "lon": 0, "ts": ts}]), "lat"),
    ] {
        let answer = server.post(ALICE, &bad).await;
        answer.wrong(field);
        assert!(!bad.is_array() || answer.text.contains("[1]"), "{answer:?}");
    }
    let too_many = vec![position(HERE, ts); 101];
    for bad in [json!([]), json!(too_many), json!(7), json!([[1, 2, 3]]), json!("x")] {
        server.post(ALICE, &bad).await.problem(400);
    }
    let token = server.token(ALICE);
    for bad in ["", "{", "{\"lat\":NaN,\"lon\":0,\"ts\":1}", "{\"lat\":1,\"lat\":2,\"lon\":0,\"ts\":1}"] {
        request(server.address, "POST", "/v1/locations", Some(&token), Some(bad)).await.problem(400);
    }
    let large = format!("[{}]", " ".repeat(65 * 1024));
    request(server.address, "POST", "/v1/locations", Some(&token), Some(&large)).await.problem(413);
    assert_eq!(server.get(ALICE, "/v1/users/1/history").await.ok()["items"], json!([]));

    for (query, field) in [
        ("lat=91&lon=0", "lat"),
        ("lat=0&lon=181", "lon"),
        ("lat=NaN&lon=0", "lat"),
        ("lat=0&lon=inf", "lon"),
        ("lat=0", "lon"),
        ("lon=0", "lat"),
        ("radius_m=0", "radius_m"),
        ("radius_m=NaN", "radius_m"),
        ("radius_m=50001", "radius_m"),
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("cursor=x", "cursor"),
    ] {
        server.get(ALICE, &format!("/v1/nearby?{query}")).await.wrong(field);
    }
    for query in ["lat=north&lon=0", "limit=-1", "limit=2.5", "radius_m="] {
        server.get(ALICE, &format!("/v1/nearby?{query}")).await.problem(400);
    }
}
