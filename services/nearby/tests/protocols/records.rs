//! Users and friendships in memory, held to the contracts: a disk would take longer than all the rest of a run.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use model::{Level, TimestampMs, UserId};
use parking_lot::Mutex;
use ports::friendships::{Change, MAX_FRIENDS, Notes};
use ports::users::{FIRST_RESOLVED_ID, MAX_SUBJECT_BYTES, PutUser};
use ports::{ChangeNote, Changed, Friendship, Friendships, HistoryPoint, LocationHistory, PortError, User, Users};

use crate::judge::Judge;

fn refused(reason: &str) -> PortError {
    PortError::Refused { backend: "records in memory", reason: reason.to_owned() }
}

/// Each pair in both directions.
pub(crate) struct MemoryFriendships {
    friends: Mutex<BTreeMap<UserId, BTreeSet<UserId>>>,
    notes: Notes,
    judge: Arc<Judge>,
}

impl MemoryFriendships {
    /// None yet; the judge is told of each that is made.
    pub(crate) fn watched_by(judge: Arc<Judge>) -> MemoryFriendships {
        MemoryFriendships { friends: Mutex::default(), notes: Notes::default(), judge }
    }

    /// What the record says now.
    pub(crate) fn are_friends(&self, one: UserId, other: UserId) -> bool {
        self.friends.lock().get(&one).is_some_and(|all| all.contains(&other))
    }

    fn add_now(&self, user: UserId, friend: UserId) -> Change {
        let mut friends = self.friends.lock();
        let count = |who: &UserId| friends.get(who).map_or(0, BTreeSet::len);
        if friends.get(&user).is_some_and(|all| all.contains(&friend)) {
            return Change::Unchanged;
        }
        if let Some(full) = [user, friend].into_iter().find(|who| count(who) >= MAX_FRIENDS) {
            return Change::TooMany(full);
        }
        // Before anybody can read it.
        self.judge.befriended(user, friend);
        friends.entry(user).or_default().insert(friend);
        friends.entry(friend).or_default().insert(user);
        Change::Done
    }

    fn remove_now(&self, user: UserId, friend: UserId) -> Change {
        let mut friends = self.friends.lock();
        let mut removed = false;
        for (one, other) in [(user, friend), (friend, user)] {
            removed |= friends.get_mut(&one).is_some_and(|all| all.remove(&other));
        }
        if removed { Change::Done } else { Change::Unchanged }
    }
}

#[async_trait]
impl Friendships for MemoryFriendships {
    async fn add(&self, user: UserId, friend: UserId) -> Result<Changed, PortError> {
        if user == friend {
            return Err(refused("nobody is their own friend"));
        }
        let note = self.notes.make(user, friend);
        Ok(self.notes.changed(self.add_now(user, friend), note))
    }

    async fn remove(&self, user: UserId, friend: UserId) -> Result<Changed, PortError> {
        let note = self.notes.make(user, friend);
        Ok(self.notes.changed(self.remove_now(user, friend), note))
    }

    async fn visible_to(&self, viewer: UserId) -> Result<Vec<Friendship>, PortError> {
        let friends = self.friends.lock();
        let all = friends.get(&viewer).into_iter().flatten();
        Ok(all.map(|friend| Friendship { friend: *friend, level: Level::Exact }).collect())
    }

    async fn list(&self, user: UserId, after: Option<UserId>, limit: usize) -> Result<Vec<UserId>, PortError> {
        let friends = self.friends.lock();
        let later =
            friends.get(&user).into_iter().flatten().filter(|friend| after.is_none_or(|after| **friend > after));
        Ok(later.take(limit).copied().collect())
    }

    async fn levels(&self, pairs: &[(UserId, UserId)]) -> Result<Vec<Option<Level>>, PortError> {
        let friends = self.friends.lock();
        let are_friends = |(one, other): &(UserId, UserId)| friends.get(one).is_some_and(|all| all.contains(other));
        Ok(pairs.iter().map(|pair| are_friends(pair).then_some(Level::Exact)).collect())
    }

    async fn forget(&self, user: UserId) -> Result<Vec<ChangeNote>, PortError> {
        let mut friends = self.friends.lock();
        let mut notes = Vec::new();
        for friend in friends.remove(&user).unwrap_or_default() {
            friends.entry(friend).or_default().remove(&user);
            notes.push(self.notes.make(user, friend));
        }
        Ok(notes)
    }

