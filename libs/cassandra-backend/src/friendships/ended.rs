//! Ended friendships: what deletes their rows.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::time::Duration;

use futures_util::stream::{self, TryStreamExt};
use model::UserId;
use ports::{ChangeNote, PortError};
use scylla::value::CqlVarint;
use tokio::time::sleep;

use super::pairs::Pair;
use super::{ABREAST, CassandraFriendships, level_of};
use crate::error::damaged;
use crate::time::{CLOCK_ERROR, write_time};
use crate::value::{user as user_of, varint};

/// Ended friendships that one new one deletes: more than one, so that they become fewer.
const DELETED_AT_ONCE: usize = 64;

/// How long ago a friendship has begun that makes room for others: far more than clocks differ by and a change takes.
const LONG_AGO: Duration = Duration::from_secs(3_600);

/// A derived row.
#[derive(Clone, Copy)]
pub(super) struct Row {
    pub(super) pair: Pair,
    pub(super) ended: bool,
    /// Its timestamp: the pair's epoch, or an earlier one.
    written: i64,
}

impl CassandraFriendships {
    /// All derived rows of a viewer, ended ones too.
    pub(super) async fn rows_of(&self, viewer: UserId) -> Result<Vec<Row>, PortError> {
        let mut rows = Vec::new();
        let each = |(friend, level, written): (CqlVarint, Option<i8>, Option<i64>)| {
            let pair = Pair::of(viewer, user_of(&friend)?).ok_or_else(|| damaged("friendship"))?;
            rows.push(Row { pair, ended: level_of(level)?.is_none(), written: written.unwrap_or(0) });
            Ok(ControlFlow::Continue(()))
        };
        self.session.scan(&self.rows, (varint(viewer),), each).await?;
        Ok(rows)
    }

    /// Ends the friendship of somebody who is deleted. A pair with a note gets a new epoch in any case, so that the
    /// change under way is not written later.
    pub(super) async fn end(&self, pair: Pair, noted: bool) -> Result<Option<ChangeNote>, PortError> {
        let note = self.change(pair, false).await?.note;
        if note.is_none() && noted {
            self.pairs.renew(pair).await?;
        }
        Ok(note)
    }

    /// Deletes the rows of somebody who is deleted, and whose friendships have all ended.
    pub(super) async fn delete_ended(&self, rows: &[Row], noted: BTreeSet<Pair>) {
        let recent = write_time(self.session.clock()) - 2 * CLOCK_ERROR.as_micros() as i64;
        let waits = !noted.is_empty() || rows.iter().any(|row| row.written > recent);
        let mut ended: BTreeMap<Pair, i64> = noted.into_iter().map(|pair| (pair, 0)).collect();
        ended.extend(rows.iter().map(|row| (row.pair, row.written)));
        if ended.is_empty() {
            return;
        }
        let deletes = ended.into_iter().map(|(pair, written)| Ok(self.pairs.erase(pair, written)));
        if let Err(error) = stream::iter(deletes).try_buffer_unordered(ABREAST).try_collect::<()>().await {
            tracing::warn!(%error, "friendships of a deleted user stay in the database, as ended: a replica is missing");
        }
        // A new friendship of the same two has to be above these deletes, also by a clock that is behind.
        if waits {
            sleep(2 * CLOCK_ERROR).await;
        }
    }

    /// Keeps the rows of somebody who makes and ends many friendships bounded. If it fails, a later friendship tries
    /// again: more rows make reading slower, and nothing wrong.
    pub(super) async fn delete_oldest_ended(&self, rows: &[Row]) {
        let mut ended: Vec<Row> = rows.iter().copied().filter(|row| row.ended).collect();
        if ended.len() <= self.limits.ended_kept {
            return;
        }
        let recent = write_time(self.session.clock()) - LONG_AGO.as_micros() as i64;
        ended.sort_by_key(|row| row.written);
        let oldest = ended.into_iter().take_while(|row| row.written < recent).take(DELETED_AT_ONCE);
        let deletes = oldest.map(|row| Ok(self.pairs.erase(row.pair, row.written)));
        if let Err(error) = stream::iter(deletes).try_buffer_unordered(ABREAST).try_collect::<()>().await {
            tracing::debug!(%error, "ended friendships could not be deleted");
        }
    }
}
