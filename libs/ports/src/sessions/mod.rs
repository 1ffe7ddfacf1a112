//! `Sessions`: which connection of a user shares the user's position.

pub mod conformance;
pub mod embedded;

use std::time::Duration;

use async_trait::async_trait;
use model::{Generation, NodeId, SessionId, UserId};

use crate::PortError;

/// One connection, anywhere.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct SessionKey {
    /// The process that holds it.
    pub node: NodeId,
    /// Which of its connections.
    pub session: SessionId,
}

/// Who shares a user's position, and under which generation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sharing {
    /// The connection.
    pub session: SessionKey,
    /// What its claim was given.
    pub generation: Generation,
}

/// What a claim was given.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Claimed {
    /// Under which the session's positions go out.
    pub generation: Generation,
    /// Whose place it took: that one does not know yet.
    pub before: Option<SessionKey>,
}

/// How long an entry stays that is not renewed. Long, because only the entries of processes that were killed wait for
/// it, and nobody is misled by them: whoever locates one asks [`crate::Discovery`] whether its node is still a member.
pub const ENTRY: Duration = Duration::from_secs(2 * 3_600);

/// The registry of sharing sessions: at most one a user.
///
/// # Contract
///
/// 1. `claim` makes a session the sharing one of its user, in the place of any other, and returns whose place it took
///    and its generation: this store's own time in ms, and above every generation that it gave the user before.
/// 2. Claiming again, by whatever session, gives a higher generation.
/// 3. `release` removes the entry only if it is still this session's, and says whether it was.
/// 4. `locate` returns the sharing session with its generation; `None` when nobody shares.
/// 5. A store that lost its data still gives generations above those before, as long as its clock did not go back.
/// 6. An entry stays for [`ENTRY`] after its claim or its last `renew`. `renew` prolongs the entries that are still of
///    these generations and changes no other.
#[async_trait]
pub trait Sessions: Send + Sync {
    /// Becomes the sharing session.
    async fn claim(&self, user: UserId, session: SessionKey) -> Result<Claimed, PortError>;

    /// Gives it up, if still ours.
    async fn release(&self, user: UserId, session: SessionKey) -> Result<bool, PortError>;

    /// Goes on sharing.
    async fn renew(&self, claims: &[(UserId, Generation)]) -> Result<(), PortError>;

    /// Who shares.
    async fn locate(&self, user: UserId) -> Result<Option<Sharing>, PortError>;
}
