//! Notes of the changes under way, a partition a minute: what is left of them is what a crash left half done. Without
//! them a sweep would have to read every pair there is.

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, StreamExt, TryStreamExt};
use model::TimestampMs;
use ports::PortError;
use scylla::statement::prepared::PreparedStatement;
use scylla::value::CqlVarint;

use super::pairs::Pair;
use crate::session::{CassandraSession, Kind};
use crate::time::write_time;
use crate::value::{user, varint};

const MINUTE_MS: u64 = 60_000;

/// Minutes that are looked through for notes: a day and a bit, and what clocks may be ahead.
const LOOK_BACK: u64 = 25 * 60;
const LOOK_AHEAD: u64 = 2;

/// Partitions read at a time.
const ABREAST: usize = 32;

/// Names one attempt to change a pair.
pub(super) struct Note {
    pub(super) pair: Pair,
    minute: i64,
    nonce: i64,
}

pub(super) struct Changes {
    session: Arc<CassandraSession>,
    add: PreparedStatement,
    remove: PreparedStatement,
    of_minute: PreparedStatement,
}

impl Changes {
    pub(super) async fn new(session: Arc<CassandraSession>) -> Result<Changes, PortError> {
        let add = "INSERT INTO friendship_changes (minute, low, high, nonce) VALUES (?, ?, ?, ?) USING TIMESTAMP ?";
        let remove = "DELETE FROM friendship_changes USING TIMESTAMP ? \
             WHERE minute = ? AND low = ? AND high = ? AND nonce = ?";
        let of_minute = "SELECT low, high, nonce FROM friendship_changes WHERE minute = ?";
        Ok(Changes {
            add: session.prepare(add, Kind::Repeatable).await?,
            remove: session.prepare(remove, Kind::Repeatable).await?,
            of_minute: session.prepare(of_minute, Kind::Repeatable).await?,
            session,
        })
    }

    /// Before the pair's row is touched.
    pub(super) async fn note(&self, pair: Pair) -> Result<Note, PortError> {
        let note = Note { pair, minute: minute(self.session.clock().wall()) as i64, nonce: rand::random() };
        let at = write_time(self.session.clock());
        let values = (note.minute, varint(pair.low), varint(pair.high), note.nonce, at);
        self.session.run(&self.add, values).await?;
        Ok(note)
    }

    /// After both derived rows are written.
    pub(super) async fn done(&self, note: &Note) -> Result<(), PortError> {
        // Another machine may do this, whose clock is behind: the note is used once, so anything later will do.
        let at = write_time(self.session.clock()) + MINUTE_MS as i64 * 1_000 * LOOK_AHEAD as i64;
        let values = (at, note.minute, varint(note.pair.low), varint(note.pair.high), note.nonce);
        self.session.run(&self.remove, values).await
    }

    /// Notes of the minutes that ended so long ago; with zero all, also those of changes that are under way.
    pub(super) async fn older_than(&self, age: Duration) -> Result<Vec<Note>, PortError> {
        let now = self.session.clock().wall();
        let last = if age.is_zero() { minute(now) + LOOK_AHEAD } else { minute(now.before(age)).saturating_sub(1) };
        let first = minute(now).saturating_sub(LOOK_BACK);
        let reads = (first..=last).map(|minute| self.of_minute(minute as i64));
        let notes: Vec<Vec<Note>> = stream::iter(reads).buffer_unordered(ABREAST).try_collect().await?;
        Ok(notes.into_iter().flatten().collect())
    }

    async fn of_minute(&self, minute: i64) -> Result<Vec<Note>, PortError> {
        let rows: Vec<(CqlVarint, CqlVarint, i64)> = self.session.rows(&self.of_minute, (minute,)).await?;
        let note = |(low, high, nonce): &(CqlVarint, CqlVarint, i64)| {
            let pair = Pair { low: user(low)?, high: user(high)? };
            Ok(Note { pair, minute, nonce: *nonce })
        };
        rows.iter().map(note).collect()
    }
}

fn minute(at: TimestampMs) -> u64 {
    at.0 / MINUTE_MS
}
