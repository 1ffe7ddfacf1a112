//! `Sessions`: which connection of a user shares the user's position.

pub mod conformance;
pub mod embedded;

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

/// The registry of sharing sessions: at most one a user.
///
/// # Contract
///
/// 1. `claim` makes a session the sharing one of its user, in the place of any other, and returns its generation:
///    this store's own time in ms, and above every generation that it gave the user before.
/// 2. Claiming again, by whatever session, gives a higher generation.
/// 3. `release` removes the entry only if it is still this session's, and says whether it was.
/// 4. `locate` returns the sharing session with its generation; `None` when nobody shares.
/// 5. A store that lost its data still gives generations above those before, as long as its clock did not go back.
#[async_trait]
pub trait Sessions: Send + Sync {
    /// Becomes the sharing session.
    async fn claim(&self, user: UserId, session: SessionKey) -> Result<Generation, PortError>;

    /// Gives it up, if still ours.
    async fn release(&self, user: UserId, session: SessionKey) -> Result<bool, PortError>;

    /// Who shares.
    async fn locate(&self, user: UserId) -> Result<Option<Sharing>, PortError>;
}
