//! Friendships: one row per pair is the truth, one partition per viewer is derived from it.
//!
//! A change goes this way: note it (`changes.rs`) -> check -> change the pair's row by a lightweight transaction on its
//! epoch (`pairs.rs`) -> write both derived rows with that epoch as timestamp -> remove the note. Only then does the
//! call return, so a reader of the derived rows sees every change that returned before; and since epochs only go up,
//! what a slow or repeated write brings never undoes a newer one. A call that finds the pair as it wants it writes the
//! derived rows all the same: whoever changed it may have been killed before. What a crash leaves half done has its
//! note left, and [`CassandraFriendships::sweep`] does the rest.

mod changes;
mod pairs;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::{self, TryStreamExt};
use model::{Level, UserId};
use ports::friendships::{Change, MAX_FRIENDS};
use ports::{ChangeNote, Changed, Friendship, Friendships, PortError};
use scylla::statement::prepared::PreparedStatement;
use scylla::value::CqlVarint;

use crate::error::{damaged, refused, unavailable};
use crate::session::{CassandraSession, Kind};
use crate::value::{limit, user as user_of, varint};
use changes::{Changes, Note};
use pairs::{Pair, Pairs, State};

/// In a derived row: the friend shows exact positions.
const EXACT: i8 = 1;

/// How often a change starts anew because the pair changed in between.
const ATTEMPTS: usize = 20;

/// Friendships of one user that are ended at a time.
const ABREAST: usize = 16;

/// Friends that others may be adding at the same moment to somebody: from so many below the limit on, whoever adds
/// counts again afterwards and takes it back if it was one too many.
const MARGIN: usize = 256;

/// The friendships in a keyspace.
pub struct CassandraFriendships {
    session: Arc<CassandraSession>,
    pairs: Pairs,
    changes: Changes,
    visible: PreparedStatement,
    list: PreparedStatement,
    count: PreparedStatement,
}

/// What a sweep found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Changes that a crash or a failure had left, and that are done now.
    pub repaired: usize,
}

impl CassandraFriendships {
    /// A change takes less than this, so a note that is older was left behind; with room for clocks that differ.
    pub const SETTLED: Duration = Duration::from_secs(120);

    /// On a connection.
    pub async fn new(session: Arc<CassandraSession>) -> Result<CassandraFriendships, PortError> {
        let read = async |cql: &str| session.prepare(cql, Kind::Repeatable).await;
        Ok(CassandraFriendships {
            visible: read("SELECT friend, level FROM visible_to WHERE viewer = ?").await?,
            list: read("SELECT friend FROM visible_to WHERE viewer = ? AND friend >= ? LIMIT ?").await?,
            count: read("SELECT COUNT(*) FROM visible_to WHERE viewer = ?").await?,
            pairs: Pairs::new(session.clone()).await?,
            changes: Changes::new(session.clone()).await?,
            session,
        })
    }

    /// Finishes what was left half done for longer than `settled` (use [`Self::SETTLED`]). Any node may do so at any
    /// time, several at once too; every few minutes is enough, and once a day is needed.
    pub async fn sweep(&self, settled: Duration) -> Result<Swept, PortError> {
        let notes = self.changes.older_than(settled).await?;
        let repaired = notes.len();
        let repairs = notes.into_iter().map(|note| Ok(self.repair(note)));
        stream::iter(repairs).try_buffer_unordered(ABREAST).try_collect::<()>().await?;
        if repaired > 0 {
            tracing::info!(repaired, "finished changes of friendships that had been left half done");
        }
        Ok(Swept { repaired })
    }

    async fn repair(&self, note: Note) -> Result<(), PortError> {
        if let Some(state) = self.pairs.read(note.pair).await? {
            self.pairs.derive(note.pair, state).await?;
        }
        self.changes.done(&note).await
    }

    /// Brings a pair to a state, or finds it so.
    async fn change(&self, pair: Pair, friends: bool) -> Result<Change, PortError> {
        let before = self.pairs.read(pair).await?;
        if before.is_none() && !friends {
            return Ok(Change::Unchanged);
        }
        if friends
            && !before.is_some_and(|state| state.friends)
            && let Some(user) = self.who_has(pair, MAX_FRIENDS).await?
        {
            return Ok(Change::TooMany(user));
        }
        let note = self.changes.note(pair).await?;
        let change = self.change_noted(pair, before, friends).await?;
        self.changes.done(&note).await?;
        Ok(change)
    }

    async fn change_noted(&self, pair: Pair, mut before: Option<State>, friends: bool) -> Result<Change, PortError> {
        for _ in 0..ATTEMPTS {
            match before {
                Some(state) if state.friends == friends => {
                    self.pairs.derive(pair, state).await?;
                    return Ok(Change::Unchanged);
                }
                None if !friends => return Ok(Change::Unchanged),
                _ => {}
            }
            if let Some(state) = self.pairs.change(pair, before, friends).await? {
                self.pairs.derive(pair, state).await?;
                return if friends { self.take_back_if_too_many(pair, state).await } else { Ok(Change::Done) };
            }
            before = self.pairs.read(pair).await?;
        }
        Err(unavailable("a friendship is changed too often"))
    }

