//! History: a partition per user and UTC day.
//!
//! # Which write stays
//!
//! A row's timestamp is the time at which the point was accepted, not the device's: the same point sent again with
//! other values must win over the first, and one that is appended after a `forget` must stay though its device time
//! lies before it. Points that were accepted earlier and come late (`replay`, from a spool) are written with a
//! timestamp that is certainly not after their acceptance. So a `forget`, whose tombstones carry its own time, stays
//! above everything accepted before it, whenever that arrives.
//!
//! This compares clocks of two machines, as every delete in Cassandra does. `forget` therefore adds `CLOCK_ERROR` to
//! its own time, and returns when also a machine that is as much behind would write above it.
//!
//! # How days are found
//!
//! Two indexes are written before the first point of a user and day: the days of a user (`range`, `forget`) and the
//! users of a day (`export_day`, `drop_days_before`). They may name what is no longer there and never lack what is:
//! `forget` leaves them to expire, because a node remembers for the days around today what it has registered.

mod export;
mod forget;
mod index;
mod row;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use model::{TimestampMs, UserId};
use ports::history::AHEAD;
use ports::{HistoryPoint, LocationHistory, PortError};
use scylla::statement::batch::{Batch, BatchType};
use scylla::statement::prepared::PreparedStatement;
use scylla::value::{CqlTimestamp, CqlVarint};

use crate::session::{CassandraSession, Kind};
use crate::time::write_times;
use crate::value::{day, limit, timestamp, timestamp_or_last, varint};
use index::Index;

/// Rows in one batch, all of one partition: 50 cost a seventh of single ones, and stay below the size at which the
/// database warns.
const BATCH_ROWS: usize = 50;

/// Requests of one call at a time.
const ABREAST: usize = 32;

/// Rows read at once; a longer answer is read in several steps.
const READ_ROWS: usize = 5_000;

/// A row's columns, then its timestamp and time to live.
type RowValues = (CqlVarint, i64, CqlTimestamp, Vec<u8>, i64, i32);

/// The history in a keyspace.
pub struct CassandraHistory {
    session: Arc<CassandraSession>,
    retention: Duration,
    index: Index,
    insert: PreparedStatement,
    select: PreparedStatement,
    delete: PreparedStatement,
    set_forgotten: PreparedStatement,
    forgotten: PreparedStatement,
}

impl CassandraHistory {
    /// On a connection. Points are kept for `retention` after their day.
    pub async fn new(session: Arc<CassandraSession>, retention: Duration) -> Result<CassandraHistory, PortError> {
        let insert = "INSERT INTO history (user_id, day, ts, point) VALUES (?, ?, ?, ?) USING TIMESTAMP ? AND TTL ?";
        let select = "SELECT ts, point FROM history WHERE user_id = ? AND day = ? AND ts >= ? AND ts < ? LIMIT ?";
        let delete = "DELETE FROM history USING TIMESTAMP ? WHERE user_id = ? AND day = ?";
        let set_forgotten = "INSERT INTO history_forgotten (user_id, at) VALUES (?, ?) USING TIMESTAMP ? AND TTL ?";
        let forgotten = "SELECT at FROM history_forgotten WHERE user_id = ?";
        Ok(CassandraHistory {
            set_forgotten: session.prepare(set_forgotten, Kind::Repeatable).await?,
            forgotten: session.prepare(forgotten, Kind::Repeatable).await?,
            insert: session.prepare(insert, Kind::Repeatable).await?,
            select: session.prepare(select, Kind::Repeatable).await?,
            delete: session.prepare(delete, Kind::Repeatable).await?,
            index: Index::new(session.clone()).await?,
            session,
            retention,
        })
    }

    /// Keeps points that were accepted earlier, by this process or one before it, and are only now written. Those of
    /// a user who was forgotten since stay forgotten; those older than the retention are left out. May be repeated.
    ///
    /// What is not known is when each was accepted: certainly not before its device time less `AHEAD`, which is
    /// therefore its timestamp. A user who was forgotten and made anew loses what comes this way and has a device
    /// time less than that after the `forget`.
    pub async fn replay(&self, points: &[HistoryPoint]) -> Result<(), PortError> {
        let oldest = self.oldest_day();
        let at = |point: &HistoryPoint| day(point.ts.before(AHEAD).0).saturating_mul(1_000);
        let points = points.iter().filter(|point| point.ts.day() >= oldest);
        let mut points: Vec<(HistoryPoint, i64)> = points.map(|point| (*point, at(point))).collect();
        let users: BTreeSet<UserId> = points.iter().map(|(point, _)| point.user).collect();
        let asked = stream::iter(users.into_iter().map(|user| self.forgotten_at(user)));
        let forgotten: BTreeMap<UserId, i64> = asked.buffer_unordered(ABREAST).try_collect().await?;
        points.retain(|(point, at)| forgotten.get(&point.user).is_none_or(|forgotten| at > forgotten));
        self.write(&points).await
    }

