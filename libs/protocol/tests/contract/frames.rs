//! Real frames against the schemas.

use model::{
    Edge, Fix, Generation, Level, Meters, MonotonicMs, Motion, MotionField, Order, Place, PolicyVersion, Position,
    TimestampMs, UserId,
};
use proptest::prelude::*;
use protocol::client::{
    ErrorCode, ErrorFrame, Friend, GoneReason, Limit, Nearby, Notice, NoticeCode, PageCursor, ServerFrame, decode,
};
use protocol::schema::{client_frames, server_frames};
use serde_json::{Map, Value, json};

use crate::validator::{fields, frame_types, is_valid, validate};

fn friend(motion: Motion) -> Friend {
    let fix = Fix {
        user: UserId(u64::MAX),
        place: Place::new(Position::new(39.98, 116.31).unwrap()),
        order: Order { generation: Generation(3), ts: TimestampMs(1_735_689_600_000), ..Order::default() },
        expires: MonotonicMs(600_000),
        policy: PolicyVersion(0),
        motion,
    };
    let edge = Edge { level: Level::Exact, policy: PolicyVersion(0) };
    Friend::new(&edge.reveal(&fix, MonotonicMs(0)).unwrap(), Meters(812.44))
}

fn full_motion() -> Motion {
    let known = [
        (MotionField::AccuracyM, 4.5),
        (MotionField::AltitudeM, 44.0),
        (MotionField::SpeedMps, 1.4),
        (MotionField::HeadingDeg, 270.0),
        (MotionField::BatteryPct, 81.9),
    ];
    let motion = known.into_iter().fold(Motion::UNKNOWN, |motion, (field, value)| motion.with(field, value).unwrap());
    motion.with_charging(false)
}

const GONE_REASONS: [GoneReason; 3] = [GoneReason::OutOfRange, GoneReason::Inactive, GoneReason::Hidden];
const ERROR_CODES: [ErrorCode; 8] = [
    ErrorCode::BadJson,
    ErrorCode::UnknownType,
    ErrorCode::BadValue,
    ErrorCode::NotInitialized,
    ErrorCode::AlreadyInitialized,
    ErrorCode::RateLimited,
    ErrorCode::NotSharing,
    ErrorCode::BadToken,
];

const NOTICE_CODES: [NoticeCode; 1] = [NoticeCode::TooOld];

/// Frames of every kind, with as much and as little in them as there can be.
fn every_frame() -> Vec<ServerFrame> {
    let (full, bare) = (friend(full_motion()), friend(Motion::UNKNOWN));
    let cursor = PageCursor { distance: Meters(812.44), id: UserId(7), limit: Limit::default() };
    let page = |friends, next_cursor| {
        ServerFrame::Nearby(Nearby { friends, next_cursor, radius_m: 8_046.72, location_ttl_s: 600 })
    };
    let mut frames = vec![
        page(vec![full.clone(), bare.clone()], Some(cursor.to_string())),
        page(Vec::new(), None),
        ServerFrame::Friend(full),
        ServerFrame::Friend(bare),
        ServerFrame::FriendAdded { id: UserId(0) },
        ServerFrame::FriendRemoved { id: UserId(8) },
        ServerFrame::Notice(Notice { code: NOTICE_CODES[0], message: "what would be right".into() }),
        ServerFrame::Drain { retry_after_ms: 0 },
    ];
    frames.extend(GONE_REASONS.map(|reason| ServerFrame::Gone { id: UserId(7), reason }));
    for code in ERROR_CODES {
        for field in [None, Some("lat".to_owned())] {
            frames.push(ServerFrame::Error(ErrorFrame { code, message: "what would be right".into(), field }));
        }
    }
    frames
}

fn encoded(frame: &ServerFrame) -> Value {
    serde_json::from_str(&frame.encode()).unwrap()
}

#[test]
fn every_frame_that_is_sent_is_as_the_schema_says() {
    let schema = server_frames();
    let mut seen = Vec::new();
    for frame in every_frame() {
        let frame = encoded(&frame);
        validate(&schema, &frame).unwrap_or_else(|why| panic!("{frame}: {why}"));
        let kind = frame["type"].as_str().unwrap().to_owned();
        let known = fields(&schema, &kind);
        let sent: Vec<String> = frame.as_object().unwrap().keys().filter(|name| *name != "type").cloned().collect();
        assert!(sent.iter().all(|field| known.contains(field)), "{kind} has fields that its schema has not: {sent:?}");
        seen.push(kind);
    }
    let missing: Vec<String> = frame_types(&schema).into_iter().filter(|kind| !seen.contains(kind)).collect();
    assert!(missing.is_empty(), "no test sends {missing:?}");
}

#[test]
fn every_reason_and_code_of_the_schema_is_sent() {
    let schema = server_frames();
    for (name, sent) in [
        ("GoneReason", GONE_REASONS.map(|reason| json!(reason)).to_vec()),
        ("ErrorCode", ERROR_CODES.map(|code| json!(code)).to_vec()),
        ("NoticeCode", NOTICE_CODES.map(|code| json!(code)).to_vec()),
    ] {
        let known = schema["definitions"][name]["oneOf"].as_array().unwrap();
        assert_eq!(known.iter().map(|each| each["const"].clone()).collect::<Vec<_>>(), sent, "{name}");
    }
}

