//! `LocationHistory`: where people were, for themselves and for those who learn from it.

pub mod conformance;
pub mod embedded;

use std::time::Duration;

use async_trait::async_trait;
use model::{Motion, Position, TimestampMs, UserId};

use crate::PortError;

/// One remembered position. (user, ts) names it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HistoryPoint {
    /// Whose.
    pub user: UserId,
    /// When, by the device.
    pub ts: TimestampMs,
    /// Where.
    pub position: Position,
    /// What else the device said.
    pub motion: Motion,
}

/// How far a point's device time may be ahead of the time it is appended: what sessions let through.
pub const AHEAD: Duration = Duration::from_secs(120);

/// The positions of the last days.
///
/// # Contract
///
/// 1. `append` = `Ok` when every point is durable: it survives any crash of this process and of the machine. After an
///    error any part of the batch may have been kept.
/// 2. Appending a point again (same user, same `ts`) changes nothing but its values; so every call may be repeated.
/// 3. `range` returns the points of one user with `from <= ts < to`, ascending by `ts`, at most `limit` of them:
///    fewer only when there are no more.
/// 4. `export_day` returns everybody's points of one UTC day, ascending by (user, ts), after the given pair, at most
///    `limit` of them: fewer only when there are no more.
/// 5. `forget` removes every point of a user that was appended before the call; afterwards `range` and `export_day`
///    show none of them.
/// 6. `drop_days_before` removes whole UTC days before the one given, and nothing else.
#[async_trait]
pub trait LocationHistory: Send + Sync {
    /// Keeps the points durably.
    async fn append(&self, points: &[HistoryPoint]) -> Result<(), PortError>;

    /// One user's points in a span of time.
    async fn range(
        &self,
        user: UserId,
        from: TimestampMs,
        to: TimestampMs,
        limit: usize,
    ) -> Result<Vec<HistoryPoint>, PortError>;

    /// Everybody's points of a UTC day (counted from the Unix epoch).
    async fn export_day(
        &self,
        day: u64,
        after: Option<(UserId, TimestampMs)>,
        limit: usize,
    ) -> Result<Vec<HistoryPoint>, PortError>;

    /// Removes a user's points.
    async fn forget(&self, user: UserId) -> Result<(), PortError>;

    /// Removes the days before this one.
    async fn drop_days_before(&self, day: u64) -> Result<(), PortError>;
}
