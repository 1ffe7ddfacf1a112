//! What is read and written for every update: `cargo bench -p protocol`, or `cargo bench -p protocol -- --max-time 0.1`.
#![allow(clippy::unwrap_used, missing_docs)]

use divan::{Bencher, black_box};
use model::{
    Edge, Fix, Generation, Level, Meters, MonotonicMs, Motion, MotionField, Order, Place, PolicyVersion, Position,
    TimestampMs, UserId,
};
use protocol::client::{Friend, Nearby, ServerFrame, decode};
use protocol::record;
use protocol::ring::{Ring, RingDocument, RingNode, slot};

fn main() {
    divan::main();
}

fn fix(user: u64) -> Fix {
    let said = [(MotionField::AccuracyM, 8.5), (MotionField::SpeedMps, 1.4), (MotionField::HeadingDeg, 182.5)];
    let motion = said.iter().fold(Motion::UNKNOWN, |motion, (field, value)| motion.with(*field, *value).unwrap());
    Fix {
        user: UserId(user),
        place: Place::new(Position::new(40.020_12, 116.421_11).unwrap()),
        order: Order {
            generation: Generation(1_700_000_000_000),
            ts: TimestampMs(1_700_000_012_345),
            ..Order::default()
        },
        expires: MonotonicMs(600_000),
        policy: PolicyVersion(5),
        motion,
    }
}

fn friend(user: u64) -> Friend {
    let edge = Edge { level: Level::Exact, policy: PolicyVersion(5) };
    Friend::new(&edge.reveal(&fix(user), MonotonicMs(10)).unwrap(), Meters(1_234.56))
}

#[divan::bench]
fn decode_location(bencher: Bencher) {
    let text = r#"{"type":"location","lat":40.02012,"lon":116.42111,"ts":1700000012345,"accuracy_m":8.5,"speed_mps":1.4,"heading_deg":182.5}"#;
    bencher.bench_local(|| decode(black_box(text)).unwrap());
}

#[divan::bench]
fn encode_friend(bencher: Bencher) {
    let frame = ServerFrame::Friend(friend(123_456_789));
    bencher.bench_local(|| black_box(&frame).encode());
}

#[divan::bench]
fn encode_first_page_of_20(bencher: Bencher) {
    let friends = (0..20).map(|at| friend(123_456_789 + at)).collect();
    let frame = ServerFrame::Nearby(Nearby { friends, next_cursor: None, radius_m: 8_046.72, location_ttl_s: 600 });
    bencher.bench_local(|| black_box(&frame).encode());
}

#[divan::bench]
fn encode_record(bencher: Bencher) {
    let fix = fix(123_456_789);
    bencher.bench_local(|| record::encode(black_box(&fix), black_box(MonotonicMs(10))));
}

/// With the unit vector, which is most of it.
#[divan::bench]
fn decode_record(bencher: Bencher) {
    let record = record::encode(&fix(123_456_789), MonotonicMs(10));
    bencher.bench_local(|| record::decode(black_box(&record), black_box(MonotonicMs(10))).unwrap());
}

fn ring(nodes: usize) -> Ring {
    let node = |at| RingNode { name: format!("pubsub-{at}"), address: format!("10.0.0.{at}:6379") };
    Ring::new(RingDocument::first((1..=nodes).map(node).collect()).unwrap()).unwrap()
}

/// From a channel's name to the node that owns it.
#[divan::bench(args = [3, 140])]
fn ring_lookup(bencher: Bencher, nodes: usize) {
    let ring = ring(nodes);
    bencher.bench_local(|| ring.owner(slot(black_box(b"u:123456789"))));
}

/// Once for every change of the ring.
#[divan::bench(args = [3, 140], sample_count = 10)]
fn ring_build(nodes: usize) -> Ring {
    ring(nodes)
}
