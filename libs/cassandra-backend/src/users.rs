//! Users: lightweight transactions on one row each.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use model::UserId;
use ports::users::{FIRST_RESOLVED_ID, MAX_SUBJECT_BYTES, PutUser};
use ports::{PortError, User, Users};
use scylla::statement::prepared::PreparedStatement;
use scylla::value::CqlVarint;

use crate::error::{refused, unavailable};
use crate::session::{CassandraSession, Kind};
use crate::time::{later_than_all, write_time};
use crate::value::{BUCKETS, bucket, user as user_of, varint};

/// Rows of one call that are read at a time.
const ABREAST: usize = 32;

/// How often a change starts anew because somebody else changed the same user in between.
const ATTEMPTS: usize = 10;

/// The users in a keyspace.
pub struct CassandraUsers {
    session: Arc<CassandraSession>,
    get: PreparedStatement,
    insert: PreparedStatement,
    rename: PreparedStatement,
    mark: PreparedStatement,
    delete: PreparedStatement,
    delete_unused: PreparedStatement,
    subject: PreparedStatement,
    claim_subject: PreparedStatement,
    release_subject: PreparedStatement,
    subjects_of: PreparedStatement,
    add_subject_of: PreparedStatement,
    delete_subjects_of: PreparedStatement,
    list: PreparedStatement,
    listed: PreparedStatement,
    list_add: PreparedStatement,
    list_remove: PreparedStatement,
}

impl CassandraUsers {
    /// On a connection.
    pub async fn new(session: Arc<CassandraSession>) -> Result<CassandraUsers, PortError> {
        let read = async |cql: &str| session.prepare(cql, Kind::Repeatable).await;
        let change = async |cql: &str| session.prepare(cql, Kind::Conditional).await;
        Ok(CassandraUsers {
            get: read("SELECT name, deleting FROM users WHERE id = ?").await?,
            insert: change("INSERT INTO users (id, name, deleting) VALUES (?, ?, false) IF NOT EXISTS").await?,
            rename: change("UPDATE users SET name = ? WHERE id = ? IF deleting = false").await?,
            mark: change("UPDATE users SET deleting = true WHERE id = ? IF EXISTS").await?,
            delete: change("DELETE FROM users WHERE id = ? IF deleting = true").await?,
            delete_unused: change("DELETE FROM users WHERE id = ? IF EXISTS").await?,
            subject: read("SELECT id FROM subjects WHERE subject = ?").await?,
            claim_subject: change("INSERT INTO subjects (subject, id) VALUES (?, ?) IF NOT EXISTS").await?,
            release_subject: change("DELETE FROM subjects WHERE subject = ? IF id = ?").await?,
            subjects_of: read("SELECT subject FROM subjects_of_user WHERE id = ?").await?,
            add_subject_of: read("INSERT INTO subjects_of_user (id, subject) VALUES (?, ?)").await?,
            delete_subjects_of: read("DELETE FROM subjects_of_user WHERE id = ?").await?,
            list: read("SELECT id FROM users_being_deleted WHERE bucket = ?").await?,
            listed: read("SELECT nonce FROM users_being_deleted WHERE bucket = ? AND id = ?").await?,
            list_add: read("INSERT INTO users_being_deleted (bucket, id, nonce) VALUES (?, ?, ?) USING TIMESTAMP ?")
                .await?,
            list_remove: read(
                "DELETE FROM users_being_deleted USING TIMESTAMP ? WHERE bucket = ? AND id = ? AND nonce = ?",
            )
            .await?,
            session,
        })
    }

    async fn get(&self, id: UserId) -> Result<Option<User>, PortError> {
        let rows: Vec<(Option<String>, Option<bool>)> = self.session.rows(&self.get, (varint(id),)).await?;
        Ok(rows.into_iter().next().map(|(name, deleting)| User {
            id,
            name: name.unwrap_or_default(),
            deleting: deleting == Some(true),
        }))
    }

    async fn find(&self, subject: &str) -> Result<Option<UserId>, PortError> {
        let rows: Vec<(CqlVarint,)> = self.session.rows(&self.subject, (subject,)).await?;
        rows.first().map(|(id,)| user_of(id)).transpose()
    }

    /// A user with an id of their own. Chosen by chance from 2^63: a counter would be one row for everybody, and an id
    /// that was used before is as likely as to guess one.
    async fn create_for(&self, subject: &str) -> Result<UserId, PortError> {
        for _ in 0..ATTEMPTS {
            let id = UserId(FIRST_RESOLVED_ID | rand::random::<u64>());
            if self.session.applied(&self.insert, (varint(id), subject)).await? {
                return Ok(id);
            }
        }
        Err(unavailable("no id was free"))
    }