/// A validator that lets everything pass would agree with every schema.
#[test]
fn a_frame_with_anything_missing_or_of_another_kind_is_refused() {
    let schema = server_frames();
    for frame in every_frame() {
        let frame = encoded(&frame);
        for field in frame.as_object().unwrap().keys() {
            let mut other = frame.clone();
            other[field] = json!({});
            assert!(!is_valid(&schema, &other), "{field} of {frame} may be an object");
        }
        let mut untyped = frame.clone();
        untyped.as_object_mut().unwrap().remove("type");
        assert!(!is_valid(&schema, &untyped), "{untyped}");
    }
    for field in ["id", "lat", "lon", "ts", "distance_m"] {
        let mut frame = encoded(&ServerFrame::Friend(friend(full_motion())));
        frame.as_object_mut().unwrap().remove(field);
        assert!(!is_valid(&schema, &frame), "a friend without {field}");
    }
}

/// What `decode` refuses because of its value is refused by the schema too, so that a client which validates learns of
/// it before the server says so.
#[test]
fn wrong_values_are_refused_by_the_schema_and_by_the_server() {
    let schema = client_frames();
    let position = json!({ "lat": 39.98, "lon": 116.31, "ts": 1_735_689_600_000_u64 });
    for kind in ["location", "init"] {
        for (field, value) in [
            ("lat", json!(90.1)),
            ("lat", json!("40")),
            ("lon", json!(-180.1)),
            ("ts", json!(0)),
            ("ts", json!(-1)),
            ("ts", json!(1.5)),
            ("ts", json!(9_007_199_254_740_994_u64)),
            ("sent_at", json!(0)),
            ("sent_at", json!(1.5)),
            ("sent_at", json!("now")),
            ("accuracy_m", json!(-1)),
            ("altitude_m", json!(-20_001)),
            ("speed_mps", json!(10_001)),
            ("heading_deg", json!(361)),
            ("battery_pct", json!(101)),
            ("charging", json!(1)),
        ] {
            let mut frame = position.clone();
            frame["type"] = json!(kind);
            validate(&schema, &frame).unwrap();
            decode(&frame.to_string()).unwrap();
            frame[field] = value;
            assert!(!is_valid(&schema, &frame), "{frame}");
            assert!(decode(&frame.to_string()).is_err(), "{frame}");
        }
    }
    for frame in [
        json!({ "type": "location" }),
        json!({ "type": "init", "limit": 0 }),
        json!({ "type": "init", "limit": 101 }),
        json!({ "type": "init", "radius_m": 0 }),
        json!({ "type": "radius" }),
        json!({ "type": "radius", "radius_m": -1 }),
        json!({ "type": "more" }),
        json!({ "type": "auth" }),
        json!({ "type": "teleport" }),
        json!({}),
    ] {
        assert!(!is_valid(&schema, &frame), "{frame}");
        assert!(decode(&frame.to_string()).is_err(), "{frame}");
    }
}

const NAMES: [&str; 14] = [
    "lat",
    "lon",
    "ts",
    "sent_at",
    "accuracy_m",
    "altitude_m",
    "speed_mps",
    "heading_deg",
    "battery_pct",
    "charging",
    "radius_m",
    "limit",
    "cursor",
    "token",
];

fn values() -> impl Strategy<Value = Value> {
    let cursor = PageCursor { distance: Meters(1.0), id: UserId(1), limit: Limit::default() }.to_string();
    prop_oneof![
        4 => (-400i32..400).prop_map(|number| json!(number)),
        2 => (-200.0..200.0).prop_map(|number| json!(number)),
        1 => any::<bool>().prop_map(|yes| json!(yes)),
        1 => Just(json!(1_735_689_600_000_u64)),
        1 => Just(Value::Null),
        1 => Just(json!(cursor)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// Whatever the server takes, the schema allows: nobody who generates code from it is kept from saying something.
    #[test]
    fn what_is_decoded_is_as_the_schema_says(
        kind in prop::sample::select(vec!["init", "location", "more", "radius", "auth"]),
        given in prop::collection::vec((prop::sample::select(NAMES.to_vec()), values()), 0..8),
    ) {
        // A position of which everything is right, so that some are taken.
        let mut frame = json!({ "type": kind, "lat": 39.98, "lon": 116.31, "ts": 1_735_689_600_000_u64 });
        given.into_iter().for_each(|(name, value)| frame[name] = value);
        if decode(&frame.to_string()).is_ok() {
            let nulls_are_absent: Map<String, Value> =
                frame.as_object().unwrap().clone().into_iter().filter(|(_, value)| !value.is_null()).collect();
            let allowed = validate(&client_frames(), &Value::Object(nulls_are_absent));
            prop_assert!(allowed.is_ok() || is_ignored(&frame), "{}: {:?}", frame, allowed);
        }
    }
}

/// What a frame's type does not need is ignored, whatever it is: an `init` that only watches may say anything about its
/// motion.
fn is_ignored(frame: &Value) -> bool {
    frame["type"] == "init" && ["lat", "lon", "ts"].iter().all(|field| frame[*field].is_null())
}
