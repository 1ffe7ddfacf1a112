//! The verbs of a shard: `cargo bench -p node`, or `cargo bench -p node -- --max-time 0.1`.
//!
//! Making the position that is taken in, with its unit vector, is in each figure. 2,000 viewers, who fit into the caches of a core: what memory costs beyond that, `loadtest engine` shows. The pump is
//! no part of the crate's face and is not here; it is in every update that `loadtest saturate` sends.
#![allow(clippy::unwrap_used, missing_docs)]

use std::sync::Arc;
use std::time::Duration;

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use model::{
    Fix, Generation, Level, Meters, MonotonicMs, Motion, Order, Place, PolicyVersion, Position, Radius, TimestampMs,
    UserId,
};
use node::Signal;
use node::shard::{Effects, Interests, News, Shard, ViewerId};
use ports::{ControlEntry, ControlRecord, Friendship};
use protocol::client::Limit;

const PEOPLE: u64 = 2_000;
const FRIENDS: u64 = 40;
const NOW: MonotonicMs = MonotonicMs(1_000);

fn main() {
    divan::main();
}

/// Everybody is a friend of the next twenty on either side. The first `near` of the friends of person 0 stand within
/// their radius, all others far away from everybody.
struct City {
    shard: Shard,
    viewers: Vec<ViewerId>,
    near: u64,
    ts: u64,
}

impl City {
    fn new(near: u64) -> City {
        let mut shard = Shard::default();
        let viewers = (0..PEOPLE).map(|user| connect(&mut shard, user)).collect();
        let mut city = City { shard, viewers, near, ts: 0 };
        for user in 0..PEOPLE {
            let fix = city.fix(user, 0.0);
            city.shard.moved(&fix, Duration::ZERO, NOW);
            city.shard.heard(&fix, NOW);
        }
        for &viewer in &city.viewers {
            city.shard.first_page(viewer, Limit::default(), NOW);
        }
        city
    }

    /// The next position of somebody, so many metres north of where they live.
    fn fix(&mut self, user: u64, north_m: f64) -> Fix {
        self.ts += 1;
        let is_near = user == 0 || friends(0).take(self.near as usize).any(|friend| friend == user);
        let lat = if is_near { 40.0 } else { -50.0 + user as f64 * 0.04 } + north_m / 111_195.0;
        // Far from the near ones also when the latitude is theirs.
        let lon = if is_near { 116.0 } else { -60.0 };
        Fix {
            user: UserId(user),
            place: Place::new(Position::new(lat, lon).unwrap()),
            order: Order { generation: Generation(1), ts: TimestampMs(self.ts), ..Order::default() },
            expires: MonotonicMs(600_000),
            policy: PolicyVersion(0),
            motion: Motion::UNKNOWN,
        }
    }
}

fn friends(user: u64) -> impl Iterator<Item = u64> {
    (1..=FRIENDS / 2).flat_map(move |step| [(user + step) % PEOPLE, (user + PEOPLE - step) % PEOPLE])
}

fn connect(shard: &mut Shard, user: u64) -> ViewerId {
    let viewer = shard.register(UserId(user), Arc::new(Signal::default()), Radius::new(Meters::FIVE_MILES));
    let mut friends: Vec<Friendship> =
        friends(user).map(|friend| Friendship { friend: UserId(friend), level: Level::Exact }).collect();
    friends.sort_by_key(|friendship| friendship.friend);
    shard.admit(viewer, &friends, &mut Interests::default());
    shard.share(viewer, Generation(1));
    viewer
}

/// A viewer who moves within the bound to the nearest border: nothing to look at.
#[divan::bench]
fn moved_within_slack(bencher: Bencher) {
    let mut city = City::new(4);
    bencher.bench_local(|| {
        let fix = city.fix(1_000, (city.ts % 2) as f64);
        city.shard.moved(black_box(&fix), Duration::ZERO, NOW)
    });
}

/// A viewer who jumps: looks around among 40 friends.
#[divan::bench]
fn moved_and_looked_around(bencher: Bencher) {
    let mut city = City::new(4);
    bencher.bench_local(|| {
        let fix = city.fix(1_000, 2_000_000.0 * (city.ts % 2) as f64);
        city.shard.moved(black_box(&fix), Duration::ZERO, NOW)
    });
}

