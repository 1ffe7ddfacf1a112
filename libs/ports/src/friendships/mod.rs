//! `Friendships`: who may see whom.

pub mod conformance;
pub mod embedded;

use async_trait::async_trait;
use model::{Level, UserId};

use crate::PortError;

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
    /// It would give one of the two more friends than [`MAX_FRIENDS`]; nothing changed.
    TooMany(UserId),
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
#[async_trait]
pub trait Friendships: Send + Sync {
    /// Makes two people friends.
    async fn add(&self, user: UserId, friend: UserId) -> Result<Change, PortError>;

    /// Ends it.
    async fn remove(&self, user: UserId, friend: UserId) -> Result<Change, PortError>;

    /// Whom a viewer may see.
    async fn visible_to(&self, viewer: UserId) -> Result<Vec<Friendship>, PortError>;

    /// A page of friends.
    async fn list(&self, user: UserId, after: Option<UserId>, limit: usize) -> Result<Vec<UserId>, PortError>;

    /// Removes all friendships of a user.
    async fn forget(&self, user: UserId) -> Result<(), PortError>;
}
