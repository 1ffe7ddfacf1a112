//! The shard against a brute-force oracle: random walks, connects, revokes, expiry, and after each drain every client
//! holds exactly what it may see and what is near. Reports come once and again, with other places for one time, after
//! clocks were set back, and late.

#![expect(clippy::unwrap_used, reason = "the helpers of tests are tests too")]

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use model::{
    Fix, Generation, Level, Meters, MonotonicMs, Motion, Order, Place, PolicyVersion, Position, Radius, Sequence,
    TimestampMs, UserId, haversine,
};
use node::Signal;
use node::shard::{Effects, Heard, Interests, News, Pair, Shard, Taken, ViewerId};
use ports::{ControlEntry, ControlRecord, Friendship};
use proptest::prelude::*;
use protocol::client::{GoneReason, Limit};

const USERS: u64 = 7;
const TTL: Duration = Duration::from_secs(600);

/// The device time of a report, beside that of the position which is held of its user.
#[derive(Clone, Copy, Debug)]
enum Time {
    /// Later.
    Later,
    /// The same, and the whole report is: the device rests.
    Repeated,
    /// The same, at another place.
    Same,
    /// Earlier: a queue, or a clock that was set back.
    Earlier,
}

#[derive(Clone, Debug)]
enum Step {
    /// A friend is heard of: at this spot, this much ahead of the control log.
    Heard {
        user: u64,
        time: Time,
        north: i32,
        east: i32,
        ahead: u64,
    },
    /// A viewer's own position, and whether it is older than positions are shown.
    Moved {
        user: u64,
        time: Time,
        is_old: bool,
        north: i32,
        east: i32,
    },
    Connect {
        user: u64,
        early_entries: Vec<(bool, u64)>,
    },
    Disconnect {
        user: u64,
    },
    Befriend {
        user: u64,
        friend: u64,
    },
    Unfriend {
        user: u64,
        friend: u64,
    },
    Radius {
        user: u64,
        meters: f64,
    },
    Wait {
        seconds: u64,
    },
    Drain {
        user: u64,
    },
    Page {
        user: u64,
        limit: u64,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let user = 0..USERS;
    // A grid of about 100 m, most of it near the border of 1 km around the middle.
    let spot = || (-15i32..15, -15i32..15);
    let early = proptest::collection::vec((any::<bool>(), 0..USERS), 0..3);
    let time = || prop_oneof![5 => Just(Time::Later), 2 => Just(Time::Repeated), 1 => Just(Time::Same), 2 => Just(Time::Earlier)];
    let is_old = prop_oneof![4 => Just(false), 1 => Just(true)];
    let step = prop_oneof![
        8 => (user.clone(), time(), spot(), prop_oneof![5 => Just(0u64), 1 => 1u64..3])
            .prop_map(|(user, time, (north, east), ahead)| Step::Heard { user, time, north, east, ahead }),
        6 => (user.clone(), time(), spot(), is_old)
            .prop_map(|(user, time, (north, east), is_old)| Step::Moved { user, time, north, east, is_old }),
        3 => (user.clone(), early).prop_map(|(user, early_entries)| Step::Connect { user, early_entries }),
        1 => user.clone().prop_map(|user| Step::Disconnect { user }),
        2 => (user.clone(), user.clone()).prop_map(|(user, friend)| Step::Befriend { user, friend }),
        2 => (user.clone(), user.clone()).prop_map(|(user, friend)| Step::Unfriend { user, friend }),
        1 => (user.clone(), 100.0..3_000.0).prop_map(|(user, meters)| Step::Radius { user, meters }),
        1 => prop_oneof![1u64..30, 300u64..700].prop_map(|seconds| Step::Wait { seconds }),
        4 => user.clone().prop_map(|user| Step::Drain { user }),
        1 => (user, 1u64..5).prop_map(|(user, limit)| Step::Page { user, limit }),
    ];
    proptest::collection::vec(step, 1..120)
}

/// What the world is, said as simply as possible.
struct World {
    shard: Shard,
    interests: Interests,
    now: MonotonicMs,
    applied: u64,
    friends: Vec<(u64, u64)>,
    /// What was published of everybody, as it has to be held by whoever watches them.
    fixes: BTreeMap<u64, Fix>,
    /// How often what is shown of everybody has changed.
    changes: BTreeMap<u64, u64>,
    /// The position that everybody's own connection sent last.
    own: BTreeMap<u64, Fix>,
    clients: BTreeMap<u64, Client>,
    clock: u64,
    /// Pairs that are to be read again.
    unread: Vec<Pair>,
}

/// What a client knows.
struct Client {
    viewer: ViewerId,
    place: Option<Place>,
    radius: Radius,
    held: BTreeMap<u64, Seen>,
}

/// What is shown of a friend, and the number of the change that made it so.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Seen {
    ts: TimestampMs,
    position: Position,
    change: u64,
}