    async fn write(&self, points: &[(HistoryPoint, i64)]) -> Result<(), PortError> {
        let now = self.session.clock().wall();
        let mut partitions: BTreeMap<(u64, UserId), Vec<RowValues>> = BTreeMap::new();
        for (point, at) in points {
            let (user, of_day) = (point.user, point.ts.day());
            let ttl = self.time_to_live(of_day, now);
            let row = (varint(user), day(of_day), timestamp(point.ts)?, row::encode(point).to_vec(), *at, ttl);
            partitions.entry((of_day, user)).or_default().push(row);
        }
        let registered = partitions.keys().map(|(day, user)| (*day, *user, self.time_to_live(*day, now)));
        self.index.register(registered, now).await?;
        let batches = partitions.into_values().flat_map(|mut rows| {
            let mut batches = Vec::new();
            while rows.len() > BATCH_ROWS {
                batches.push(rows.split_off(rows.len() - BATCH_ROWS));
            }
            batches.push(rows);
            batches
        });
        let writes = stream::iter(batches.map(|rows| Ok(self.insert_rows(rows))));
        writes.try_buffer_unordered(ABREAST).try_collect().await
    }

    /// Rows of one partition.
    async fn insert_rows(&self, mut rows: Vec<RowValues>) -> Result<(), PortError> {
        if rows.len() == 1
            && let Some(row) = rows.pop()
        {
            return self.session.run(&self.insert, row).await;
        }
        let mut batch = Batch::new(BatchType::Unlogged);
        for _ in &rows {
            batch.append_statement(self.insert.clone());
        }
        batch.set_is_idempotent(true);
        self.session.batch(&batch, rows).await
    }

    /// Of one user and day, from `from` until before `to`.
    async fn read_day(
        &self,
        user: UserId,
        of_day: u64,
        from: TimestampMs,
        to: TimestampMs,
        most: usize,
    ) -> Result<Vec<HistoryPoint>, PortError> {
        let mut points: Vec<HistoryPoint> = Vec::new();
        let mut from = from;
        loop {
            let wanted = (most - points.len()).min(READ_ROWS);
            let key = (varint(user), day(of_day));
            let span = (timestamp_or_last(from), timestamp_or_last(to));
            let values = (key.0, key.1, span.0, span.1, limit(wanted));
            let rows: Vec<(CqlTimestamp, Vec<u8>)> = self.session.rows(&self.select, values).await?;
            let is_last = rows.len() < wanted;
            for (ts, point) in rows {
                points.push(row::decode(user, ts, &point)?);
            }
            match points.last() {
                Some(last) if !is_last && points.len() < most => from = TimestampMs(last.ts.0 + 1),
                _ => return Ok(points),
            }
        }
    }

    /// The days that points may be of: those that are kept, and those that a device may be ahead.
    pub(crate) fn days(&self) -> RangeInclusive<u64> {
        self.oldest_day()..=self.session.clock().wall().after(AHEAD).day()
    }

    /// The first day that is kept.
    fn oldest_day(&self) -> u64 {
        self.session.clock().wall().before(self.retention).day()
    }

    /// The longest that anything is kept, in seconds.
    fn seconds_kept(&self) -> i32 {
        i32::try_from(self.retention.as_secs() + 2 * TimestampMs::DAY_MS / 1_000).unwrap_or(i32::MAX)
    }

    /// Seconds until the day's retention ends: all its points go together, whenever they came. A day that is over by
    /// then, or far ahead, gets the retention from now.
    fn time_to_live(&self, day: u64, now: TimestampMs) -> i32 {
        let retention = self.retention.as_secs();
        let end = (day + 1).saturating_mul(TimestampMs::DAY_MS / 1_000).saturating_add(retention);
        let left = end.saturating_sub(now.0 / 1_000);
        let left = if left == 0 { retention } else { left };
        i32::try_from(left.max(1)).unwrap_or(i32::MAX).min(self.seconds_kept())
    }
}

#[async_trait]
impl LocationHistory for CassandraHistory {
    async fn append(&self, points: &[HistoryPoint]) -> Result<(), PortError> {
        if points.is_empty() {
            return Ok(());
        }
        let first = write_times(self.session.clock(), points.len());
        self.write(&points.iter().copied().zip(first..).collect::<Vec<_>>()).await
    }

    async fn range(
        &self,
        user: UserId,
        from: TimestampMs,
        to: TimestampMs,
        limit: usize,
    ) -> Result<Vec<HistoryPoint>, PortError> {
        if from >= to || limit == 0 {
            return Ok(Vec::new());
        }
        let mut points = Vec::new();
        for day in self.index.days_of(user, from.day(), TimestampMs(to.0 - 1).day()).await? {
            let wanted = limit - points.len();
            points.extend(self.read_day(user, day, from, to, wanted).await?);
            if points.len() == limit {
                break;
            }
        }
        Ok(points)
    }

    async fn export_day(
        &self,
        day: u64,
        after: Option<(UserId, TimestampMs)>,
        limit: usize,
    ) -> Result<Vec<HistoryPoint>, PortError> {
        self.export(day, after, limit).await
    }

    async fn forget(&self, user: UserId) -> Result<(), PortError> {
        self.forget_all(user).await
    }

    async fn drop_days_before(&self, day: u64) -> Result<(), PortError> {
        self.drop_days(day).await
    }
}
