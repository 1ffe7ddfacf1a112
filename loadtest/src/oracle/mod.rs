//! The judge: knows from what was sent and asked for what everybody may, must and must not be shown.
//!
//! It is told of everything that this process does *before* it is done, and of everything acknowledged *after*; between
//! the two either answer of the server is right. What was sent less than [`Rules::in_flight`] ago may or may not have
//! reached the server, so a frame is right if it is right for one of the places where viewer and friend may have been.
//! A pure state machine: no clock, no socket; `frames` holds what is asked of each frame, `views` what is asked of the
//! whole of what a viewer has been shown.

mod frames;
mod friendship;
#[cfg(test)]
mod tests;
mod views;

use std::time::Duration;

use model::{Position, UserId, haversine};
use rustc_hash::FxHashMap;

use crate::clock::At;
use crate::faults::{Class, Fault, Faults};
use crate::people::People;
use crate::whereabouts::Whereabouts;
use friendship::Friendship;

/// What the judge goes by.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Friends within this are near.
    pub radius_m: f64,
    /// How long a silent friend is shown. If it is not given, the server's word (`location_ttl_s`) is taken.
    pub ttl: Option<Duration>,
    /// What was sent longer ago than this has surely been taken into account in frames that arrive now, unless the
    /// server is seen to be later.
    pub in_flight: Duration,
    /// Frames read so shortly after an acknowledgement may have been handed to the kernel before it.
    pub removal_grace: Duration,
    /// A view is right at the latest so long after the last change that matters to it.
    pub patience: Duration,
}

impl Default for Rules {
    fn default() -> Rules {
        Rules {
            radius_m: model::Meters::FIVE_MILES.0,
            ttl: None,
            in_flight: Duration::from_secs(2),
            removal_grace: Duration::from_millis(250),
            patience: Duration::from_secs(5),
        }
    }
}

/// The promise is "gone 600 s after the last update, +0/+5 s"; by the server's receive time, so as much is given before.
const TTL_SLACK: Duration = Duration::from_secs(5);
/// A lateness once seen is reckoned with for this long.
const LAG_MEMORY: Duration = Duration::from_secs(10);
/// And for no more than this, however late the server is.
const LAG_LIMIT: Duration = Duration::from_secs(15);
/// Distances are rounded to 0.1 m.
const DISTANCE_SLACK_M: f64 = 0.06;
/// Nearer to the border than this either answer is right: the last bits of two ways to compute a distance.
const BORDER_SLACK_M: f64 = 1e-3;

/// What a viewer has of one friend.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    /// Which of the friend's positions is shown now.
    held: Option<usize>,
    /// The newest that ever was, on any connection.
    newest: Option<usize>,
    /// A fault of this view has been counted; not again until it has been right.
    faulty: bool,
}

/// One person as a viewer.
#[derive(Debug, Default)]
struct View {
    seen: FxHashMap<usize, Seen>,
    /// Since when the whole list is known on this connection; `None` before, and while there is no connection.
    listed: Option<At>,
}

/// What a frame told, for the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// A friend moved; the position was sent at this moment.
    Move(At),
    /// A friend came near.
    Entry,
    /// What the viewer knew.
    Again,
    /// A fault.
    Fault,
}

/// The judge.
#[derive(Debug)]
pub struct Oracle {
    people: People,
    rules: Rules,
    whereabouts: Vec<Whereabouts>,
    views: Vec<View>,
    friendships: FxHashMap<(usize, usize), Friendship>,
    /// Everybody who is or was a friend of this person.
    acquainted: Vec<Vec<usize>>,
    lag: Lag,
    /// When the first position of this run was sent, by the wall clock: what is older belongs to an earlier run.
    began_ms: Option<u64>,
    /// What was found.
    pub faults: Faults,
}

/// How late the server was of late. A server that is 5 s behind knows the viewer of 5 s ago: that is its lateness,
/// which the ages tell, and no wrong distance.
#[derive(Clone, Copy, Debug, Default)]
struct Lag {
    at: At,
    age: Duration,
    longest: Duration,
}

impl Oracle {
    /// Nobody is anybody's friend yet, and nobody has been anywhere.
    pub fn new(people: People, rules: Rules, describe: usize) -> Oracle {
        Oracle {
            people,
            rules,
            whereabouts: (0..people.count).map(|_| Whereabouts::default()).collect(),
            views: (0..people.count).map(|_| View::default()).collect(),
            friendships: FxHashMap::default(),
            acquainted: vec![Vec::new(); people.count],
            lag: Lag::default(),
            began_ms: None,
            faults: Faults::describing(describe),
        }
    }

    /// A position is about to be sent; the answer is the `ts` to send.
    pub fn sending(&mut self, person: usize, position: Position, wall_ms: u64, now: At) -> u64 {
        self.began_ms.get_or_insert(wall_ms);
        self.whereabouts[person].record(position, wall_ms, now)
    }

