//! Looks on where frames are handed to a viewer's socket, and says what must not be.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use model::{Position, UserId};
use parking_lot::Mutex;
use protocol::client::{Friend, ServerFrame};

use crate::backends::LONGEST_REVOKE;
use crate::connection::Line;

/// Metres between one position of a person and the next.
const STEP_M: f64 = 1.0;
/// Metres in a degree of latitude.
const DEGREE_M: f64 = 111_195.08;
const TOWN: (f64, f64) = (40.0, 116.0);

/// A person's position of this number: whoever sees it knows which it is.
pub(crate) fn position(number: u64) -> Position {
    Position::new(TOWN.0 + number as f64 * STEP_M / DEGREE_M, TOWN.1).unwrap()
}

/// The number of a position that was shown.
fn number(friend: &Friend) -> u64 {
    ((friend.lat_lon().0 - TOWN.0) * DEGREE_M / STEP_M).round() as u64
}

#[derive(Default)]
pub(crate) struct Judge(Mutex<Seen>);

#[derive(Default)]
struct Seen {
    /// Pairs of whom neither may be shown the other: their end was acknowledged, and no record made them friends since
    /// it was asked for.
    forbidden: BTreeSet<(UserId, UserId)>,
    /// How often the record of a pair was made one of friends.
    made: BTreeMap<(UserId, UserId), u64>,
    /// Positions that were posted from before a connection. When nobody shares by then, because the connection was cut
    /// meanwhile, such a one begins a sequence of its own: it may be older than what was shown.
    posted: BTreeSet<(UserId, u64)>,
    violation: Option<String>,
    revokes: u64,
    shown: u64,
}

/// What a run came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Ends of friendships that were acknowledged.
    pub(crate) revokes: u64,
    /// Positions that were handed to a socket.
    pub(crate) shown: u64,
}

fn pair(one: UserId, other: UserId) -> (UserId, UserId) {
    (one.min(other), one.max(other))
}

impl Judge {
    pub(crate) fn found(&self, violation: String) {
        self.0.lock().violation.get_or_insert(violation);
    }

    pub(crate) fn violation(&self) -> Option<String> {
        self.0.lock().violation.clone()
    }

    pub(crate) fn tally(&self) -> Tally {
        let seen = self.0.lock();
        Tally { revokes: seen.revokes, shown: seen.shown }
    }

    /// The record of the two is about to say that they are friends.
    pub(crate) fn befriended(&self, one: UserId, other: UserId) {
        let mut seen = self.0.lock();
        seen.forbidden.remove(&pair(one, other));
        *seen.made.entry(pair(one, other)).or_default() += 1;
    }

    /// How often they were made friends: to be kept by who is about to ask for the end.
    pub(crate) fn times_made(&self, one: UserId, other: UserId) -> u64 {
        self.0.lock().made.get(&pair(one, other)).copied().unwrap_or_default()
    }

    /// The end of a friendship was acknowledged, which was asked for when they had been made friends so often.
    pub(crate) fn revoked(&self, one: UserId, other: UserId, made_before: u64) {
        let mut seen = self.0.lock();
        if seen.made.get(&pair(one, other)).copied().unwrap_or_default() == made_before {
            seen.forbidden.insert(pair(one, other));
        }
        seen.revokes += 1;
    }

    /// A position from before a connection is posted.
    pub(crate) fn posting(&self, user: UserId, number: u64) {
        self.0.lock().posted.insert((user, number));
    }

    /// How long the control log waited for the nodes.
    pub(crate) fn settled_after(&self, took: Duration) {
        if took > LONGEST_REVOKE {
            self.found(format!("a revoke waited {took:?}"));
        }
    }

    /// Frames are handed to a viewer's socket; returns whose positions they hold, by number.
    pub(crate) fn handed(&self, line: &Line, frames: &[ServerFrame]) -> Vec<(UserId, u64)> {
        let mut shown = Vec::new();
        for frame in frames {
            match frame {
                ServerFrame::Nearby(page) => {
                    line.begin_view();
                    shown.extend(page.friends.iter().map(|friend| self.shown(line, friend)));
                }
                ServerFrame::Friend(friend) => shown.push(self.shown(line, friend)),
                ServerFrame::Gone { id, .. } => line.lose(*id),
                _ => {}
            }
        }
        shown
    }

    fn shown(&self, line: &Line, friend: &Friend) -> (UserId, u64) {
        let (id, number) = (friend.id(), number(friend));
        let before = line.see(id, number);
        let mut seen = self.0.lock();
        seen.shown += 1;
        let violation = if seen.forbidden.contains(&pair(line.user, id)) {
            Some("after the end of their friendship".to_owned())
        } else {
            let goes_back = |before: &u64| *before > number && !seen.posted.contains(&(id, number));
            before.filter(goes_back).map(|before| format!("after {before}"))
        };
        if let Some(violation) = violation {
            let violation = format!("{:?} was shown position {number} of {id:?} {violation}", line.user);
            seen.violation.get_or_insert(violation);
        }
        (id, number)
    }
}
