//! Users on local disk.
//!
//! `users`: id -> (1 byte: being deleted, name) · `subjects`: `s` + subject -> id, `u` + id + subject -> nothing ·
//! `ledger`: `d` + id -> nothing for who is being deleted, `n` -> the next id that `resolve` gives.

use std::sync::Arc;

use async_trait::async_trait;
use fjall::{OwnedWriteBatch, Slice};
use model::UserId;

use super::{FIRST_RESOLVED_ID, MAX_SUBJECT_BYTES, PutUser, User, Users};
use crate::PortError;
use crate::store::{Store, be, damaged, failed, refused};

/// Where the next id of `resolve` is kept. It only goes up, so that the id of a deleted user is never given again.
const NEXT_ID: &[u8] = b"n";

/// The users of a [`Store`].
pub struct FjallUsers {
    store: Arc<Store>,
}

impl FjallUsers {
    /// On an open store.
    pub fn new(store: Arc<Store>) -> FjallUsers {
        FjallUsers { store }
    }
}

/// `get_many` reads where it is called: a few rows, a microsecond each from memory, are cheaper than the way to another
/// thread and back.
#[async_trait]
impl Users for FjallUsers {
    async fn put(&self, id: UserId, name: &str) -> Result<PutUser, PortError> {
        let name = name.to_owned();
        self.store.change(move |store| put(store, id, name)).await
    }

    async fn get_many(&self, ids: &[UserId]) -> Result<Vec<Option<User>>, PortError> {
        ids.iter().map(|id| get(&self.store, *id)).collect()
    }

    async fn resolve(&self, subject: &str) -> Result<UserId, PortError> {
        if subject.is_empty() || subject.len() > MAX_SUBJECT_BYTES {
            return Err(refused(&format!("a token's subject has 1 to {MAX_SUBJECT_BYTES} bytes")));
        }
        let subject = subject.to_owned();
        // Not looked up here first: what is found may have been written by a call that is not durable yet.
        self.store.change(move |store| resolve(store, subject)).await
    }

    async fn begin_delete(&self, id: UserId) -> Result<bool, PortError> {
        self.store.change(move |store| begin_delete(store, id)).await
    }

    async fn finish_delete(&self, id: UserId) -> Result<(), PortError> {
        self.store.change(move |store| finish_delete(store, id)).await
    }

    async fn deleting(&self) -> Result<Vec<UserId>, PortError> {
        self.store.read(deleting).await
    }
}

fn put(store: &Store, id: UserId, name: String) -> Result<PutUser, PortError> {
    let outcome = match get(store, id)? {
        Some(User { deleting: true, .. }) => return Ok(PutUser::Deleting),
        Some(_) => PutUser::Updated,
        None => PutUser::Created,
    };
    let mut batch = store.batch();
    insert(store, &mut batch, &User { id, name, deleting: false });
    store.commit(batch)?;
    Ok(outcome)
}

fn resolve(store: &Store, subject: String) -> Result<UserId, PortError> {
    let by_subject = [b"s", subject.as_bytes()].concat();
    if let Some(id) = store.subjects.get(&by_subject).map_err(failed)? {
        return be(&id).map(UserId).ok_or_else(|| damaged("subject"));
    }
    let id = next_id(store)?;
    let mut batch = store.batch();
    batch.insert(&store.ledger, NEXT_ID, (id.0 + 1).to_be_bytes());
    batch.insert(&store.subjects, by_subject, id.0.to_be_bytes());
    batch.insert(&store.subjects, [&subjects_of(id)[..], subject.as_bytes()].concat(), []);
    insert(store, &mut batch, &User { id, name: subject, deleting: false });
    store.commit(batch)?;
    Ok(id)
}

fn next_id(store: &Store) -> Result<UserId, PortError> {
    let mut next = match store.ledger.get(NEXT_ID).map_err(failed)? {
        Some(next) => be(&next).ok_or_else(|| damaged("counter"))?,
        None => FIRST_RESOLVED_ID,
    };
    // An application may have put users up here, though it should not.
    while get(store, UserId(next))?.is_some() {
        next += 1;
    }
    Ok(UserId(next))
}

fn begin_delete(store: &Store, id: UserId) -> Result<bool, PortError> {
    match get(store, id)? {
        None => Ok(false),
        Some(User { deleting: true, .. }) => Ok(true),
        Some(user) => {
            let mut batch = store.batch();
            insert(store, &mut batch, &User { deleting: true, ..user });
            batch.insert(&store.ledger, deletion_mark(id), []);
            store.commit(batch)?;
            Ok(true)
        }
    }
}

fn finish_delete(store: &Store, id: UserId) -> Result<(), PortError> {
    if !get(store, id)?.is_some_and(|user| user.deleting) {
        return Ok(());
    }
    let mut batch = store.batch();
    for row in store.subjects.prefix(subjects_of(id)) {
        let key = row.key().map_err(failed)?;
        batch.remove(&store.subjects, [b"s", &key[9..]].concat());
        batch.remove(&store.subjects, key);
    }
    batch.remove(&store.users, id.0.to_be_bytes());
    batch.remove(&store.ledger, deletion_mark(id));
    store.commit(batch)
}

fn deleting(store: &Store) -> Result<Vec<UserId>, PortError> {
    let marks = store.ledger.prefix(b"d");
    marks.map(|row| be(&row.key().map_err(failed)?[1..]).map(UserId).ok_or_else(|| damaged("mark"))).collect()
}

fn get(store: &Store, id: UserId) -> Result<Option<User>, PortError> {
    let row = store.users.get(id.0.to_be_bytes()).map_err(failed)?;
    row.map(|row: Slice| decode(id, &row).ok_or_else(|| damaged("user"))).transpose()
}

fn insert(store: &Store, batch: &mut OwnedWriteBatch, user: &User) {
    batch.insert(&store.users, user.id.0.to_be_bytes(), [&[u8::from(user.deleting)], user.name.as_bytes()].concat());
}

fn decode(id: UserId, row: &[u8]) -> Option<User> {
    let (deleting, name) = row.split_first()?;
    Some(User { id, name: String::from_utf8(name.to_vec()).ok()?, deleting: *deleting == 1 })
}

fn subjects_of(id: UserId) -> [u8; 9] {
    tagged(b'u', id)
}

fn deletion_mark(id: UserId) -> [u8; 9] {
    tagged(b'd', id)
}

fn tagged(tag: u8, id: UserId) -> [u8; 9] {
    let mut key = [tag; 9];
    key[1..].copy_from_slice(&id.0.to_be_bytes());
    key
}
