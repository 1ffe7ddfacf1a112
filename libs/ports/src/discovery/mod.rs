//! `Discovery`: which nodes there are.

pub mod conformance;
pub mod embedded;

use std::time::Duration;

use async_trait::async_trait;
use model::NodeId;

use crate::PortError;

/// How long a member or sender that says nothing stays one (L); at least [`crate::control::RIGHT_TO_SEND`].
pub const LEASE: Duration = Duration::from_secs(12);

/// A versioned document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// Goes up with each change; 0 is "does not exist".
    pub version: u64,
    /// Its text.
    pub text: String,
}

/// Membership by lease, and small documents that all nodes agree on.
///
/// # Contract
///
/// 1. `join` makes a node a member and a sender of positions for [`LEASE`] from the beginning of the call; `keepalive`
///    prolongs both, again from the beginning of the call, and is an error for who is no member (any more).
/// 2. `members` lists those whose lease has not ended, ascending; `leave` ends one's lease at once. Whoever leaves has
///    closed its connections before: nobody waits for it any more.
/// 3. `document` returns the newest version of a document, or version 0 and no text.
/// 4. `swap` replaces a document only if its version is still the given one, and says whether it did; of several
///    swaps on one version exactly one succeeds.
#[async_trait]
pub trait Discovery: Send + Sync {
    /// Becomes a member.
    async fn join(&self, node: NodeId) -> Result<(), PortError>;

    /// Stays one.
    async fn keepalive(&self, node: NodeId) -> Result<(), PortError>;

    /// Is one no longer.
    async fn leave(&self, node: NodeId) -> Result<(), PortError>;

    /// Who is.
    async fn members(&self) -> Result<Vec<NodeId>, PortError>;

    /// Reads a document.
    async fn document(&self, name: &str) -> Result<Document, PortError>;

    /// Replaces a document.
    async fn swap(&self, name: &str, version: u64, text: &str) -> Result<bool, PortError>;
}
