//! The row of a pair, and the two rows that are derived from it.

use std::sync::Arc;

use model::UserId;
use ports::PortError;
use scylla::statement::prepared::PreparedStatement;

use super::EXACT;
use crate::session::{CassandraSession, Kind};
use crate::time::write_time;
use crate::value::varint;

/// Seconds until the row of an ended friendship goes: longer than any write can be under way. Its successor's epoch is
/// a time, and so above the epochs of before all the same.
const ENDED_TTL_S: i32 = 30 * 86_400;

/// Two different people, the lower id first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Pair {
    pub(super) low: UserId,
    pub(super) high: UserId,
}

/// What a pair's row says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct State {
    /// When it became so, in microseconds; at least the previous + 1.
    pub(super) epoch: i64,
    pub(super) friends: bool,
}

pub(super) struct Pairs {
    session: Arc<CassandraSession>,
    read: PreparedStatement,
    change: PreparedStatement,
    show: PreparedStatement,
    hide: PreparedStatement,
}

impl Pair {
    /// None for one person twice.
    pub(super) fn of(one: UserId, other: UserId) -> Option<Pair> {
        (one != other).then(|| Pair { low: one.min(other), high: one.max(other) })
    }
}

impl Pairs {
    pub(super) async fn new(session: Arc<CassandraSession>) -> Result<Pairs, PortError> {
        let read = "SELECT epoch, friends FROM friendships WHERE low = ? AND high = ?";
        // A pair without a row has no epoch: `IF epoch = null`.
        let change =
            "UPDATE friendships USING TTL ? SET epoch = ?, friends = ? WHERE low = ? AND high = ? IF epoch = ?";
        let show = "INSERT INTO visible_to (viewer, friend, level) VALUES (?, ?, ?) USING TIMESTAMP ?";
        let hide = "DELETE FROM visible_to USING TIMESTAMP ? WHERE viewer = ? AND friend = ?";
        Ok(Pairs {
            read: session.prepare(read, Kind::Serial).await?,
            change: session.prepare(change, Kind::Conditional).await?,
            show: session.prepare(show, Kind::Repeatable).await?,
            hide: session.prepare(hide, Kind::Repeatable).await?,
            session,
        })
    }

    /// What is true now: a change whose outcome nobody knows is finished or made void by reading.
    pub(super) async fn read(&self, pair: Pair) -> Result<Option<State>, PortError> {
        let key = (varint(pair.low), varint(pair.high));
        let rows: Vec<(Option<i64>, Option<bool>)> = self.session.rows(&self.read, key).await?;
        Ok(rows.first().and_then(|(epoch, friends)| Some(State { epoch: (*epoch)?, friends: *friends == Some(true) })))
    }

    /// The new state, or nothing if the pair is no longer as it was `before`.
    pub(super) async fn change(
        &self,
        pair: Pair,
        before: Option<State>,
        friends: bool,
    ) -> Result<Option<State>, PortError> {
        let known = before.map(|state| state.epoch);
        let epoch = write_time(self.session.clock()).max(known.map_or(0, |known| known.saturating_add(1)));
        let ttl = if friends { 0 } else { ENDED_TTL_S };
        let values = (ttl, epoch, friends, varint(pair.low), varint(pair.high), known);
        let applied = self.session.applied(&self.change, values).await?;
        Ok(applied.then_some(State { epoch, friends }))
    }

    /// Writes what both see.
    pub(super) async fn derive(&self, pair: Pair, state: State) -> Result<(), PortError> {
        tokio::try_join!(self.derive_one(pair.low, pair.high, state), self.derive_one(pair.high, pair.low, state),)?;
        Ok(())
    }

    async fn derive_one(&self, viewer: UserId, friend: UserId, state: State) -> Result<(), PortError> {
        let (viewer, friend) = (varint(viewer), varint(friend));
        if state.friends {
            self.session.run(&self.show, (viewer, friend, EXACT, state.epoch)).await
        } else {
            self.session.run(&self.hide, (state.epoch, viewer, friend)).await
        }
    }
}
