//! One exact position of one person at one time.

use crate::{Generation, MonotonicMs, Motion, Place, PolicyVersion, Sequence, TimestampMs, UserId};

/// Which of two positions of one user is the newer: first by the sharing device's generation, then by the device's own
/// time, and of several reports of one time the one that was received last. The fields are compared in this order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Order {
    /// The sharing device's claim.
    pub generation: Generation,
    /// The device's own time of the fix.
    pub ts: TimestampMs,
    /// The number of the report at the node that took it in.
    pub seq: Sequence,
}

/// An exact position. It deliberately implements nothing that could carry it to a client: what a friend may see comes
/// out of [`crate::Edge::reveal`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fix {
    /// Whose.
    pub user: UserId,
    /// Where.
    pub place: Place,
    /// When, among the user's positions.
    pub order: Order,
    /// When it stops counting as activity, by this process's steady clock: receipt + TTL. A record that crosses to
    /// another machine carries the time left.
    pub expires: MonotonicMs,
    /// How far the owner's permissions had come on the node that took it in.
    pub policy: PolicyVersion,
    /// What else the device said.
    pub motion: Motion,
}

impl Fix {
    /// Whether a friend would be shown the same of both: user, device time, position and motion. When they expire, and
    /// in which order they were received, is not shown.
    pub fn shows_the_same(&self, other: &Fix) -> bool {
        let shown = |fix: &Fix| (fix.user, fix.order.ts, fix.place.position(), fix.motion);
        shown(self) == shown(other)
    }
}
