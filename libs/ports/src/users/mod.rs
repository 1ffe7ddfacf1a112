//! `Users`: who there is.

pub mod conformance;
pub mod embedded;

use async_trait::async_trait;
use model::UserId;

use crate::PortError;

/// A person as the application's backend made them known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Who.
    pub id: UserId,
    /// What friends are shown.
    pub name: String,
    /// Their deletion has begun and may not have finished.
    pub deleting: bool,
}

/// What became of a `put`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PutUser {
    /// There was no such user.
    Created,
    /// There was; the name is the new one.
    Updated,
    /// Their deletion has begun and not finished; nothing changed.
    Deleting,
}

/// Ids that `resolve` makes begin here.
pub const FIRST_RESOLVED_ID: u64 = 1 << 63;

/// The longest subject that `resolve` takes. Far above what identity providers use; stores have limits on keys.
pub const MAX_SUBJECT_BYTES: usize = 4_096;

/// The users.
///
/// # Contract
///
/// 1. `put` creates a user or renames one; durable when it returns. It refuses to touch a user who is being deleted.
/// 2. `get_many` answers for each id, in order; `None` for who does not exist. One who is being deleted is returned
///    with `deleting` set.
/// 3. `resolve` gives the one user id of a token's subject that is not itself a decimal number. The first call for a
///    subject creates the user, with the subject as name, durable when it returns; every later call, on any node,
///    returns the same id. Ids made so are from 2^63 up, so that they never meet those that an application chose
///    below. A subject that is empty or longer than [`MAX_SUBJECT_BYTES`] is refused.
/// 4. `begin_delete` marks a user and returns whether there was one; durable when it returns. Repeating it changes
///    nothing.
/// 5. `finish_delete` removes a user who was marked, with the subjects that resolve to them; who was not marked stays.
/// 6. `deleting` lists those whose deletion has begun and not finished, so that it can be taken up after a crash.
#[async_trait]
pub trait Users: Send + Sync {
    /// Creates or renames.
    async fn put(&self, id: UserId, name: &str) -> Result<PutUser, PortError>;

    /// Looks up.
    async fn get_many(&self, ids: &[UserId]) -> Result<Vec<Option<User>>, PortError>;

    /// The user of a token's subject.
    async fn resolve(&self, subject: &str) -> Result<UserId, PortError>;

    /// Marks a user as being deleted.
    async fn begin_delete(&self, id: UserId) -> Result<bool, PortError>;

    /// Removes a marked user.
    async fn finish_delete(&self, id: UserId) -> Result<(), PortError>;

    /// Those who are marked.
    async fn deleting(&self) -> Result<Vec<UserId>, PortError>;
}
