//! History that is acknowledged while the database is away: what cannot be written there is kept on this node's disk,
//! and written when it is back.
//!
//! A point is acknowledged when the database's quorum has it, or when the disk has (see `LocationHistory::append` of
//! the spool's backend). The spool is a row of segments, each a history of its own in a directory of its own: a
//! segment is written to, closed, replayed from its beginning until its end, and deleted as a whole. Replaying may be
//! repeated, so a crash at any moment repeats some of it and loses nothing. The spool is bounded; when it is full,
//! appending fails as it would without one.
//!
//! Until it is replayed, what is in a spool is read only through its own node. A `forget` by another node holds for it
//! all the same: see [`CassandraHistory::replay`].

mod replay;
mod segments;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use async_trait::async_trait;
use model::{TimestampMs, UserId};
use ports::{HistoryPoint, LocationHistory, PortError};

use crate::error::unavailable;
use crate::history::CassandraHistory;
use segments::Segments;

/// Opens the history that is in a directory, and makes it if there is none. May block.
pub type OpenSegment = dyn Fn(&Path) -> Result<Arc<dyn LocationHistory>, PortError> + Send + Sync;

/// How much a spool may hold, and where.
#[derive(Clone, Debug)]
pub struct SpoolSettings {
    /// A directory for nothing else.
    pub directory: PathBuf,
    /// Points that wait at most: an update takes about 60 bytes of disk.
    pub max_points: usize,
    /// Points that are replayed in a second at most, so that a database that is just back is not thrown down again.
    pub replay_per_second: usize,
}

/// The history in a keyspace, with a spool in front of it. [`SpooledHistory::run`] empties the spool.
pub struct SpooledHistory {
    behind: Arc<CassandraHistory>,
    settings: SpoolSettings,
    segments: Segments,
    /// Points that wait, those of appends under way included.
    backlog: AtomicUsize,
    /// The database did not take what it was given last: not asked again by every append, which would each wait for
    /// its deadline.
    is_away: AtomicBool,
}

impl SpooledHistory {
    /// Opens the spool with all that earlier processes left in it.
    pub async fn open(
        behind: Arc<CassandraHistory>,
        settings: SpoolSettings,
        open: Arc<OpenSegment>,
    ) -> Result<SpooledHistory, PortError> {
        let segments = Segments::open(settings.directory.clone(), open).await?;
        let spooled = SpooledHistory {
            behind,
            settings,
            segments,
            backlog: AtomicUsize::new(0),
            is_away: AtomicBool::new(false),
        };
        let left = spooled.count().await?;
        spooled.backlog.store(left, Ordering::Relaxed);
        if left > 0 {
            tracing::info!(points = left, "history was left in the spool and will be replayed");
        }
        Ok(spooled)
    }

    /// Points that are on this node's disk and not in the database yet.
    pub fn backlog(&self) -> usize {
        self.backlog.load(Ordering::Relaxed)
    }

    async fn spool(&self, points: &[HistoryPoint]) -> Result<(), PortError> {
        let reserve = |backlog: usize| Some(backlog + points.len()).filter(|sum| *sum <= self.settings.max_points);
        if self.backlog.fetch_update(Ordering::Relaxed, Ordering::Relaxed, reserve).is_err() {
            return Err(unavailable("away, and the spool is full"));
        }
        // Held until the points are on disk: a segment is not replayed while somebody writes to it.
        let segment = self.segments.active();
        segment.points.fetch_add(points.len(), Ordering::Relaxed);
        segment.history.append(points).await
    }
}

/// What was read from several places, of which each gave its first points. Of two with the same key the later place's
/// counts.
fn merge<Key: Ord>(
    places: Vec<Vec<HistoryPoint>>,
    limit: usize,
    key: impl Fn(&HistoryPoint) -> Key,
) -> Vec<HistoryPoint> {
    let points = places.into_iter().flatten().map(|point| (key(&point), point));
    points.collect::<BTreeMap<Key, HistoryPoint>>().into_values().take(limit).collect()
}

#[async_trait]
impl LocationHistory for SpooledHistory {
    async fn append(&self, points: &[HistoryPoint]) -> Result<(), PortError> {
        if !self.is_away.load(Ordering::Relaxed) {
            match self.behind.append(points).await {
                Err(error) if error.is_transient() => {
                    if !self.is_away.swap(true, Ordering::Relaxed) {
                        tracing::warn!(%error, "history goes to the spool");
                    }
                }
                outcome => return outcome,
            }
        }
        self.spool(points).await
    }

    async fn range(
        &self,
        user: UserId,
        from: TimestampMs,
        to: TimestampMs,
        limit: usize,
    ) -> Result<Vec<HistoryPoint>, PortError> {
        // The segments first: what leaves one in between is in the database by then. That one's points count, as they
        // will after the replay.
        let mut places = Vec::new();
        for segment in self.segments.all() {
            places.push(segment.history.range(user, from, to, limit).await?);
        }
        places.push(self.behind.range(user, from, to, limit).await?);
        Ok(merge(places, limit, |point| point.ts))
    }

    async fn export_day(
        &self,
        day: u64,
        after: Option<(UserId, TimestampMs)>,
        limit: usize,
    ) -> Result<Vec<HistoryPoint>, PortError> {
        let mut places = Vec::new();
        for segment in self.segments.all() {
            places.push(segment.history.export_day(day, after, limit).await?);
        }
        places.push(self.behind.export_day(day, after, limit).await?);
        Ok(merge(places, limit, |point| (point.user, point.ts)))
    }

    async fn forget(&self, user: UserId) -> Result<(), PortError> {
        for segment in self.segments.all() {
            segment.history.forget(user).await?;
        }
        self.behind.forget(user).await
    }

    async fn drop_days_before(&self, day: u64) -> Result<(), PortError> {
        for segment in self.segments.all() {
            segment.history.drop_days_before(day).await?;
        }
        self.behind.drop_days_before(day).await
    }
}
