//! How far the notes of changes have been looked through, and which process looks.

use std::sync::Arc;

use model::TimestampMs;
use ports::PortError;
use scylla::statement::prepared::PreparedStatement;

use super::changes::{number, settled};
use crate::error::damaged;
use crate::session::{CassandraSession, Kind};

/// Seconds that a process stays the one that sweeps without doing so: two of its rounds.
const HOLDER_TTL_S: i32 = 120;

/// What the one row says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sweep {
    /// Notes up to this minute are needed no more.
    pub(super) swept: Option<u64>,
    /// The lesser of this machine's clock and the database's: one clock that is ahead leaves no minute behind too early.
    pub(super) now: TimestampMs,
    holder: Option<i64>,
}

pub(super) struct Sweeps {
    session: Arc<CassandraSession>,
    /// Of this process.
    name: i64,
    read: PreparedStatement,
    now: PreparedStatement,
    hold: PreparedStatement,
    advance: PreparedStatement,
}

impl Sweeps {
    pub(super) async fn new(session: Arc<CassandraSession>) -> Result<Sweeps, PortError> {
        let read = "SELECT swept, holder, toUnixTimestamp(now()) FROM friendship_sweeps WHERE part = 0";
        let hold =
            format!("UPDATE friendship_sweeps USING TTL {HOLDER_TTL_S} SET holder = ? WHERE part = 0 IF holder = ?");
        let advance = "UPDATE friendship_sweeps SET swept = ? WHERE part = 0 IF swept = ?";
        let sweeps = Sweeps {
            name: rand::random(),
            read: session.prepare(read, Kind::Repeatable).await?,
            now: session.prepare("SELECT toUnixTimestamp(now()) FROM system.local", Kind::Repeatable).await?,
            hold: session.prepare(&hold, Kind::Conditional).await?,
            advance: session.prepare(advance, Kind::Conditional).await?,
            session,
        };
        // No process has made a note before one has come this far, so there is nothing before now.
        let sweep = sweeps.read().await?;
        if sweep.swept.is_none() {
            sweeps.advance(sweep, u64::MAX).await?;
        }
        Ok(sweeps)
    }

    pub(super) async fn read(&self) -> Result<Sweep, PortError> {
        let rows: Vec<(Option<i64>, Option<i64>, i64)> = self.session.rows(&self.read, ()).await?;
        let (swept, holder, there) = match rows.into_iter().next() {
            Some(row) => row,
            None => {
                let rows: Vec<(i64,)> = self.session.rows(&self.now, ()).await?;
                let (there,) = rows.into_iter().next().ok_or_else(|| damaged("time"))?;
                (None, None, there)
            }
        };
        let there = TimestampMs(u64::try_from(there).unwrap_or(0));
        let now = self.session.clock().wall().min(there);
        Ok(Sweep { swept: swept.and_then(|swept| u64::try_from(swept).ok()), now, holder })
    }

    /// Whether this process is the one that sweeps, or has become it.
    pub(super) async fn hold(&self, sweep: Sweep) -> Result<bool, PortError> {
        if sweep.holder.is_some_and(|holder| holder != self.name) {
            return Ok(false);
        }
        self.session.applied(&self.hold, (self.name, sweep.holder)).await
    }

    /// Notes up to the minute `read` are needed no more, as far as it is settled. If another process has said so meanwhile, it stays as that said.
    pub(super) async fn advance(&self, sweep: Sweep, read: u64) -> Result<(), PortError> {
        let last = settled(sweep.now).min(read);
        if sweep.swept.is_some_and(|swept| swept >= last) {
            return Ok(());
        }
        self.session.applied(&self.advance, (number(last), sweep.swept.map(number))).await.map(drop)
    }
}