    async fn announced(&self, notes: &[ChangeNote]) -> Result<(), PortError> {
        self.notes.remove(notes);
        Ok(())
    }

    async fn unannounced(&self, age: Duration) -> Result<Vec<ChangeNote>, PortError> {
        Ok(self.notes.older_than(age))
    }
}

#[derive(Default)]
pub(crate) struct MemoryUsers(Mutex<Known>);

#[derive(Default)]
struct Known {
    users: BTreeMap<UserId, User>,
    subjects: BTreeMap<String, UserId>,
    resolved: u64,
}

#[async_trait]
impl Users for MemoryUsers {
    async fn put(&self, id: UserId, name: &str) -> Result<PutUser, PortError> {
        let mut known = self.0.lock();
        match known.users.get_mut(&id) {
            Some(user) if user.deleting => Ok(PutUser::Deleting),
            Some(user) => {
                user.name = name.to_owned();
                Ok(PutUser::Updated)
            }
            None => {
                known.users.insert(id, User { id, name: name.to_owned(), deleting: false });
                Ok(PutUser::Created)
            }
        }
    }

    async fn get_many(&self, ids: &[UserId]) -> Result<Vec<Option<User>>, PortError> {
        let known = self.0.lock();
        Ok(ids.iter().map(|id| known.users.get(id).cloned()).collect())
    }

    async fn resolve(&self, subject: &str) -> Result<UserId, PortError> {
        if subject.is_empty() || subject.len() > MAX_SUBJECT_BYTES {
            return Err(refused("a subject of no or too many bytes"));
        }
        let mut known = self.0.lock();
        if let Some(id) = known.subjects.get(subject) {
            return Ok(*id);
        }
        let id = UserId(FIRST_RESOLVED_ID + known.resolved);
        known.resolved += 1;
        known.subjects.insert(subject.to_owned(), id);
        known.users.insert(id, User { id, name: subject.to_owned(), deleting: false });
        Ok(id)
    }

    async fn begin_delete(&self, id: UserId) -> Result<bool, PortError> {
        let mut known = self.0.lock();
        let user = known.users.get_mut(&id);
        Ok(user.map(|user| user.deleting = true).is_some())
    }

    async fn finish_delete(&self, id: UserId) -> Result<(), PortError> {
        let mut known = self.0.lock();
        if known.users.get(&id).is_some_and(|user| user.deleting) {
            known.users.remove(&id);
            known.subjects.retain(|_, resolved| *resolved != id);
        }
        Ok(())
    }

    async fn deleting(&self) -> Result<Vec<UserId>, PortError> {
        let known = self.0.lock();
        Ok(known.users.values().filter(|user| user.deleting).map(|user| user.id).collect())
    }
}

/// No protocol here rests on the history, so it keeps nothing.
pub(crate) struct NoHistory;

#[async_trait]
impl LocationHistory for NoHistory {
    async fn append(&self, _: &[HistoryPoint]) -> Result<(), PortError> {
        Ok(())
    }

    async fn range(&self, _: UserId, _: TimestampMs, _: TimestampMs, _: usize) -> Result<Vec<HistoryPoint>, PortError> {
        Ok(Vec::new())
    }

    async fn export_day(
        &self,
        _: u64,
        _: Option<(UserId, TimestampMs)>,
        _: usize,
    ) -> Result<Vec<HistoryPoint>, PortError> {
        Ok(Vec::new())
    }

    async fn forget(&self, _: UserId) -> Result<(), PortError> {
        Ok(())
    }

    async fn drop_days_before(&self, _: u64) -> Result<(), PortError> {
        Ok(())
    }
}

/// Both nodes have the same records.
struct Same<Node>(Node);

#[async_trait]
impl<Node: Clone + Send + Sync> ports::conformance::Harness for Same<Node> {
    type Node = Node;

    async fn node(&self) -> Node {
        self.0.clone()
    }
}

mod friendships {
    use super::*;

    fn harness() -> Same<Arc<dyn Friendships>> {
        Same(Arc::new(MemoryFriendships::watched_by(Arc::default())))
    }

    ports::friendships_conformance!([tokio::test] harness());
}

mod users {
    use super::*;

    fn harness() -> Same<Arc<dyn Users>> {
        Same(Arc::new(MemoryUsers::default()))
    }

    ports::users_conformance!([tokio::test] harness());
}
