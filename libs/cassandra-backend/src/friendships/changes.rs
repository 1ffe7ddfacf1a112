//! Notes of changes that may have been written and were not announced. Without them a sweep would have to read every
//! pair there is.
//!
//! Notes lie in partitions of one minute and one bucket of pairs. Which minutes hold notes that are still needed is
//! remembered (`sweeps.rs`), so that a reader looks at a few minutes. A minute is left behind for good only after it is
//! [`SETTLED`]: no writer can add a note to it any more. Notes that are still there by then were left by a process that
//! crashed or hangs; they are written anew in the present minute first ([`Changes::carry`]).

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, TryStreamExt};
use model::TimestampMs;
use ports::{ChangeNote, PortError};
use scylla::statement::prepared::PreparedStatement;
use scylla::value::CqlVarint;

use super::ABREAST;
use super::pairs::Pair;
use crate::error::unavailable;
use crate::session::{CassandraSession, Kind};
use crate::time::{later_than_all, write_time};
use crate::value::{user, varint};

const MINUTE_MS: u64 = 60_000;

/// Partitions of a minute. A minute's notes become tombstones when they are announced, of which the database reads at
/// most 100,000 in one partition: 16 of them hold what 26,000 changes a second leave. Kept in the database: never
/// changed without a migration.
const BUCKETS: i8 = 16;

/// Minutes after which a note expires: the table's `default_time_to_live`.
const KEPT: u64 = 2 * 24 * 60;

/// Minutes that a writer's clock may be ahead.
const LOOK_AHEAD: u64 = 2;

/// A note that is not acknowledged within this time after its minute was chosen may be in a minute that nobody reads
/// any more: the change is refused. At most; tests have it shorter.
pub(super) const NOTED_WITHIN: Duration = Duration::from_secs(30);

/// Minutes that ended this long ago get no new notes: [`NOTED_WITHIN`], and 90 s that the clocks of two machines may
/// differ.
const SETTLED: Duration = Duration::from_secs(120);

/// Names one attempt to change a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Note {
    pub(super) pair: Pair,
    minute: u64,
    nonce: i64,
    /// The minute in which the change was first noted.
    since: u64,
}

pub(super) struct Changes {
    session: Arc<CassandraSession>,
    noted_within: Duration,
    add: PreparedStatement,
    remove: PreparedStatement,
    of_bucket: PreparedStatement,
}

impl Note {
    /// As the port has it.
    pub(super) fn given(self) -> ChangeNote {
        let Note { pair, minute, nonce, .. } = self;
        ChangeNote { user: pair.low, friend: pair.high, minute, nonce: nonce.cast_unsigned() }
    }

    /// Whether the change was noted at least so long ago. Minutes count once they have ended; with zero all.
    pub(super) fn is_older_than(&self, age: Duration, now: TimestampMs) -> bool {
        age.is_zero() || self.since < minute_of(now.before(age))
    }

    /// Whether its minute is about to be left behind.
    pub(super) fn is_settled(&self, now: TimestampMs) -> bool {
        self.minute <= settled(now)
    }
}

impl Changes {
    pub(super) async fn new(session: Arc<CassandraSession>, noted_within: Duration) -> Result<Changes, PortError> {
        let add = "INSERT INTO friendship_changes (minute, bucket, low, high, nonce, since) VALUES (?, ?, ?, ?, ?, ?) \
             USING TIMESTAMP ?";
        let remove = "DELETE FROM friendship_changes USING TIMESTAMP ? \
             WHERE minute = ? AND bucket = ? AND low = ? AND high = ? AND nonce = ?";
        let of_bucket = "SELECT low, high, nonce, since FROM friendship_changes WHERE minute = ? AND bucket = ?";
        Ok(Changes {
            noted_within: noted_within.min(NOTED_WITHIN),
            add: session.prepare(add, Kind::Repeatable).await?,
            remove: session.prepare(remove, Kind::Repeatable).await?,
            of_bucket: session.prepare(of_bucket, Kind::Repeatable).await?,
            session,
        })
    }

    /// To be called after the pair was read and before its row is touched: whoever reads the note and then renews the
    /// pair's epoch knows that the change was written before or will not be.
    pub(super) async fn note(&self, pair: Pair) -> Result<Note, PortError> {
        let clock = self.session.clock();
        let begun = clock.monotonic();
        let minute = minute_of(clock.wall());
        let note = Note { pair, minute, nonce: rand::random(), since: minute };
        self.insert(note).await?;
        if clock.monotonic().since(begun) >= self.noted_within {
            return Err(unavailable("a change of friends could not be noted in time"));
        }
        Ok(note)
    }

