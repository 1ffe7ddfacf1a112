//! What leaves the history before its time.

use std::collections::BTreeSet;

use futures_util::stream::{self, TryStreamExt};
use model::UserId;
use ports::PortError;
use tokio::time::sleep;

use super::{ABREAST, CassandraHistory};
use crate::time::{CLOCK_ERROR, write_time};
use crate::value::{BUCKETS, day, varint};

/// Users of a day that are dropped in one step.
const STEP: usize = 1_000;

impl CassandraHistory {
    /// Every day within the retention gets its tombstone, whether there are points of it or not: a spool may still
    /// bring some. One that looked before this wrote down who is forgotten is stopped by these, one that comes when
    /// they are collected by what it finds written down.
    pub(super) async fn forget_all(&self, user: UserId) -> Result<(), PortError> {
        let today = self.session.clock().wall().day();
        let mut days: BTreeSet<u64> = (self.oldest_day()..=today + 1).collect();
        days.extend(self.index.days_of(user, 0, u64::MAX).await?);
        // Above what a machine wrote before this call whose clock is ahead.
        let at = write_time(self.session.clock()) + CLOCK_ERROR.as_micros() as i64;
        let kept = self.seconds_kept();
        self.session.run(&self.set_forgotten, (varint(user), at, at, kept)).await?;
        let deletes = days.into_iter().map(|of| Ok(self.session.run(&self.delete, (at, varint(user), day(of)))));
        stream::iter(deletes).try_buffer_unordered(ABREAST).try_collect::<()>().await?;
        // Until a machine whose clock is behind writes above it.
        sleep(2 * CLOCK_ERROR).await;
        Ok(())
    }

    /// A user, and up to which timestamp they were forgotten; the least there is for who was not.
    pub(super) async fn forgotten_at(&self, user: UserId) -> Result<(UserId, i64), PortError> {
        let rows: Vec<(Option<i64>,)> = self.session.rows(&self.forgotten, (varint(user),)).await?;
        Ok((user, rows.first().and_then(|(at,)| *at).unwrap_or(i64::MIN)))
    }

    /// A day that has expired is no longer listed, so in the ordinary course of things there is nothing to do here:
    /// rows are deleted one partition at a time only when the retention was made shorter.
    pub(super) async fn drop_days(&self, before: u64) -> Result<(), PortError> {
        for day in self.index.days_before(before).await? {
            let at = write_time(self.session.clock());
            for bucket in 0..BUCKETS {
                self.drop_bucket(day, bucket, at).await?;
            }
            self.index.drop_day(day, at).await?;
        }
        Ok(())
    }

    async fn drop_bucket(&self, of: u64, bucket: i16, at: i64) -> Result<(), PortError> {
        let mut from = Some(UserId(0));
        let mut had_users = false;
        while let Some(first) = from {
            let users = self.index.users_of(of, bucket, first, STEP).await?;
            let is_last = users.len() < STEP;
            had_users |= !users.is_empty();
            from = users.last().filter(|_| !is_last).and_then(|last| last.0.checked_add(1)).map(UserId);
            let drops = users.into_iter().map(|user| Ok(self.drop_partition(of, user, at)));
            stream::iter(drops).try_buffer_unordered(ABREAST).try_collect::<()>().await?;
        }
        if had_users { self.index.drop_bucket(of, bucket, at).await } else { Ok(()) }
    }

    async fn drop_partition(&self, of: u64, user: UserId, at: i64) -> Result<(), PortError> {
        self.session.run(&self.delete, (at, varint(user), day(of))).await?;
        self.index.drop_user(of, user, at).await
    }
}