/// A friend of 40 viewers moves, so many of whom are near; what they are told is drained outside of the measurement of
/// `heard`: here both together, the parts below.
#[divan::bench(args = [0, 4, 40])]
fn heard_and_drained(bencher: Bencher, near: u64) {
    let mut city = City::new(near);
    let near: Vec<ViewerId> = friends(0).take(near as usize).map(|user| city.viewers[user as usize]).collect();
    let (mut woken, mut news) = (Vec::new(), Vec::new());
    bencher.bench_local(|| {
        let fix = city.fix(0, (city.ts % 7) as f64);
        city.shard.heard(black_box(&fix), NOW);
        city.shard.take_woken(usize::MAX, &mut woken);
        woken.clear();
        for &viewer in &near {
            city.shard.drain(viewer, NOW, 64, &mut news);
        }
        assert_eq!(news.len(), near.len());
        news.clear();
    });
}

/// The same without draining: those near have news already, so marking them again is cheap.
#[divan::bench(args = [0, 4, 40])]
fn heard(bencher: Bencher, near: u64) {
    let mut city = City::new(near);
    bencher.counter(ItemsCount::new(FRIENDS)).bench_local(|| {
        let fix = city.fix(0, (city.ts % 7) as f64);
        city.shard.heard(black_box(&fix), NOW)
    });
}

/// One viewer has news of so many friends.
#[divan::bench(args = [1, 40])]
fn drain(bencher: Bencher, friends_moved: u64) {
    let mut city = City::new(FRIENDS);
    let viewer = city.viewers[0];
    let mut news: Vec<News> = Vec::new();
    bencher.counter(ItemsCount::new(friends_moved)).bench_local(|| {
        for friend in friends(0).take(friends_moved as usize) {
            let fix = city.fix(friend, (city.ts % 7) as f64);
            city.shard.heard(&fix, NOW);
        }
        city.shard.drain(viewer, NOW, 64, &mut news);
        assert_eq!(news.len() as u64, friends_moved);
        news.clear();
    });
}

/// A second of the wheel with nobody due.
#[divan::bench]
fn expire_with_nobody_due(bencher: Bencher) {
    let mut city = City::new(4);
    let (mut now, mut silent) = (1_000, Vec::new());
    bencher.bench_local(|| {
        now += 1;
        city.shard.expire(MonotonicMs(now), &mut silent);
    });
}

/// A viewer with so many friends connects and goes, in an otherwise empty shard.
#[divan::bench(args = [40, 400, 5_000])]
fn admit(bencher: Bencher, friends: u64) {
    let friends: Vec<Friendship> =
        (1..=friends).map(|friend| Friendship { friend: UserId(friend), level: Level::Exact }).collect();
    let (mut shard, mut interests) = (Shard::default(), Interests::default());
    bencher.counter(ItemsCount::new(friends.len())).bench_local(|| {
        let viewer = shard.register(UserId(0), Arc::new(Signal::default()), Radius::new(Meters::FIVE_MILES));
        shard.admit(viewer, black_box(&friends), &mut interests);
        shard.unregister(viewer, &mut interests);
        interests.begun.clear();
        interests.ended.clear();
    });
}

/// Somebody is deleted whom nobody here watches, among so many viewers.
#[divan::bench(args = [1_000, 100_000])]
fn delete_a_user(bencher: Bencher, viewers: u64) {
    let mut shard = Shard::default();
    let mut interests = Interests::default();
    for user in 0..viewers {
        let viewer = shard.register(UserId(user), Arc::new(Signal::default()), Radius::new(Meters::FIVE_MILES));
        shard.admit(viewer, &[], &mut interests);
    }
    let record = ControlRecord { index: PolicyVersion(1), entry: ControlEntry::UserDeleted(UserId(u64::MAX)) };
    let mut effects = Effects::default();
    bencher.bench_local(|| shard.apply(black_box(&record), &mut interests, &mut effects));
}
