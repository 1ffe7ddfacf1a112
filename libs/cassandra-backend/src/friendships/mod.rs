//! Friendships: one row per pair is the truth, one partition per viewer is derived from it.
//!
//! A change goes this way: read the pair's row -> note the change (`changes.rs`) -> change the row by a lightweight
//! transaction on the epoch that was read (`pairs.rs`) -> write both derived rows with the new epoch as timestamp. Only
//! then does the call return, so a reader of the derived rows sees every change that returned before; and since epochs
//! only go up, what a slow or repeated write brings never undoes a newer one. A call that finds the pair as it wants it
//! writes the derived rows all the same: whoever changed it may have been killed before.
//!
//! The note stays until the change was announced. [`Friendships::unannounced`] first gives the pair of each note that
//! it returns a new epoch: a process that was stopped between its note and its write can no longer write, so nothing is
//! written after its note was given away. That process notes its change anew and tries again.
//!
//! An ended friendship stays in all three rows, as ended (`pairs.rs`). Readers ask for whole rows and leave the ended
//! ones out themselves: a filter in the database is applied by each replica to what it has, also to what is outdated.

mod changes;
mod ended;
mod pairs;
mod sweeps;

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use model::{Level, UserId};
use ports::friendships::{Change, MAX_FRIENDS};
use ports::{ChangeNote, Changed, Friendship, Friendships, PortError};
use scylla::statement::prepared::PreparedStatement;
use scylla::value::CqlVarint;

use crate::error::{damaged, refused, unavailable};
use crate::session::{CassandraSession, Kind};
use crate::value::{user as user_of, varint};
use changes::{Changes, NOTED_WITHIN, Note};
use pairs::{Pair, Pairs, State};
use sweeps::Sweeps;

/// In a derived row: the friend shows exact positions.
const EXACT: i8 = 1;

/// In a derived row: the friendship has ended.
const OFF: i8 = 0;

/// How often a change starts anew because the pair changed in between.
const ATTEMPTS: usize = 20;

/// Requests, or pairs, of one call at a time.
const ABREAST: usize = 16;

/// Friends that others may be adding at the same moment to somebody: from so many below the limit on, whoever adds
/// counts again afterwards and takes it back if it was one too many.
const MARGIN: usize = 256;

/// Rows that `list` reads at a time.
const LIST_PAGE: i32 = 500;

/// What keeps reads of friendships and of notes short and complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FriendshipLimits {
    /// Ended friendships of one person that are kept. Above, each new friendship deletes up to 64 of those that began an
    /// hour ago or earlier, as long as all replicas take part.
    pub ended_kept: usize,
    /// Notes at which one sweep ends, after the minute that it is at; the next sweep goes on from there.
    pub swept_at_once: usize,
    /// A change is refused, as unavailable, if its note takes longer than this: a note that comes too late might never
    /// be read. More than 30 s counts as 30 s.
    pub noted_within: Duration,
}

impl Default for FriendshipLimits {
    fn default() -> FriendshipLimits {
        FriendshipLimits { ended_kept: MAX_FRIENDS, swept_at_once: 10_000, noted_within: NOTED_WITHIN }
    }
}

/// The friendships in a keyspace.
///
/// One person's friends are bounded by [`MAX_FRIENDS`], their ended friendships by [`FriendshipLimits::ended_kept`]; so
/// is what a read of them costs.
pub struct CassandraFriendships {
    session: Arc<CassandraSession>,
    pairs: Pairs,
    changes: Changes,
    sweeps: Sweeps,
    limits: FriendshipLimits,
    visible: PreparedStatement,
    level: PreparedStatement,
    list: PreparedStatement,
    rows: PreparedStatement,
    count: PreparedStatement,
}

impl CassandraFriendships {
    /// On a connection.
    pub async fn new(session: Arc<CassandraSession>) -> Result<CassandraFriendships, PortError> {
        CassandraFriendships::with_limits(session, FriendshipLimits::default()).await
    }

    /// On a connection, with limits of one's own.
    pub async fn with_limits(
        session: Arc<CassandraSession>,
        limits: FriendshipLimits,
    ) -> Result<CassandraFriendships, PortError> {
        let read = async |cql: &str| session.prepare(cql, Kind::Repeatable).await;
        let mut list = read("SELECT friend, level FROM visible_to WHERE viewer = ? AND friend >= ?").await?;
        list.set_page_size(LIST_PAGE);
        Ok(CassandraFriendships {
            visible: read("SELECT friend, level FROM visible_to WHERE viewer = ?").await?,
            level: read("SELECT level FROM visible_to WHERE viewer = ? AND friend = ?").await?,
            list,
            rows: read("SELECT friend, level, WRITETIME(level) FROM visible_to WHERE viewer = ?").await?,
            count: read("SELECT COUNT(*) FROM visible_to WHERE viewer = ?").await?,
            pairs: Pairs::new(session.clone()).await?,
            changes: Changes::new(session.clone(), limits.noted_within).await?,
            sweeps: Sweeps::new(session.clone()).await?,
            limits,
            session,
        })
    }