    /// Who adds writes first and counts then, so of those that go too far together the last at least sees it. Several
    /// may take theirs back where one would do; above the limit nobody stays.
    async fn take_back_if_too_many(&self, pair: Pair, state: State) -> Result<Change, PortError> {
        if self.who_has(pair, MAX_FRIENDS - MARGIN).await?.is_none() {
            return Ok(Change::Done);
        }
        let Some(user) = self.who_has(pair, MAX_FRIENDS + 1).await? else {
            return Ok(Change::Done);
        };
        if let Some(state) = self.pairs.change(pair, Some(state), false).await? {
            self.pairs.derive(pair, state).await?;
        }
        Ok(Change::TooMany(user))
    }

    /// Which of the two has so many friends.
    async fn who_has(&self, pair: Pair, friends: usize) -> Result<Option<UserId>, PortError> {
        let (low, high) = tokio::try_join!(self.count(pair.low), self.count(pair.high))?;
        Ok(if low >= friends {
            Some(pair.low)
        } else if high >= friends {
            Some(pair.high)
        } else {
            None
        })
    }

    async fn count(&self, user: UserId) -> Result<usize, PortError> {
        let rows: Vec<(i64,)> = self.session.rows(&self.count, (varint(user),)).await?;
        rows.first().and_then(|(count,)| usize::try_from(*count).ok()).ok_or_else(|| damaged("count"))
    }
}

#[async_trait]
impl Friendships for CassandraFriendships {
    async fn add(&self, user: UserId, friend: UserId) -> Result<Changed, PortError> {
        let pair = Pair::of(user, friend).ok_or_else(|| refused("nobody is their own friend"))?;
        Ok(Changed { change: self.change(pair, true).await?, note: None })
    }

    async fn remove(&self, user: UserId, friend: UserId) -> Result<Changed, PortError> {
        let change = match Pair::of(user, friend) {
            Some(pair) => self.change(pair, false).await?,
            None => Change::Unchanged,
        };
        Ok(Changed { change, note: None })
    }

    async fn visible_to(&self, viewer: UserId) -> Result<Vec<Friendship>, PortError> {
        let rows: Vec<(CqlVarint, Option<i8>)> = self.session.rows(&self.visible, (varint(viewer),)).await?;
        let friendship = |(friend, level): &(CqlVarint, Option<i8>)| match level {
            Some(EXACT) => Ok(Friendship { friend: user_of(friend)?, level: Level::Exact }),
            _ => Err(damaged("friendship")),
        };
        rows.iter().map(friendship).collect()
    }

    async fn levels(&self, pairs: &[(UserId, UserId)]) -> Result<Vec<Option<Level>>, PortError> {
        let mut levels = Vec::new();
        for (viewer, friend) in pairs {
            let visible = self.visible_to(*viewer).await?;
            levels.push(visible.iter().find(|friendship| friendship.friend == *friend).map(|found| found.level));
        }
        Ok(levels)
    }

    async fn list(&self, user: UserId, after: Option<UserId>, most: usize) -> Result<Vec<UserId>, PortError> {
        let first = after.map_or(Some(0), |after| after.0.checked_add(1));
        let Some(first) = first.filter(|_| most > 0) else {
            return Ok(Vec::new());
        };
        let values = (varint(user), varint(UserId(first)), limit(most));
        let rows: Vec<(CqlVarint,)> = self.session.rows(&self.list, values).await?;
        rows.iter().map(|(friend,)| user_of(friend)).collect()
    }

    /// Also ends what a sweep would otherwise bring about later: changes of this user that were left half done.
    async fn forget(&self, user: UserId) -> Result<Vec<ChangeNote>, PortError> {
        let friends = self.visible_to(user).await?.into_iter().map(|friendship| friendship.friend);
        let mut pairs: BTreeSet<Pair> = friends.filter_map(|friend| Pair::of(user, friend)).collect();
        let notes = self.changes.older_than(Duration::ZERO).await?;
        pairs.extend(notes.into_iter().map(|note| note.pair).filter(|pair| pair.low == user || pair.high == user));
        let ends = pairs.into_iter().map(|pair| Ok(async move { self.change(pair, false).await.map(drop) }));
        stream::iter(ends).try_buffer_unordered(ABREAST).try_collect::<()>().await?;
        Ok(Vec::new())
    }

    async fn announced(&self, _notes: &[ChangeNote]) -> Result<(), PortError> {
        Ok(())
    }

    async fn unannounced(&self, _age: Duration) -> Result<Vec<ChangeNote>, PortError> {
        Ok(Vec::new())
    }
}
