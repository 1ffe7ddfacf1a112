//! Which user has points on which days, and who has points on a day.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::stream::{self, TryStreamExt};
use model::{TimestampMs, UserId};
use parking_lot::Mutex;
use ports::PortError;
use rustc_hash::FxHashSet;
use scylla::statement::prepared::PreparedStatement;
use scylla::value::CqlVarint;

use super::ABREAST;
use crate::error::damaged;
use crate::session::{CassandraSession, Kind};
use crate::time::write_time;
use crate::value::{bucket, day, limit, user as user_of, varint};

/// Pairs of user and day that a node remembers to have registered: some 50 MB, and ten times a node's users.
const REMEMBERED: usize = 1_000_000;

pub(super) struct Index {
    session: Arc<CassandraSession>,
    /// Day -> whose points of it are registered, for the days around today: nobody drops those.
    registered: Mutex<BTreeMap<u64, FxHashSet<UserId>>>,
    add_day: PreparedStatement,
    add_day_of_user: PreparedStatement,
    add_user_of_day: PreparedStatement,
    days: PreparedStatement,
    days_of_user: PreparedStatement,
    users_of_day: PreparedStatement,
    drop_day: PreparedStatement,
    drop_day_of_user: PreparedStatement,
    drop_users_of_day: PreparedStatement,
}

impl Index {
    pub(super) async fn new(session: Arc<CassandraSession>) -> Result<Index, PortError> {
        let prepare = async |cql: &str| session.prepare(cql, Kind::Repeatable).await;
        Ok(Index {
            registered: Mutex::default(),
            add_day: prepare("INSERT INTO history_days (part, day) VALUES (0, ?) USING TIMESTAMP ? AND TTL ?").await?,
            add_day_of_user: prepare(
                "INSERT INTO history_days_of_user (user_id, day) VALUES (?, ?) USING TIMESTAMP ? AND TTL ?",
            )
            .await?,
            add_user_of_day: prepare(
                "INSERT INTO history_users_of_day (day, bucket, user_id) VALUES (?, ?, ?) USING TIMESTAMP ? AND TTL ?",
            )
            .await?,
            days: prepare("SELECT day FROM history_days WHERE part = 0 AND day < ?").await?,
            days_of_user: prepare("SELECT day FROM history_days_of_user WHERE user_id = ? AND day >= ? AND day <= ?")
                .await?,
            users_of_day: prepare(
                "SELECT user_id FROM history_users_of_day WHERE day = ? AND bucket = ? AND user_id >= ? LIMIT ?",
            )
            .await?,
            drop_day: prepare("DELETE FROM history_days USING TIMESTAMP ? WHERE part = 0 AND day = ?").await?,
            drop_day_of_user: prepare(
                "DELETE FROM history_days_of_user USING TIMESTAMP ? WHERE user_id = ? AND day = ?",
            )
            .await?,
            drop_users_of_day: prepare(
                "DELETE FROM history_users_of_day USING TIMESTAMP ? WHERE day = ? AND bucket = ?",
            )
            .await?,
            session,
        })
    }

    /// Makes sure that the indexes have these; each comes with its time to live.
    pub(super) async fn register(
        &self,
        all: impl Iterator<Item = (u64, UserId, i32)>,
        now: TimestampMs,
    ) -> Result<(), PortError> {
        let (mut new, mut days) = (Vec::new(), BTreeMap::new());
        {
            let registered = self.registered.lock();
            for (day, user, ttl) in all {
                if !registered.get(&day).is_some_and(|users| users.contains(&user)) {
                    new.push((day, user, ttl));
                    days.insert(day, ttl);
                }
            }
        }
        let at = write_time(self.session.clock());
        let days = days.into_iter().map(|(of, ttl)| Ok(self.session.run(&self.add_day, (day(of), at, ttl))));
        stream::iter(days).try_buffer_unordered(ABREAST).try_collect::<()>().await?;
        let adds = new.iter().copied().map(|(day, user, ttl)| Ok(self.add(day, user, ttl, at)));
        stream::iter(adds).try_buffer_unordered(ABREAST).try_collect::<()>().await?;
        self.remember(new, now);
        Ok(())
    }

    async fn add(&self, of: u64, user: UserId, ttl: i32, at: i64) -> Result<(), PortError> {
        let (day, id) = (day(of), varint(user));
        let (of_user, of_day) = tokio::join!(
            self.session.run(&self.add_day_of_user, (&id, day, at, ttl)),
            self.session.run(&self.add_user_of_day, (day, bucket(user), &id, at, ttl)),
        );
        of_user.and(of_day)
    }

    fn remember(&self, new: Vec<(u64, UserId, i32)>, now: TimestampMs) {
        let live = now.day().saturating_sub(1)..=now.day() + 1;
        let mut registered = self.registered.lock();
        registered.retain(|day, _| live.contains(day));
        if registered.values().map(FxHashSet::len).sum::<usize>() + new.len() > REMEMBERED {
            registered.clear();
        }
        for (day, user, _) in new.into_iter().filter(|(day, _, _)| live.contains(day)) {
            registered.entry(day).or_default().insert(user);
        }
    }

    /// Days that a user may have points on, ascending.
    pub(super) async fn days_of(&self, user: UserId, first: u64, last: u64) -> Result<Vec<u64>, PortError> {
        let values = (varint(user), day(first), day(last));
        let rows: Vec<(i64,)> = self.session.rows(&self.days_of_user, values).await?;
        rows.into_iter().map(|(day,)| u64::try_from(day).map_err(|_| damaged("day"))).collect()
    }

    /// Days before this one that may have points.
    pub(super) async fn days_before(&self, of: u64) -> Result<Vec<u64>, PortError> {
        let rows: Vec<(i64,)> = self.session.rows(&self.days, (day(of),)).await?;
        rows.into_iter().map(|(day,)| u64::try_from(day).map_err(|_| damaged("day"))).collect()
    }

    /// Users of a bucket from this one on who may have points on a day, ascending.
    pub(super) async fn users_of(
        &self,
        of: u64,
        bucket: i16,
        from: UserId,
        most: usize,
    ) -> Result<Vec<UserId>, PortError> {
        let values = (day(of), bucket, varint(from), limit(most));
        let rows: Vec<(CqlVarint,)> = self.session.rows(&self.users_of_day, values).await?;
        rows.iter().map(|(id,)| user_of(id)).collect()
    }

    /// After the points of these are gone.
    pub(super) async fn drop_user(&self, of: u64, user: UserId, at: i64) -> Result<(), PortError> {
        self.session.run(&self.drop_day_of_user, (at, varint(user), day(of))).await
    }

    /// After all points of a bucket are gone.
    pub(super) async fn drop_bucket(&self, of: u64, bucket: i16, at: i64) -> Result<(), PortError> {
        self.session.run(&self.drop_users_of_day, (at, day(of), bucket)).await
    }

    /// After all points of a day are gone.
    pub(super) async fn drop_day(&self, of: u64, at: i64) -> Result<(), PortError> {
        self.registered.lock().remove(&of);
        self.session.run(&self.drop_day, (at, day(of))).await
    }
}