impl World {
    fn new() -> World {
        World {
            shard: Shard::default().with_ttl(TTL),
            interests: Interests::default(),
            now: MonotonicMs(5_000_000),
            applied: 0,
            friends: Vec::new(),
            fixes: BTreeMap::new(),
            changes: BTreeMap::new(),
            own: BTreeMap::new(),
            clients: BTreeMap::new(),
            clock: 0,
            unread: Vec::new(),
        }
    }

    /// The next report of this user, beside the one that is held.
    fn fix(&mut self, held: Option<&Fix>, user: u64, time: Time, (north, east): (i32, i32), ahead: u64) -> Fix {
        self.clock += 1;
        let position = Position::new(40.0 + f64::from(north) * 0.0009, 116.0 + f64::from(east) * 0.0012).unwrap();
        let later = TimestampMs(1_000 + self.clock);
        let (ts, place) = match (time, held) {
            (Time::Later, _) | (_, None) => (later, Place::new(position)),
            (Time::Repeated, Some(held)) => (held.order.ts, held.place),
            (Time::Same, Some(held)) => (held.order.ts, Place::new(position)),
            (Time::Earlier, Some(held)) => (TimestampMs(held.order.ts.0 - 1), Place::new(position)),
        };
        Fix {
            user: UserId(user),
            place,
            order: Order { generation: Generation(1), ts, seq: Sequence(self.clock) },
            expires: self.now.after(TTL),
            policy: PolicyVersion(self.applied + ahead),
            motion: Motion::UNKNOWN,
        }
    }

    /// A position reaches everybody who watches its user. It counts if it is the newest of those that live.
    fn published(&mut self, fix: Fix) {
        self.shard.heard(&fix, self.now);
        let held = self.fixes.get(&fix.user.0).filter(|held| held.expires > self.now);
        let order = |fix: &Fix| (fix.order.ts, fix.order.seq);
        if held.is_some_and(|held| order(held) > order(&fix)) {
            return;
        }
        let is_known = |fix: &Fix| fix.policy.0 <= self.applied;
        let is_repeated = held.is_some_and(|held| {
            let is_same = (held.order.ts, held.place.position()) == (fix.order.ts, fix.place.position());
            is_same && is_known(held) && is_known(&fix)
        });
        *self.changes.entry(fix.user.0).or_default() += u64::from(!is_repeated);
        self.fixes.insert(fix.user.0, fix);
    }

    /// What becomes of a report of a connection.
    fn expected_of(&self, fix: &Fix, is_old: bool) -> Taken {
        let live = self.own.get(&fix.user.0).filter(|own| own.expires > self.now);
        match live.map(|live| fix.order.ts.cmp(&live.order.ts)) {
            None if is_old => Taken::TooOld,
            None | Some(Ordering::Equal) => Taken::Newest,
            Some(_) if is_old => Taken::TooOld,
            Some(Ordering::Greater) => Taken::Newest,
            Some(Ordering::Less) => Taken::Stale,
        }
    }

    fn are_friends(&self, user: u64, friend: u64) -> bool {
        self.friends.contains(&(user.min(friend), user.max(friend)))
    }

    fn entry(&mut self, befriend: bool, user: u64, friend: u64) {
        if user == friend {
            return;
        }
        self.applied += 1;
        let (one, other) = (UserId(user), UserId(friend));
        let entry = if befriend { ControlEntry::Befriended(one, other) } else { ControlEntry::Unfriended(one, other) };
        let pair = (user.min(friend), user.max(friend));
        self.friends.retain(|known| *known != pair);
        if befriend {
            self.friends.push(pair);
        }
        let record = ControlRecord { index: PolicyVersion(self.applied), entry };
        let mut effects = Effects::default();
        self.shard.apply(&record, &mut self.interests, &mut effects);
        self.shard.advance(PolicyVersion(self.applied));
        self.unread.extend(effects.to_read);
    }

    /// The directory is read for the pairs whose record was written.
    fn read_pairs(&mut self) {
        for pair in std::mem::take(&mut self.unread) {
            let Some(as_of) = self.shard.unread(pair) else { continue };
            let level = self.are_friends(pair.viewer.0, pair.friend.0).then_some(Level::Exact);
            assert!(self.shard.pair_read(pair, as_of, level, &mut self.interests));
        }
    }

