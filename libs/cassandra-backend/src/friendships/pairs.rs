//! The row of a pair, and the two rows that are derived from it.
//!
//! What has ended is written as ended and stays: a deleted or expired row is forgotten by the replicas that had the end
//! of it, and one that missed the end brings the friendship back. [`Pairs::erase`] is the only place that deletes rows,
//! after every replica has them as ended, so that nothing worse than an ended row can come back.

use std::sync::Arc;

use model::UserId;
use ports::PortError;
use scylla::statement::prepared::PreparedStatement;

use super::{ATTEMPTS, EXACT, OFF};
use crate::error::unavailable;
use crate::session::{CassandraSession, Kind};
use crate::time::write_time;
use crate::value::varint;

/// Two different people, the lower id first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Pair {
    pub(super) low: UserId,
    pub(super) high: UserId,
}

/// What a pair's row says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct State {
    /// Goes up with every change. A friendship that begins has the time of this, in microseconds, or the previous + 1
    /// if that is later. All other changes have the previous + 1: what deletes a pair's rows is then no later than when
    /// the friendship began, and below the epoch of the next beginning by any machine's clock.
    pub(super) epoch: i64,
    pub(super) friends: bool,
}

pub(super) struct Pairs {
    session: Arc<CassandraSession>,
    read: PreparedStatement,
    change: PreparedStatement,
    change_everywhere: PreparedStatement,
    delete_everywhere: PreparedStatement,
    derive: PreparedStatement,
    derive_everywhere: PreparedStatement,
    delete_derived_everywhere: PreparedStatement,
}

impl Pair {
    /// None for one person twice.
    pub(super) fn of(one: UserId, other: UserId) -> Option<Pair> {
        (one != other).then(|| Pair { low: one.min(other), high: one.max(other) })
    }

    pub(super) fn has(&self, user: UserId) -> bool {
        self.low == user || self.high == user
    }

    /// Viewer and friend of the two derived rows.
    fn directions(self) -> [(UserId, UserId); 2] {
        [(self.low, self.high), (self.high, self.low)]
    }
}

impl Pairs {
    pub(super) async fn new(session: Arc<CassandraSession>) -> Result<Pairs, PortError> {
        let read = "SELECT epoch, friends FROM friendships WHERE low = ? AND high = ?";
        // A pair without a row has no epoch: `IF epoch = null`.
        let change = "UPDATE friendships SET epoch = ?, friends = ? WHERE low = ? AND high = ? IF epoch = ?";
        let delete = "DELETE FROM friendships WHERE low = ? AND high = ? IF epoch = ?";
        let derive = "INSERT INTO visible_to (viewer, friend, level) VALUES (?, ?, ?) USING TIMESTAMP ?";
        let delete_derived = "DELETE FROM visible_to USING TIMESTAMP ? WHERE viewer = ? AND friend = ?";
        Ok(Pairs {
            read: session.prepare(read, Kind::Serial).await?,
            change: session.prepare(change, Kind::Conditional).await?,
            change_everywhere: session.prepare(change, Kind::ConditionalEverywhere).await?,
            delete_everywhere: session.prepare(delete, Kind::ConditionalEverywhere).await?,
            derive: session.prepare(derive, Kind::Repeatable).await?,
            derive_everywhere: session.prepare(derive, Kind::RepeatableEverywhere).await?,
            delete_derived_everywhere: session.prepare(delete_derived, Kind::RepeatableEverywhere).await?,
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
        let next = before.map_or(0, |state| state.epoch.saturating_add(1));
        let begins = friends && !before.is_some_and(|state| state.friends);
        let now = if begins || before.is_none() { write_time(self.session.clock()) } else { 0 };
        let epoch = now.max(next);
        self.write(&self.change, pair, before, State { epoch, friends }).await
    }

    /// Gives the pair a new epoch, derives from it, and leaves it as it is otherwise: a change that was begun before
    /// and has not been written never will be.
    pub(super) async fn renew(&self, pair: Pair) -> Result<(), PortError> {
        for _ in 0..ATTEMPTS {
            let before = self.read(pair).await?;
            let friends = before.is_some_and(|state| state.friends);
            if let Some(state) = self.change(pair, before, friends).await? {
                return self.derive(pair, state).await;
            }
        }
        Err(unavailable("a friendship is changed too often"))
    }

    async fn write(
        &self,
        statement: &PreparedStatement,
        pair: Pair,
        before: Option<State>,
        state: State,
    ) -> Result<Option<State>, PortError> {
        let known = before.map(|state| state.epoch);
        let values = (state.epoch, state.friends, varint(pair.low), varint(pair.high), known);
        let applied = self.session.applied(statement, values).await?;
        Ok(applied.then_some(state))
    }

    /// Writes what both see.
    pub(super) async fn derive(&self, pair: Pair, state: State) -> Result<(), PortError> {
        self.derive_by(&self.derive, pair, state).await
    }

    async fn derive_by(&self, statement: &PreparedStatement, pair: Pair, state: State) -> Result<(), PortError> {
        let level = if state.friends { EXACT } else { OFF };
        let write =
            |(viewer, friend)| self.session.run(statement, (varint(viewer), varint(friend), level, state.epoch));
        let [low, high] = pair.directions().map(write);
        tokio::try_join!(low, high).map(drop)
    }

    /// Deletes the rows of a pair who are no friends. `seen` is the timestamp of a derived row.
    ///
    /// Fails if not every replica takes part; then rows may stay, as ended. May be repeated: the derived rows go last,
    /// so that they lead here again. Does nothing for a pair who have become friends.
    pub(super) async fn erase(&self, pair: Pair, seen: i64) -> Result<(), PortError> {
        let at = match self.read(pair).await? {
            Some(state) if state.friends => return Ok(()),
            Some(before) => {
                let state = State { epoch: before.epoch.saturating_add(1), friends: false };
                if self.write(&self.change_everywhere, pair, Some(before), state).await?.is_none() {
                    return Ok(());
                }
                self.derive_by(&self.derive_everywhere, pair, state).await?;
                let values = (varint(pair.low), varint(pair.high), state.epoch);
                if !self.session.applied(&self.delete_everywhere, values).await? {
                    return Ok(());
                }
                state.epoch
            }
            // The pair's row is deleted only when every replica has the derived rows as ended.
            None => seen,
        };
        let delete =
            |(viewer, friend)| self.session.run(&self.delete_derived_everywhere, (at, varint(viewer), varint(friend)));
        let [low, high] = pair.directions().map(delete);
        tokio::try_join!(low, high).map(drop)
    }
}
