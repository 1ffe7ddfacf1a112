//! From the spool to the database.

use std::sync::atomic::Ordering;
use std::time::Duration;

use model::{TimestampMs, UserId};
use ports::{HistoryPoint, PortError};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::SpooledHistory;
use super::segments::Segment;

/// How often it is looked whether there is something to replay, and tried again after a failure.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// Points in one step.
const PAGE: usize = 500;

impl SpooledHistory {
    /// Replays what is spooled, until `stop`. One at a time.
    pub async fn run(&self, stop: CancellationToken) {
        let _ = stop.run_until_cancelled(self.replay_for_ever()).await;
    }

    async fn replay_for_ever(&self) {
        loop {
            if let Err(error) = self.replay_all().await {
                self.is_away.store(true, Ordering::Relaxed);
                tracing::debug!(%error, "the spool waits");
            }
            sleep(TRY_AGAIN).await;
        }
    }

    /// Until nothing is spooled any more. The active segment is closed only when it is the oldest: while the database
    /// is away there are two, however long that takes.
    async fn replay_all(&self) -> Result<(), PortError> {
        loop {
            if self.segments.oldest_closed().is_none() {
                self.segments.roll().await?;
            }
            let Some(segment) = self.segments.oldest_closed() else {
                break;
            };
            self.segments.settle(&segment).await;
            let replayed = self.replay(&segment).await?;
            self.segments.remove(segment).await?;
            let left = |backlog: usize| Some(backlog.saturating_sub(replayed));
            let _ = self.backlog.fetch_update(Ordering::Relaxed, Ordering::Relaxed, left);
            tracing::info!(points = replayed, "history was replayed from the spool");
        }
        // Nothing is left that would have to be tried first: the next append tries.
        self.is_away.store(false, Ordering::Relaxed);
        Ok(())
    }

    /// How many points the segment counted for.
    async fn replay(&self, segment: &Segment) -> Result<usize, PortError> {
        let mut replayed = 0;
        for day in self.behind.days() {
            let mut pages = Pages::of(segment, day);
            while let Some(page) = pages.next().await? {
                self.behind.replay(&page).await?;
                // It takes what it is given: what comes from now on need not wait in the spool.
                self.is_away.store(false, Ordering::Relaxed);
                replayed += page.len();
                sleep(Duration::from_secs_f64(page.len() as f64 / self.settings.replay_per_second.max(1) as f64)).await;
            }
        }
        // The same point twice is one on disk, and counted twice here.
        Ok(replayed.max(segment.points.load(Ordering::Relaxed)))
    }

    /// What earlier processes left.
    pub(super) async fn count(&self) -> Result<usize, PortError> {
        let mut count = 0;
        for segment in self.segments.all() {
            for day in self.behind.days() {
                let mut pages = Pages::of(&segment, day);
                while let Some(page) = pages.next().await? {
                    count += page.len();
                }
            }
        }
        Ok(count)
    }
}

/// A day of a segment, some points at a time.
struct Pages<'segment> {
    segment: &'segment Segment,
    day: u64,
    after: Option<(UserId, TimestampMs)>,
}

impl Pages<'_> {
    fn of(segment: &Segment, day: u64) -> Pages<'_> {
        Pages { segment, day, after: None }
    }

    async fn next(&mut self) -> Result<Option<Vec<HistoryPoint>>, PortError> {
        let page = self.segment.history.export_day(self.day, self.after, PAGE).await?;
        let Some(last) = page.last() else {
            return Ok(None);
        };
        self.after = Some((last.user, last.ts));
        Ok(Some(page))
    }
}