    fn connect(&mut self, user: u64, early_entries: &[(bool, u64)]) {
        self.disconnect(user);
        let radius = Radius::new(Meters(1_000.0));
        let viewer = self.shard.register(UserId(user), Arc::new(Signal::default()), radius);
        // Read now, and overtaken by entries before it is applied.
        let mut read: Vec<Friendship> = (0..USERS)
            .filter(|friend| self.are_friends(user, *friend))
            .map(|friend| Friendship { friend: UserId(friend), level: Level::Exact })
            .collect();
        read.sort_by_key(|friendship| friendship.friend);
        for (befriend, friend) in early_entries {
            self.entry(*befriend, user, *friend);
        }
        // Some entries are followed by their read before what was read first is applied, some after.
        if early_entries.len() % 2 == 1 {
            self.read_pairs();
        }
        let again = self.shard.admit(viewer, &read, &mut self.interests);
        self.unread.extend(again);
        self.read_pairs();
        // The cache's read: what was heard before anybody here watched.
        for fix in self.fixes.clone().values() {
            self.shard.heard(fix, self.now);
        }
        self.shard.share(viewer, Generation(1));
        self.clients.insert(user, Client { viewer, place: None, radius, held: BTreeMap::new() });
        self.page(user, 100);
    }

    fn disconnect(&mut self, user: u64) {
        if let Some(client) = self.clients.remove(&user) {
            self.shard.unregister(client.viewer, &mut self.interests);
        }
    }

    fn page(&mut self, user: u64, limit: u64) {
        let expected = self.expected(user);
        let Some(client) = self.clients.get_mut(&user) else { return };
        let limit = Limit::new(limit).unwrap();
        let mut page = self.shard.first_page(client.viewer, limit, self.now);
        let mut listed = Vec::new();
        loop {
            listed.extend(page.entries.iter().map(|entry| (entry.shared.user().0, entry.distance.0)));
            for entry in &page.entries {
                let listed = (entry.shared.ts(), entry.shared.position());
                let expected = expected.get(&entry.shared.user().0).map(|seen| (seen.ts, seen.position));
                assert_eq!(expected, Some(listed), "listed wrongly");
            }
            let Some(next) = page.next else { break };
            page = self.shard.next_page(client.viewer, next, self.now);
        }
        assert!(listed.is_sorted_by(|one, other| (one.1, one.0) < (other.1, other.0)), "{listed:?}");
        client.held = listed.into_iter().map(|(friend, _)| (friend, expected[&friend])).collect();
        assert_eq!(client.held, expected, "the pages of user {user}");
    }

    /// Everybody this user may see and who is near, by brute force.
    fn expected(&self, user: u64) -> BTreeMap<u64, Seen> {
        let Some(client) = self.clients.get(&user) else { return BTreeMap::new() };
        let Some(place) = client.place else { return BTreeMap::new() };
        self.fixes
            .values()
            .filter(|fix| self.are_friends(user, fix.user.0) && fix.expires > self.now)
            .filter(|fix| fix.policy.0 <= self.applied)
            .filter(|fix| haversine(place.position(), fix.place.position()).0 <= client.radius.meters().0)
            .map(|fix| {
                let change = self.changes[&fix.user.0];
                (fix.user.0, Seen { ts: fix.order.ts, position: fix.place.position(), change })
            })
            .collect()
    }

    fn drain(&mut self, user: u64) {
        let expected = self.expected(user);
        let ahead: Vec<u64> =
            self.fixes.values().filter(|fix| fix.policy.0 > self.applied).map(|fix| fix.user.0).collect();
        let Some(client) = self.clients.get_mut(&user) else { return };
        let mut news = Vec::new();
        while self.shard.drain(client.viewer, self.now, 2, &mut news).more {}
        for news in news {
            match news {
                News::Friend { shared, distance, .. } => {
                    let friend = shared.user().0;
                    let place = client.place.expect("a viewer without a position is told nobody");
                    assert_eq!(distance, haversine(place.position(), shared.position()));
                    let seen = expected.get(&friend).copied().filter(|seen| seen.ts == shared.ts());
                    let seen = seen.filter(|seen| seen.position == shared.position());
                    let seen = seen.unwrap_or_else(|| panic!("told user {user} of {friend}"));
                    let before = client.held.insert(friend, seen);
                    assert!(before.is_none_or(|before| before.change < seen.change), "told again, or older");
                }
                News::Gone(friend, reason) => {
                    assert!(client.held.remove(&friend.0).is_some(), "gone, and never told");
                    let pair = (user.min(friend.0), user.max(friend.0));
                    let alive = self.fixes.get(&friend.0).is_some_and(|fix| fix.expires > self.now);
                    match reason {
                        // May have become a friend again since.
                        GoneReason::Hidden => {}
                        GoneReason::Inactive => assert!(!alive && self.friends.contains(&pair)),
                        GoneReason::OutOfRange => assert!(alive && self.friends.contains(&pair)),
                    }
                }
                News::Added(_) | News::Removed(_) => {}
            }
        }
        // Who moved under permissions that are not known here yet, stays as last told until they are.
        client.held.iter().filter(|(friend, _)| !ahead.contains(friend)).for_each(|(friend, seen)| {
            assert_eq!(expected.get(friend), Some(seen), "user {user} holds {friend}");
        });
        for friend in expected.keys() {
            assert!(client.held.contains_key(friend), "user {user} was not told of {friend}");
        }
    }

