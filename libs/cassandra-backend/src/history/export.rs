//! A day in the order of its users.

use futures_util::stream::{self, StreamExt, TryStreamExt};
use model::{TimestampMs, UserId};
use ports::{HistoryPoint, PortError};

use super::{ABREAST, CassandraHistory};
use crate::value::BUCKETS;

/// Users asked of a bucket at once, at least and at most.
const FEWEST: usize = 4;
const MOST: usize = 1_000;

impl CassandraHistory {
    pub(super) async fn export(
        &self,
        day: u64,
        after: Option<(UserId, TimestampMs)>,
        limit: usize,
    ) -> Result<Vec<HistoryPoint>, PortError> {
        let (begin, end) = span(day);
        let mut points = Vec::new();
        let mut next = Some(UserId(0));
        if let Some((user, ts)) = after {
            let rest = TimestampMs(ts.0.saturating_add(1)).max(begin);
            points = self.read_day(user, day, rest, end, limit).await?;
            next = user.0.checked_add(1).map(UserId);
        }
        while let Some(from) = next
            && points.len() < limit
        {
            let (users, more) = self.users_from(day, from, limit - points.len()).await?;
            let wanted = limit - points.len();
            let reads = users.into_iter().map(|user| self.read_day(user, day, begin, end, wanted));
            let mut reads = stream::iter(reads).buffered(ABREAST);
            while points.len() < limit
                && let Some(of_user) = reads.try_next().await?
            {
                points.extend(of_user);
            }
            next = more;
        }
        points.truncate(limit);
        Ok(points)
    }

    /// The next users of a day, ascending, and from which one to go on.
    async fn users_from(
        &self,
        day: u64,
        from: UserId,
        wanted: usize,
    ) -> Result<(Vec<UserId>, Option<UserId>), PortError> {
        let of_each = (2 * wanted / BUCKETS as usize).clamp(FEWEST, MOST);
        let asks = (0..BUCKETS).map(|bucket| self.index.users_of(day, bucket, from, of_each));
        let buckets: Vec<Vec<UserId>> = stream::iter(asks).buffer_unordered(ABREAST).try_collect().await?;
        // Beyond the last of a bucket that has more, somebody may be missing.
        let full = buckets.iter().filter(|users| users.len() == of_each);
        let frontier = full.filter_map(|users| users.last().copied()).min();
        let mut users: Vec<UserId> = buckets.into_iter().flatten().collect();
        users.retain(|user| frontier.is_none_or(|frontier| *user <= frontier));
        users.sort_unstable();
        Ok((users, frontier.and_then(|frontier| frontier.0.checked_add(1)).map(UserId)))
    }
}

/// A day's first moment, and the first after it.
pub(super) fn span(day: u64) -> (TimestampMs, TimestampMs) {
    let begin = day.saturating_mul(TimestampMs::DAY_MS);
    (TimestampMs(begin), TimestampMs(begin.saturating_add(TimestampMs::DAY_MS)))
}