    async fn unlist(&self, id: UserId, nonce: i64) -> Result<(), PortError> {
        let at = later_than_all(self.session.clock());
        self.session.run(&self.list_remove, (at, bucket(id), varint(id), nonce)).await
    }
}

#[async_trait]
impl Users for CassandraUsers {
    async fn put(&self, id: UserId, name: &str) -> Result<PutUser, PortError> {
        for _ in 0..ATTEMPTS {
            if self.session.applied(&self.rename, (name, varint(id))).await? {
                return Ok(PutUser::Updated);
            }
            if self.session.applied(&self.insert, (varint(id), name)).await? {
                return Ok(PutUser::Created);
            }
            if self.get(id).await?.is_some_and(|user| user.deleting) {
                return Ok(PutUser::Deleting);
            }
        }
        Err(unavailable("a user is changed too often"))
    }

    async fn get_many(&self, ids: &[UserId]) -> Result<Vec<Option<User>>, PortError> {
        stream::iter(ids.iter().copied().map(|id| self.get(id))).buffered(ABREAST).try_collect().await
    }

    /// The user comes before the subject, so that a subject never leads to nobody; a crash in between leaves a user
    /// whom nothing leads to.
    async fn resolve(&self, subject: &str) -> Result<UserId, PortError> {
        if subject.is_empty() || subject.len() > MAX_SUBJECT_BYTES {
            return Err(refused(format!("a token's subject has 1 to {MAX_SUBJECT_BYTES} bytes")));
        }
        for _ in 0..ATTEMPTS {
            if let Some(id) = self.find(subject).await? {
                return Ok(id);
            }
            let id = self.create_for(subject).await?;
            self.session.run(&self.add_subject_of, (varint(id), subject)).await?;
            if self.session.applied(&self.claim_subject, (subject, varint(id))).await? {
                return Ok(id);
            }
            // Another call was first.
            self.session.run(&self.delete_subjects_of, (varint(id),)).await?;
            self.session.applied(&self.delete_unused, (varint(id),)).await?;
        }
        Err(unavailable("a subject is changed too often"))
    }

    /// Listed first: a crash in between lists somebody who is not marked, which `deleting` looks at.
    async fn begin_delete(&self, id: UserId) -> Result<bool, PortError> {
        if self.get(id).await?.is_none() {
            return Ok(false);
        }
        let nonce: i64 = rand::random();
        let at = write_time(self.session.clock());
        self.session.run(&self.list_add, (bucket(id), varint(id), nonce, at)).await?;
        let marked = self.session.applied(&self.mark, (varint(id),)).await?;
        if !marked {
            self.unlist(id, nonce).await?;
        }
        Ok(marked)
    }

    /// The list last: a crash in between is taken up from it.
    async fn finish_delete(&self, id: UserId) -> Result<(), PortError> {
        if !self.get(id).await?.is_some_and(|user| user.deleting) {
            return Ok(());
        }
        // Read before the user goes: what is listed later is about a user who was made anew.
        let listed: Vec<(i64,)> = self.session.rows(&self.listed, (bucket(id), varint(id))).await?;
        let subjects: Vec<(String,)> = self.session.rows(&self.subjects_of, (varint(id),)).await?;
        for (subject,) in subjects {
            self.session.applied(&self.release_subject, (subject, varint(id))).await?;
        }
        self.session.run(&self.delete_subjects_of, (varint(id),)).await?;
        self.session.applied(&self.delete, (varint(id),)).await?;
        for (nonce,) in listed {
            self.unlist(id, nonce).await?;
        }
        Ok(())
    }

    async fn deleting(&self) -> Result<Vec<UserId>, PortError> {
        let reads = (0..BUCKETS).map(|bucket| self.session.rows::<(CqlVarint,)>(&self.list, (bucket,)));
        let rows: Vec<Vec<(CqlVarint,)>> = stream::iter(reads).buffer_unordered(ABREAST).try_collect().await?;
        let listed: BTreeSet<UserId> = rows.iter().flatten().map(|(id,)| user_of(id)).collect::<Result<_, _>>()?;
        let users = self.get_many(&listed.into_iter().collect::<Vec<_>>()).await?;
        Ok(users.into_iter().flatten().filter(|user| user.deleting).map(|user| user.id).collect())
    }
}
