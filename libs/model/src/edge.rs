//! The one door for privacy.

use crate::{Fix, Meters, MonotonicMs, Motion, Place, PolicyVersion, Position, TimestampMs, UserId, haversine};

/// How much of a position a friend is shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Level {
    /// Nothing.
    Hidden,
    /// The point as it was given.
    Exact,
}

/// The permission of one viewer to see one friend, as the viewer's node knows it now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Edge {
    /// How much the friend shows this viewer.
    pub level: Level,
    /// The index of the control log up to which this permission is known to hold.
    pub policy: PolicyVersion,
}

/// What one friend may see of a [`Fix`], and the only form of a position that can be encoded for a client.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SharedFix {
    user: UserId,
    place: Place,
    ts: TimestampMs,
    motion: Motion,
}

impl Edge {
    /// What the holder of this edge may see of `fix` at `now`: nothing if the friend shows nothing, if the fix is
    /// older than the TTL, or if it was taken in under permissions newer than this edge (until the edge has caught up).
    pub fn reveal(&self, fix: &Fix, now: MonotonicMs) -> Option<SharedFix> {
        if now >= fix.expires || fix.policy > self.policy {
            return None;
        }
        match self.level {
            Level::Hidden => None,
            Level::Exact => Some(SharedFix { user: fix.user, place: fix.place, ts: fix.order.ts, motion: fix.motion }),
        }
    }
}

impl SharedFix {
    /// Whose.
    pub fn user(&self) -> UserId {
        self.user
    }

    /// Where, as far as it is shared.
    pub fn position(&self) -> Position {
        self.place.position()
    }

    /// The same with its unit vector.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// The device's time, as far as it is shared.
    pub fn ts(&self) -> TimestampMs {
        self.ts
    }

    /// What else is shared.
    pub fn motion(&self) -> &Motion {
        &self.motion
    }

    /// The distance from a viewer, computed from the shared point.
    pub fn distance_from(&self, viewer: Position) -> Meters {
        haversine(viewer, self.position())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Generation, Order};

    fn fix() -> Fix {
        Fix {
            user: UserId(7),
            place: Place::new(Position::new(40.0, 116.0).unwrap()),
            order: Order { generation: Generation(1), ts: TimestampMs(1_000), ..Order::default() },
            expires: MonotonicMs(600_000),
            policy: PolicyVersion(5),
            motion: Motion::UNKNOWN,
        }
    }

    const NOW: MonotonicMs = MonotonicMs(10);

    #[test]
    fn an_exact_edge_shows_the_point() {
        let edge = Edge { level: Level::Exact, policy: PolicyVersion(5) };
        let shared = edge.reveal(&fix(), NOW).unwrap();
        assert_eq!(
            (shared.user(), shared.position(), shared.ts()),
            (UserId(7), fix().place.position(), TimestampMs(1_000))
        );
    }

    #[test]
    fn a_hidden_edge_shows_nothing() {
        assert_eq!(Edge { level: Level::Hidden, policy: PolicyVersion(5) }.reveal(&fix(), NOW), None);
    }

    #[test]
    fn a_fix_is_gone_at_its_time_to_live() {
        let edge = Edge { level: Level::Exact, policy: PolicyVersion(5) };
        assert!(edge.reveal(&fix(), MonotonicMs(599_999)).is_some());
        assert_eq!(edge.reveal(&fix(), MonotonicMs(600_000)), None);
    }

    #[test]
    fn an_edge_older_than_the_fix_shows_nothing_until_it_has_caught_up() {
        assert_eq!(Edge { level: Level::Exact, policy: PolicyVersion(4) }.reveal(&fix(), NOW), None);
    }
}