    fn take(&mut self, step: &Step) {
        match *step {
            Step::Heard { user, time, north, east, ahead } => {
                let held = self.fixes.get(&user).copied();
                let fix = self.fix(held.as_ref(), user, time, (north, east), ahead);
                self.published(fix);
            }
            Step::Moved { user, time, north, east, is_old } => {
                let own = self.own.get(&user).copied();
                let fix = self.fix(own.as_ref(), user, time, (north, east), 0);
                let age = if is_old { TTL + Duration::from_millis(1) } else { TTL };
                let expected = self.expected_of(&fix, is_old);
                let Some(client) = self.clients.get_mut(&user) else { return };
                assert_eq!(self.shard.moved(&fix, age, self.now), expected, "{time:?} of user {user}");
                if expected != Taken::Newest {
                    return;
                }
                client.place = Some(fix.place);
                self.own.insert(user, fix);
                // Its own friends hear of it too.
                self.published(fix);
            }
            Step::Connect { user, ref early_entries } => self.connect(user, early_entries),
            Step::Disconnect { user } => self.disconnect(user),
            Step::Befriend { user, friend } => {
                self.entry(true, user, friend);
                self.read_pairs();
                // What the cache holds, as the subscription reads it.
                for fix in self.fixes.clone().values() {
                    self.shard.heard(fix, self.now);
                }
            }
            Step::Unfriend { user, friend } => {
                self.entry(false, user, friend);
                self.read_pairs();
            }
            Step::Radius { user, meters } => {
                let radius = Radius::new(Meters(meters));
                let Some(client) = self.clients.get_mut(&user) else { return };
                client.radius = radius;
                self.shard.set_radius(client.viewer, radius);
            }
            Step::Wait { seconds } => {
                self.now = self.now.after(Duration::from_secs(seconds));
                self.shard.expire(self.now, &mut Vec::new());
            }
            Step::Drain { user } => self.drain(user),
            Step::Page { user, limit } => self.page(user, limit),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn every_client_holds_what_brute_force_says(steps in steps()) {
        let mut world = World::new();
        let mut total = node::shard::Tally::default();
        for step in &steps {
            world.take(step);
            add(&mut total, world.shard.take_tally());
            let accounted = total.delivered + total.replaced + total.dropped + world.shard.queued();
            prop_assert_eq!(total.marked, accounted, "every news is accounted for");
        }
        // Ahead of the log for ever is not a thing: the log comes.
        world.applied += 10;
        world.shard.advance(PolicyVersion(world.applied));
        for user in 0..USERS {
            world.drain(user);
        }
        for user in 0..USERS {
            world.disconnect(user);
        }
        prop_assert_eq!(world.shard.population(), (0, 0), "nothing is left");
    }
}

/// Expired positions are swept once a second. In between they hold up nobody, on either side.
#[test]
fn what_has_expired_and_is_not_swept_yet_holds_up_no_earlier_report() {
    let mut world = World::new();
    world.entry(true, 0, 1);
    for user in 0..2 {
        world.connect(user, &[]);
        world.take(&Step::Moved { user, time: Time::Later, north: 0, east: 0, is_old: false });
    }
    world.drain(0);
    let first = world.fixes[&1];
    world.now = first.expires;
    let earlier = world.fix(Some(&first), 1, Time::Earlier, (3, 0), 0);
    assert!(earlier.order < first.order);
    assert_eq!(world.shard.moved(&earlier, Duration::ZERO, world.now), Taken::Newest);
    assert_eq!(world.shard.heard(&earlier, world.now), Heard::Taken);
    world.published(earlier);
    world.drain(0);
    assert_eq!(world.clients[&0].held[&1].ts, earlier.order.ts);
}

fn add(total: &mut node::shard::Tally, more: node::shard::Tally) {
    total.marked += more.marked;
    total.delivered += more.delivered;
    total.replaced += more.replaced;
    total.dropped += more.dropped;
}