    /// Brings a pair to a state, or finds it so.
    async fn change(&self, pair: Pair, friends: bool) -> Result<Changed, PortError> {
        let mut before = self.pairs.read(pair).await?;
        if friends
            && !before.is_some_and(|state| state.friends)
            && let Some(user) = self.who_has(pair, MAX_FRIENDS).await?
        {
            return Ok(Changed { change: Change::TooMany(user), note: None });
        }
        for _ in 0..ATTEMPTS {
            match before {
                Some(state) if state.friends == friends => {
                    self.pairs.derive(pair, state).await?;
                    return Ok(Changed { change: Change::Unchanged, note: None });
                }
                None if !friends => return Ok(Changed { change: Change::Unchanged, note: None }),
                _ => {}
            }
            let note = self.changes.note(pair).await?;
            if let Some(state) = self.pairs.change(pair, before, friends).await? {
                self.pairs.derive(pair, state).await?;
                if friends {
                    return self.take_back_if_too_many(pair, state, note).await;
                }
                return Ok(Changed { change: Change::Done, note: Some(note.given()) });
            }
            self.changes.done(note.given()).await?;
            before = self.pairs.read(pair).await?;
        }
        Err(unavailable("a friendship is changed too often"))
    }

    /// Who adds writes first and counts then, so of those that go too far together the last at least sees it. Several
    /// may take theirs back where one would do; above the limit nobody stays.
    ///
    /// The note holds for the second write too as long as nobody gave the pair a new epoch since the first.
    async fn take_back_if_too_many(&self, pair: Pair, state: State, note: Note) -> Result<Changed, PortError> {
        let over = match self.who_has(pair, MAX_FRIENDS - MARGIN).await? {
            Some(_) => self.who_has(pair, MAX_FRIENDS + 1).await?,
            None => None,
        };
        let Some(user) = over else {
            return Ok(Changed { change: Change::Done, note: Some(note.given()) });
        };
        let (mut state, mut note) = (state, note);
        for _ in 0..ATTEMPTS {
            if let Some(ended) = self.pairs.change(pair, Some(state), false).await? {
                self.pairs.derive(pair, ended).await?;
                return Ok(Changed { change: Change::TooMany(user), note: Some(note.given()) });
            }
            match self.pairs.read(pair).await? {
                Some(now) if now.friends => state = now,
                _ => return Ok(Changed { change: Change::TooMany(user), note: Some(note.given()) }),
            }
            // The later note stands for both writes.
            let later = self.changes.note(pair).await?;
            self.changes.done(note.given()).await?;
            note = later;
        }
        Err(unavailable("a friendship is changed too often"))
    }

    /// Which of the two has so many friends.
    async fn who_has(&self, pair: Pair, friends: usize) -> Result<Option<UserId>, PortError> {
        let (low, high) = tokio::try_join!(self.has(pair.low, friends), self.has(pair.high, friends))?;
        Ok(low.then_some(pair.low).or(high.then_some(pair.high)))
    }

    /// Whether somebody has so many friends. The rows are counted by the database; only who has many is read.
    async fn has(&self, user: UserId, friends: usize) -> Result<bool, PortError> {
        let rows: Vec<(i64,)> = self.session.rows(&self.count, (varint(user),)).await?;
        let count = rows.first().and_then(|(count,)| usize::try_from(*count).ok()).ok_or_else(|| damaged("count"))?;
        if count < friends && count <= self.limits.ended_kept {
            return Ok(false);
        }
        let rows = self.rows_of(user).await?;
        self.delete_oldest_ended(&rows).await;
        Ok(rows.iter().filter(|row| !row.ended).count() >= friends)
    }
}

#[async_trait]
impl Friendships for CassandraFriendships {
    async fn add(&self, user: UserId, friend: UserId) -> Result<Changed, PortError> {
        let pair = Pair::of(user, friend).ok_or_else(|| refused("nobody is their own friend"))?;
        self.change(pair, true).await
    }

    async fn remove(&self, user: UserId, friend: UserId) -> Result<Changed, PortError> {
        match Pair::of(user, friend) {
            Some(pair) => self.change(pair, false).await,
            None => Ok(Changed { change: Change::Unchanged, note: None }),
        }
    }

