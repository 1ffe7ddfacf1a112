//! "Within the radius?" and what surrounds it: `cargo bench -p model`, or `cargo bench -p model -- --max-time 0.1`.
#![allow(clippy::unwrap_used, missing_docs)]

use divan::{Bencher, black_box};
use model::{
    Edge, Fix, Generation, Level, Meters, MonotonicMs, Motion, Order, Place, PolicyVersion, Position, Radius,
    TimestampMs, UserId, haversine,
};

fn main() {
    divan::main();
}

fn at(north_m: f64) -> Position {
    Position::new(40.0 + north_m / 111_195.0, 116.0).unwrap()
}

/// The unit vector of a position: once for each that arrives.
#[divan::bench]
fn place(bencher: Bencher) {
    let here = at(0.0);
    bencher.bench_local(|| Place::new(black_box(here)));
}

#[divan::bench]
fn distance(bencher: Bencher) {
    let (here, there) = (at(0.0), at(5_000.0));
    bencher.bench_local(|| haversine(black_box(here), black_box(there)));
}

/// A radius of 8,047 m around a viewer, and friends well inside and well outside.
#[divan::bench(args = [1_000.0, 50_000.0])]
fn check(bencher: Bencher, away_m: f64) {
    let radius = Radius::new(Meters::FIVE_MILES);
    let (here, there) = (Place::new(at(0.0)), Place::new(at(away_m)));
    bencher.bench_local(|| black_box(&radius).holds(black_box(&here), black_box(&there)));
}

/// The one door: what a friend may see of a position.
#[divan::bench]
fn reveal(bencher: Bencher) {
    let fix = Fix {
        user: UserId(7),
        place: Place::new(at(0.0)),
        order: Order { generation: Generation(1), ts: TimestampMs(1), ..Order::default() },
        expires: MonotonicMs(600_000),
        policy: PolicyVersion(5),
        motion: Motion::UNKNOWN,
    };
    let edge = Edge { level: Level::Exact, policy: PolicyVersion(5) };
    bencher.bench_local(|| black_box(&edge).reveal(black_box(&fix), black_box(MonotonicMs(10))));
}
