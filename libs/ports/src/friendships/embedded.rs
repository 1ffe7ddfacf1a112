//! Friendships on local disk: `friends` has viewer + friend -> level, so that whom a viewer may see is one scan of
//! neighbouring rows; `ledger` has `c` + user -> the number of their friends. Both rows and both counts of a change are
//! one atomic batch.
//!
//! Notes are kept in memory: the only nodes that obey these records live in this process, and end with it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use fjall::{Guard, OwnedWriteBatch, Readable};
use model::{Level, UserId};

use super::{Change, ChangeNote, Changed, Friendship, Friendships, MAX_FRIENDS, Notes};
use crate::PortError;
use crate::store::{Store, damaged, failed, pair, refused, unpair};

/// A row's value: the friend shows exact positions.
const EXACT: u8 = 1;

/// The friendships of a [`Store`].
pub struct FjallFriendships {
    store: Arc<Store>,
    notes: Notes,
}

impl FjallFriendships {
    /// On an open store.
    pub fn new(store: Arc<Store>) -> FjallFriendships {
        FjallFriendships { store, notes: Notes::default() }
    }
}

/// `visible_to` and `list` read where they are called: measured 0.2 us a friend from memory (90 us for 400 friends), where
/// the way to a thread that may block and back takes 20 us and more under load. The disk is read only by a directory that
/// has outgrown the page cache, which is where the clustered backend begins.
#[async_trait]
impl Friendships for FjallFriendships {
    async fn add(&self, user: UserId, friend: UserId) -> Result<Changed, PortError> {
        if user == friend {
            return Err(refused("nobody is their own friend"));
        }
        let note = self.notes.make(user, friend);
        let change = self.store.change(move |store| add(store, user, friend)).await?;
        Ok(self.notes.changed(change, note))
    }

    async fn remove(&self, user: UserId, friend: UserId) -> Result<Changed, PortError> {
        let note = self.notes.make(user, friend);
        let change = self.store.change(move |store| remove(store, user, friend)).await?;
        Ok(self.notes.changed(change, note))
    }

    async fn visible_to(&self, viewer: UserId) -> Result<Vec<Friendship>, PortError> {
        let rows = self.store.snapshot().prefix(&self.store.friends, viewer.0.to_be_bytes());
        rows.map(decode).collect()
    }

    async fn levels(&self, pairs: &[(UserId, UserId)]) -> Result<Vec<Option<Level>>, PortError> {
        let level = |&(viewer, friend): &(UserId, UserId)| {
            Ok(are_friends(&self.store, viewer, friend)?.then_some(Level::Exact))
        };
        pairs.iter().map(level).collect()
    }

    async fn list(&self, user: UserId, after: Option<UserId>, limit: usize) -> Result<Vec<UserId>, PortError> {
        let Some(first) = after.map_or(Some(0), |after| after.0.checked_add(1)) else {
            return Ok(Vec::new());
        };
        let rows = self.store.snapshot().range(&self.store.friends, pair(user.0, first)..=pair(user.0, u64::MAX));
        rows.take(limit).map(|row| Ok(decode(row)?.friend)).collect()
    }

    async fn forget(&self, user: UserId) -> Result<Vec<ChangeNote>, PortError> {
        let friends = self.store.change(move |store| forget(store, user)).await?;
        Ok(friends.into_iter().map(|friend| self.notes.make(user, friend)).collect())
    }

    async fn announced(&self, notes: &[ChangeNote]) -> Result<(), PortError> {
        self.notes.remove(notes);
        Ok(())
    }

    async fn unannounced(&self, age: Duration) -> Result<Vec<ChangeNote>, PortError> {
        Ok(self.notes.older_than(age))
    }
}

fn add(store: &Store, user: UserId, friend: UserId) -> Result<Change, PortError> {
    if are_friends(store, user, friend)? {
        return Ok(Change::Unchanged);
    }
    let mut batch = store.batch();
    for (one, other) in [(user, friend), (friend, user)] {
        let friends = count(store, one)?;
        if friends as usize >= MAX_FRIENDS {
            return Ok(Change::TooMany(one));
        }
        batch.insert(&store.friends, pair(one.0, other.0), [EXACT]);
        set_count(store, &mut batch, one, friends + 1);
    }
    store.commit(batch)?;
    Ok(Change::Done)
}

fn remove(store: &Store, user: UserId, friend: UserId) -> Result<Change, PortError> {
    if !are_friends(store, user, friend)? {
        return Ok(Change::Unchanged);
    }
    let mut batch = store.batch();
    for (one, other) in [(user, friend), (friend, user)] {
        batch.remove(&store.friends, pair(one.0, other.0));
        set_count(store, &mut batch, one, count(store, one)?.saturating_sub(1));
    }
    store.commit(batch)?;
    Ok(Change::Done)
}

/// At most [`MAX_FRIENDS`] friendships, so one batch of moderate size.
fn forget(store: &Store, user: UserId) -> Result<Vec<UserId>, PortError> {
    let mut batch = store.batch();
    let mut friends = Vec::new();
    for row in store.friends.prefix(user.0.to_be_bytes()) {
        let friend = decode(row)?.friend;
        batch.remove(&store.friends, pair(user.0, friend.0));
        batch.remove(&store.friends, pair(friend.0, user.0));
        set_count(store, &mut batch, friend, count(store, friend)?.saturating_sub(1));
        friends.push(friend);
    }
    set_count(store, &mut batch, user, 0);
    store.commit(batch)?;
    Ok(friends)
}

fn are_friends(store: &Store, user: UserId, friend: UserId) -> Result<bool, PortError> {
    store.friends.contains_key(pair(user.0, friend.0)).map_err(failed)
}

fn count(store: &Store, user: UserId) -> Result<u32, PortError> {
    match store.ledger.get(count_key(user)).map_err(failed)? {
        Some(bytes) => bytes[..].try_into().map(u32::from_be_bytes).map_err(|_| damaged("count")),
        None => Ok(0),
    }
}

fn set_count(store: &Store, batch: &mut OwnedWriteBatch, user: UserId, friends: u32) {
    match friends {
        0 => batch.remove(&store.ledger, count_key(user)),
        _ => batch.insert(&store.ledger, count_key(user), friends.to_be_bytes()),
    }
}

fn count_key(user: UserId) -> [u8; 9] {
    let mut key = [b'c'; 9];
    key[1..].copy_from_slice(&user.0.to_be_bytes());
    key
}

fn decode(row: Guard) -> Result<Friendship, PortError> {
    let (key, value) = row.into_inner().map_err(failed)?;
    let friend = unpair(&key).filter(|_| value[..] == [EXACT]).map(|(_, friend)| UserId(friend));
    friend.map(|friend| Friendship { friend, level: Level::Exact }).ok_or_else(|| damaged("friendship"))
}