    /// A connection is about to be opened: the view starts afresh.
    pub fn connecting(&mut self, viewer: usize) {
        let view = &mut self.views[viewer];
        view.listed = None;
        view.seen.values_mut().for_each(|seen| *seen = Seen { newest: seen.newest, ..Seen::default() });
    }

    /// The last page of the list has come.
    pub fn listed(&mut self, viewer: usize, now: At) {
        self.views[viewer].listed.get_or_insert(now);
    }

    /// The connection is over; with a goodbye the server has read everything that was sent.
    pub fn disconnected(&mut self, viewer: usize, goodbye: bool, now: At) {
        self.views[viewer].listed = None;
        if !goodbye {
            self.whereabouts[viewer].torn(now);
        }
    }

    /// A friendship is about to be asked for.
    pub fn befriending(&mut self, person: usize, friend: usize, now: At) {
        let friendship = self.friendships.entry(pair(person, friend)).or_insert_with(|| {
            self.acquainted[person].push(friend);
            self.acquainted[friend].push(person);
            Friendship::asked(now)
        });
        friendship.begin(now);
    }

    /// The end of a friendship is about to be asked for.
    pub fn unfriending(&mut self, person: usize, friend: usize, now: At) {
        if let Some(friendship) = self.friendships.get_mut(&pair(person, friend)) {
            friendship.begin_end(now);
        }
    }

    /// The change asked for was acknowledged; or failed, and nobody knows what holds.
    pub fn changed(&mut self, person: usize, friend: usize, acknowledged: bool, now: At) {
        if let Some(friendship) = self.friendships.get_mut(&pair(person, friend)) {
            friendship.settle(acknowledged, now);
        }
    }

    /// Whether the two are friends now, without any change under way.
    pub fn are_friends(&self, person: usize, friend: usize) -> bool {
        self.friendships.get(&pair(person, friend)).is_some_and(Friendship::stands)
    }

    /// Everybody who is or ever was this person's friend.
    pub fn acquainted(&self, person: usize) -> &[usize] {
        &self.acquainted[person]
    }

    /// Whether this friend is shown to the viewer now.
    pub fn shows(&self, viewer: usize, friend: usize) -> bool {
        self.views[viewer].seen.get(&friend).is_some_and(|seen| seen.held.is_some())
    }

    /// A fault that the connection showed, not a frame.
    pub fn fault(&mut self, viewer: usize, fault: Fault, detail: &str, now: At) {
        let user = self.people.user(viewer);
        self.faults.add(fault.class(), fault, now, || format!("{user:?}: {detail}"));
    }

    fn fault_about(&mut self, viewer: usize, friend: UserId, fault: Fault, now: At, detail: impl FnOnce() -> String) {
        let viewer = self.people.user(viewer);
        self.faults.add(fault.class(), fault, now, || {
            let detail = detail();
            format!("{viewer:?} about {friend:?}{}{detail}", if detail.is_empty() { "" } else { ": " })
        });
    }

    fn late(&mut self, viewer: usize, friend: usize, fault: Fault, now: At) {
        let (viewer, friend) = (self.people.user(viewer), self.people.user(friend));
        self.faults.add(Class::Late, fault, now, || format!("{viewer:?} about {friend:?}"));
    }

    /// A move arrived so long after it was sent.
    fn arrived_after(&mut self, age: Duration, now: At) {
        if age >= self.lag.age || now.since(self.lag.at) > LAG_MEMORY {
            self.lag = Lag { at: now, age, longest: self.lag.longest.max(age) };
        }
    }

    /// What was sent longer ago than this has surely been taken into account: the rules' word, or twice (once in, once
    /// out) the server's lateness of late.
    fn in_flight(&self, now: At) -> Duration {
        let recent = now.since(self.lag.at) <= LAG_MEMORY;
        let lag = if recent { self.lag.age.min(LAG_LIMIT) } else { Duration::ZERO };
        self.rules.in_flight.max(2 * lag)
    }

    /// The longest that positions have been taken to be in flight.
    pub fn longest_in_flight(&self) -> Duration {
        self.rules.in_flight.max(2 * self.lag.longest.min(LAG_LIMIT))
    }

    /// The distances between the places where the two may be, as far as the server is concerned.
    fn distances(&self, viewer: usize, friend: usize, now: At, patience: Duration) -> impl Iterator<Item = f64> {
        let here = self.whereabouts[viewer].maybe_current(now, patience);
        let there = self.whereabouts[friend].maybe_current(now, patience);
        here.iter().flat_map(|viewer| there.iter().map(|friend| haversine(viewer.position, friend.position).0))
    }

    fn inside(&self, distance: f64) -> bool {
        distance <= self.rules.radius_m - BORDER_SLACK_M
    }

    fn outside(&self, distance: f64) -> bool {
        distance > self.rules.radius_m + BORDER_SLACK_M
    }
}

/// A friendship has no direction.
fn pair(person: usize, friend: usize) -> (usize, usize) {
    (person.min(friend), person.max(friend))
}
