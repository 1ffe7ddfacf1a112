//! `Friendships`: who may see whom.

pub mod conformance;
pub mod embedded;
mod notes;

use std::time::Duration;

use async_trait::async_trait;
use model::{Level, UserId};

use crate::PortError;

pub use notes::Notes;

/// Somebody whom a viewer may see, and how much of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Friendship {
    /// The friend.
    pub friend: UserId,
    /// What the friend shows the viewer.
    pub level: Level,
}

/// What became of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is done.
    Done,
    /// It was so before.
    Unchanged,
    /// It would give one of the two more friends than [`MAX_FRIENDS`]: they are no friends.
    TooMany(UserId),
}

/// A change of a pair that may have been written and has not been announced yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ChangeNote {
    /// One of the two.
    pub user: UserId,
    /// The other.
    pub friend: UserId,
    /// When the note was made: minutes since the Unix epoch, by the clock of its writer.
    pub minute: u64,
    /// Tells the notes of one pair and minute apart.
    pub nonce: u64,
}

/// The outcome of `add` or `remove`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Changed {
    /// What became of the change.
    pub change: Change,
    /// Present if the pair's record was written, also when the write was taken back ([`Change::TooMany`]).
    pub note: Option<ChangeNote>,
}

/// Friends that one person can have.
pub const MAX_FRIENDS: usize = 5_000;

/// The friendships, each between two different people and in both directions.
///
/// # Contract
///
/// 1. `add` makes two people friends, each showing the other exact positions; durable when it returns. `remove` ends
///    that; durable when it returns. Repeating either is `Unchanged`. Befriending oneself is refused.
/// 2. Changes of one pair take effect in one order, the same for both directions: never is one the other's friend and
///    not the other way round in what a call that begins after the change returns.
/// 3. `visible_to` returns everybody the viewer may see, ascending by id. It sees every change that returned before
///    it began.
/// 4. `list` returns friends after the given id, ascending, at most `limit`: fewer only when there are no more.
/// 5. `add` refuses to go above [`MAX_FRIENDS`] for either of the two.
/// 6. `forget` removes all friendships of a user; repeating it is allowed, and after a crash it is to be repeated.
/// 7. `levels` returns, for each (viewer, friend) in order, how much of the friend the viewer may see; `None` for
///    nothing. It sees every change that returned before it began.
/// 8. A call that may write a pair's record makes a note first, durable as long as a node that obeyed the record may
///    live, and returns it if the record was written. A note stays until it was given to `announced`: a caller that
///    crashes or hangs between its write and its entry in the control log leaves its note behind. `announced` may be
///    repeated.
/// 9. `unannounced` finishes what the changes of notes that are at least `age` old left half done, and returns these
///    notes. Every write that was ever made is announced by its caller or returned here. Several callers at once may be
///    given the same notes, or one of them all and the others none.
#[async_trait]
pub trait Friendships: Send + Sync {
    /// Makes two people friends.
    async fn add(&self, user: UserId, friend: UserId) -> Result<Changed, PortError>;

    /// Ends it.
    async fn remove(&self, user: UserId, friend: UserId) -> Result<Changed, PortError>;

    /// Whom a viewer may see.
    async fn visible_to(&self, viewer: UserId) -> Result<Vec<Friendship>, PortError>;

    /// How much of each friend each viewer may see, as pairs of viewer and friend.
    async fn levels(&self, pairs: &[(UserId, UserId)]) -> Result<Vec<Option<Level>>, PortError>;

    /// A page of friends.
    async fn list(&self, user: UserId, after: Option<UserId>, limit: usize) -> Result<Vec<UserId>, PortError>;

    /// Removes all friendships of a user; returns the notes of the records that were written.
    async fn forget(&self, user: UserId) -> Result<Vec<ChangeNote>, PortError>;

    /// The control log has an entry for each of these writes.
    async fn announced(&self, notes: &[ChangeNote]) -> Result<(), PortError>;

    /// Writes that are at least so old and were not announced.
    async fn unannounced(&self, age: Duration) -> Result<Vec<ChangeNote>, PortError>;
}