    /// Writes what was left behind anew, in the present minute.
    pub(super) async fn carry(&self, note: Note) -> Result<Note, PortError> {
        let carried = Note { minute: minute_of(self.session.clock().wall()), nonce: rand::random(), ..note };
        self.insert(carried).await?;
        self.done(note.given()).await?;
        Ok(carried)
    }

    async fn insert(&self, note: Note) -> Result<(), PortError> {
        let Note { pair, minute, nonce, since } = note;
        let at = write_time(self.session.clock());
        let values = (number(minute), bucket(pair), varint(pair.low), varint(pair.high), nonce, number(since), at);
        self.session.run(&self.add, values).await
    }

    /// The change was announced, or nothing was written.
    pub(super) async fn done(&self, note: ChangeNote) -> Result<(), PortError> {
        let Some(pair) = Pair::of(note.user, note.friend) else { return Ok(()) };
        let at = later_than_all(self.session.clock());
        let (low, high) = (varint(pair.low), varint(pair.high));
        let values = (at, number(note.minute), bucket(pair), low, high, note.nonce.cast_signed());
        self.session.run(&self.remove, values).await
    }

    /// Notes after the minute `swept` that `wants`, also those of changes that are under way, and the last minute that
    /// was read: a minute that brings the notes to `most` or more is the last.
    pub(super) async fn after(
        &self,
        swept: Option<u64>,
        now: TimestampMs,
        most: usize,
        wants: impl Fn(&Note) -> bool + Send + Sync,
    ) -> Result<(Vec<Note>, u64), PortError> {
        let (oldest, last) = (minute_of(now).saturating_sub(KEPT), minute_of(now) + LOOK_AHEAD);
        let mut notes = Vec::new();
        for minute in swept.map_or(oldest, |swept| oldest.max(swept + 1))..=last {
            let reads = (0..BUCKETS).map(|bucket| Ok(self.of_bucket(minute, bucket)));
            let read: Vec<Vec<Note>> = stream::iter(reads).try_buffer_unordered(ABREAST).try_collect().await?;
            notes.extend(read.into_iter().flatten().filter(&wants));
            if notes.len() >= most {
                return Ok((notes, minute));
            }
        }
        Ok((notes, last))
    }

    async fn of_bucket(&self, minute: u64, bucket: i8) -> Result<Vec<Note>, PortError> {
        let values = (number(minute), bucket);
        let rows: Vec<(CqlVarint, CqlVarint, i64, Option<i64>)> = self.session.rows(&self.of_bucket, values).await?;
        let note = |(low, high, nonce, since): &(CqlVarint, CqlVarint, i64, Option<i64>)| {
            let pair = Pair { low: user(low)?, high: user(high)? };
            let since = since.and_then(|since| u64::try_from(since).ok()).unwrap_or(minute);
            Ok(Note { pair, minute, nonce: *nonce, since })
        };
        rows.iter().map(note).collect()
    }
}

/// The last minute to which no writer can add a note any more.
pub(super) fn settled(now: TimestampMs) -> u64 {
    minute_of(now.before(SETTLED)).saturating_sub(1)
}

fn minute_of(at: TimestampMs) -> u64 {
    at.0 / MINUTE_MS
}

/// Minutes as the database keeps them.
pub(super) fn number(minute: u64) -> i64 {
    i64::try_from(minute).unwrap_or(i64::MAX)
}

/// A pair's bucket: the highest bits of a product, which depend on all bits of both ids.
fn bucket(pair: Pair) -> i8 {
    const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;
    let mixed = (pair.low.0.wrapping_mul(GOLDEN).rotate_left(32) ^ pair.high.0).wrapping_mul(GOLDEN);
    (mixed >> 60) as i8
}

#[cfg(test)]
mod tests {
    use model::UserId;

    use super::*;

    #[test]
    fn pairs_spread_over_all_buckets() {
        let mut pairs = [0; BUCKETS as usize];
        for low in 0..80 {
            for high in 100..180 {
                pairs[bucket(Pair { low: UserId(low), high: UserId(high) }) as usize] += 1;
            }
        }
        assert!(pairs.iter().all(|pairs| (300..=500).contains(pairs)), "{pairs:?}");
    }
}
