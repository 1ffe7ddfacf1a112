//! `LocationCache`: the last position of everybody who is active.

pub mod conformance;
pub mod embedded;

use async_trait::async_trait;
use model::{Fix, UserId};

use crate::PortError;

/// What became of one `put`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// It is the newest; it is kept.
    Stored,
    /// A newer position of this user is kept, and stays.
    Stale,
}

/// The newest position of each active user, gone by itself at the end of its time to live.
///
/// # Contract
///
/// 1. A user's kept position is the one of the highest [`model::Order`] that was put and has not expired, whatever
///    the order of the calls. Of several reports of one device time that is the one received last.
/// 2. `put_many` answers for each fix, in order: `Stored`, or `Stale` when a newer one is kept. Putting the same fix
///    again is `Stored` and changes nothing.
/// 3. After `put_many` returned `Ok`, every `get_many` that begins later sees that fix or a newer one until it
///    expires.
/// 4. A fix is kept until its `expires` and is not returned after; `get_many` returns it with the time it has left. A
///    fix that has already expired is not kept (and is answered `Stored`).
/// 5. `get_many` answers for each user, in order; `None` for who has no position.
/// 6. `remove` forgets the user's position, whatever its order.
/// 7. After an error nothing is known; every call may be repeated.
#[async_trait]
pub trait LocationCache: Send + Sync {
    /// Keeps each fix unless a newer one of its user is kept.
    async fn put_many(&self, fixes: &[Fix]) -> Result<Vec<Put>, PortError>;

    /// The kept position of each user.
    async fn get_many(&self, users: &[UserId]) -> Result<Vec<Option<Fix>>, PortError>;

    /// Forgets each user's position.
    async fn remove(&self, users: &[UserId]) -> Result<(), PortError>;
}