    async fn visible_to(&self, viewer: UserId) -> Result<Vec<Friendship>, PortError> {
        let mut friendships = Vec::new();
        let each = |(friend, level): (CqlVarint, Option<i8>)| {
            if let Some(level) = level_of(level)? {
                friendships.push(Friendship { friend: user_of(&friend)?, level });
            }
            Ok(ControlFlow::Continue(()))
        };
        self.session.scan(&self.visible, (varint(viewer),), each).await?;
        Ok(friendships)
    }

    async fn levels(&self, pairs: &[(UserId, UserId)]) -> Result<Vec<Option<Level>>, PortError> {
        let level = async |(viewer, friend): (UserId, UserId)| {
            let rows: Vec<(Option<i8>,)> = self.session.rows(&self.level, (varint(viewer), varint(friend))).await?;
            rows.first().map_or(Ok(None), |(level,)| level_of(*level))
        };
        stream::iter(pairs.iter().copied().map(level)).buffered(ABREAST).try_collect().await
    }

    async fn list(&self, user: UserId, after: Option<UserId>, most: usize) -> Result<Vec<UserId>, PortError> {
        let first = after.map_or(Some(0), |after| after.0.checked_add(1));
        let Some(first) = first.filter(|_| most > 0) else {
            return Ok(Vec::new());
        };
        let mut friends = Vec::new();
        let each = |(friend, level): (CqlVarint, Option<i8>)| {
            if level_of(level)?.is_some() {
                friends.push(user_of(&friend)?);
            }
            Ok(if friends.len() < most { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
        };
        self.session.scan(&self.list, (varint(user), varint(UserId(first))), each).await?;
        Ok(friends)
    }

    /// Also ends what would otherwise come about later: changes of this user that were left half done. The rows of the
    /// user go where all replicas take part; else they stay as ended, and it is logged.
    async fn forget(&self, user: UserId) -> Result<Vec<ChangeNote>, PortError> {
        // Notes first: a change that is derived has its note no longer.
        let sweep = self.sweeps.read().await?;
        let of_user = |note: &Note| note.pair.has(user);
        let (notes, _) = self.changes.after(sweep.swept, sweep.now, usize::MAX, of_user).await?;
        let noted: BTreeSet<Pair> = notes.into_iter().map(|note| note.pair).collect();
        let rows = self.rows_of(user).await?;
        let live = rows.iter().copied().filter(|row| !row.ended).map(|row| row.pair);
        let ends: BTreeSet<Pair> = live.chain(noted.iter().copied()).collect();
        let ends = ends.into_iter().map(|pair| Ok(self.end(pair, noted.contains(&pair))));
        let notes: Vec<Option<ChangeNote>> = stream::iter(ends).try_buffer_unordered(ABREAST).try_collect().await?;
        self.delete_ended(&rows, noted).await;
        Ok(notes.into_iter().flatten().collect())
    }

    async fn announced(&self, notes: &[ChangeNote]) -> Result<(), PortError> {
        let removes = notes.iter().copied().map(|note| Ok(self.changes.done(note)));
        stream::iter(removes).try_buffer_unordered(ABREAST).try_collect().await
    }

    /// With an age above zero at most about [`FriendshipLimits::swept_at_once`], the earlier minutes first; the next call
    /// goes on from there. One process is given all of these and the others none, until it has not asked for two
    /// minutes.
    async fn unannounced(&self, age: Duration) -> Result<Vec<ChangeNote>, PortError> {
        let sweep = self.sweeps.read().await?;
        let sweeps = !age.is_zero();
        if sweeps && !self.sweeps.hold(sweep).await? {
            return Ok(Vec::new());
        }
        let most = if sweeps { self.limits.swept_at_once } else { usize::MAX };
        let (notes, read) = self.changes.after(sweep.swept, sweep.now, most, |_| true).await?;
        let current = async |note: Note| {
            if sweeps && note.is_settled(sweep.now) { self.changes.carry(note).await } else { Ok(note) }
        };
        let notes = stream::iter(notes.into_iter().map(|note| Ok(current(note))));
        let notes: Vec<Note> = notes.try_buffer_unordered(ABREAST).try_collect().await?;
        let old: Vec<Note> = notes.into_iter().filter(|note| note.is_older_than(age, sweep.now)).collect();
        let pairs: BTreeSet<Pair> = old.iter().map(|note| note.pair).collect();
        let renewals = pairs.into_iter().map(|pair| Ok(self.pairs.renew(pair)));
        stream::iter(renewals).try_buffer_unordered(ABREAST).try_collect::<()>().await?;
        if sweeps {
            self.sweeps.advance(sweep, read).await?;
        }
        Ok(old.into_iter().map(Note::given).collect())
    }
}

/// What a derived row says.
fn level_of(level: Option<i8>) -> Result<Option<Level>, PortError> {
    match level {
        Some(EXACT) => Ok(Some(Level::Exact)),
        Some(OFF) => Ok(None),
        _ => Err(damaged("friendship")),
    }
}
