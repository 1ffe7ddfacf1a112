//! Where people were.

use model::{Motion, MotionField, Position, TimestampMs, UserId};
use ports::HistoryPoint;
use serde_json::{Value, json};
use web::Scope;

use crate::world::World;

/// The virtual clock's epoch, 2025-01-01T00:00:00Z.
const START: u64 = 1_735_689_600_000;
const HOUR: u64 = 3_600_000;

fn point(user: u64, ts: u64) -> HistoryPoint {
    let position = Position::new(40.020_12, 116.421_11).unwrap();
    HistoryPoint { user: UserId(user), ts: TimestampMs(ts), position, motion: Motion::UNKNOWN }
}

async fn world(times: impl IntoIterator<Item = u64>) -> World {
    let world = World::of(&[7, 8]).await;
    let points: Vec<_> = times.into_iter().map(|ts| point(7, ts)).collect();
    world.state.history.append(&points).await.unwrap();
    world
}

async fn times(world: &World, query: &str) -> Vec<String> {
    let body: Value = world.user(7, "GET", &format!("/v1/users/7/history{query}")).await.json();
    body["items"].as_array().unwrap().iter().map(|item| item["ts"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(start_paused = true)]
async fn shows_what_is_known_and_leaves_out_what_is_not() {
    let world = world([START - 2_000]).await;
    let moving = Motion::UNKNOWN.with(MotionField::SpeedMps, 1.5).unwrap().with(MotionField::BatteryPct, 80.0).unwrap();
    let moving = HistoryPoint { motion: moving.with_charging(false), ..point(7, START - 1_500) };
    world.state.history.append(&[moving]).await.unwrap();
    let body = world.ask(Some(&world.token("ml", &[Scope::History])), "GET", "/v1/users/7/history", None).await.json();
    let expected = json!({"items": [
        {"ts": "2024-12-31T23:59:58Z", "lat": 40.02012, "lon": 116.42111},
        {"ts": "2024-12-31T23:59:58.5Z", "lat": 40.02012, "lon": 116.42111, "speed_mps": 1.5, "battery_pct": 80.0,
         "charging": false},
    ], "next_cursor": null});
    assert_eq!(body, expected);
}

#[tokio::test(start_paused = true)]
async fn from_is_in_and_to_is_not() {
    let world = world([START - 25 * HOUR, START - 24 * HOUR, START - HOUR, START - 1, START]).await;
    let (old, day, hour, last, now) = (
        "2024-12-30T23:00:00Z",
        "2024-12-31T00:00:00Z",
        "2024-12-31T23:00:00Z",
        "2024-12-31T23:59:59.999Z",
        "2025-01-01T00:00:00Z",
    );
    assert_eq!(times(&world, "").await, [day, hour, last]);
    assert_eq!(times(&world, &format!("?from={old}&to={hour}")).await, [old, day]);
    assert_eq!(times(&world, "?from=2024-12-31T23:59:59.9985Z").await, [last]);
    assert_eq!(times(&world, "?from=2025-01-01T02:00:00%2B02:00&to=2025-01-01T00:00:00.001Z").await, [now]);
    assert_eq!(times(&world, &format!("?from={now}&to={now}")).await, [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn what_is_wrong_is_named() {
    let world = world([]).await;
    for (query, field) in [
        ("from=yesterday", "from"),
        ("to=1735689600000", "to"),
        ("from=2025-01-01T00:00:00+02:00", "from"),
        ("from=2025-01-02T00:00:00Z", "from"),
        ("limit=1001", "limit"),
        ("limit=", "limit"),
        ("cursor=AAAA", "cursor"),
    ] {
        assert_eq!(world.user(7, "GET", &format!("/v1/users/7/history?{query}")).await.wrong(400), field, "{query}");
        // A stranger is not told that much.
        world.user(8, "GET", &format!("/v1/users/7/history?{query}")).await.problem(404);
    }
}

#[tokio::test(start_paused = true)]
async fn is_read_to_its_end_while_time_goes_on_and_positions_come() {
    // Over three days, several within one millisecond of each other's neighbours.
    let ages: Vec<u64> = (0..250).map(|n| n * 1_000_003 + n % 2).collect();
    let world = world(ages.iter().map(|age| START - 1 - age)).await;
    let token = world.user_token(7);
    let path = "/v1/users/7/history?from=2024-12-20T00:00:00Z";
    let (all, _) = world.walk(&token, path, 1_000).await;
    assert_eq!(all.len(), 250);
    assert!(all.is_sorted_by(|one, next| one["ts"].as_str() < next["ts"].as_str()));
    for (limit, pages) in [(1, 250), (100, 3), (125, 2), (250, 1)] {
        assert_eq!(world.walk(&token, path, limit).await, (all.clone(), pages), "{limit} a page");
    }

    // The last page asked for later holds what the first asked for, and needs no span.
    let first = world.user(7, "GET", &format!("{path}&limit=249")).await.json();
    tokio::time::advance(std::time::Duration::from_secs(60)).await;
    world.state.history.append(&[point(7, START + 1_000)]).await.unwrap();
    let cursor = first["next_cursor"].as_str().unwrap();
    let last = world.user(7, "GET", &format!("/v1/users/7/history?cursor={cursor}")).await.json();
    assert_eq!(last["items"].as_array().unwrap()[..], all[249..]);

    // The cursor of one list is an error in another.
    assert_eq!(world.user(7, "GET", &format!("/v1/me/friends?cursor={cursor}")).await.wrong(400), "cursor");
}
