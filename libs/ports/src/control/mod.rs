//! `ControlLog`: what changes permissions, in one order for all nodes, and the knowledge who has applied it.

pub mod conformance;
pub mod embedded;

use std::time::Duration;

use async_trait::async_trait;
use model::{NodeId, PolicyVersion, UserId};

use crate::PortError;

/// A record that decides what somebody may see was written. An entry says *what changed* and what was written at that
/// time; what *is*, the directory says ([`crate::Friendships`]). Every write is followed by an entry, at any time later
/// and perhaps more than once, so entries of one pair may come in another order than its writes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ControlEntry {
    /// The record of the two was written: friends.
    Befriended(UserId, UserId),
    /// The record of the two was written: no friends.
    Unfriended(UserId, UserId),
    /// The user is being deleted: sessions end, nobody sees them, nothing of theirs is taken in.
    UserDeleted(UserId),
    /// The records of all friendships of the user were written: no friends. Comes after `UserDeleted`, whose user may
    /// still have been somebody's friend for who connected meanwhile.
    UserForgotten(UserId),
}

/// An entry with its place in the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ControlRecord {
    /// Its index; indexes ascend, and may leave numbers out.
    pub index: PolicyVersion,
    /// The change.
    pub entry: ControlEntry,
}

/// What a read of the log found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogRead {
    /// Every entry after the given index, ascending, and the log's end at the time of the read.
    Entries {
        /// The entries.
        records: Vec<ControlRecord>,
        /// The index that has now been read up to.
        end: PolicyVersion,
    },
    /// Entries after the given index are no longer kept, or the log lost what the index was given for: what they
    /// changed has to be read from the directory again.
    Compacted {
        /// The index from which on the log can be read; lower than the given one if the log lost entries.
        end: PolicyVersion,
    },
}

/// How long `erased` waits for the members.
pub const ERASURE: Duration = Duration::from_secs(30);

/// How long the right to send lasts after a poll (T), and so the longest that a revoke waits for a node that does not
/// answer.
pub const RIGHT_TO_SEND: Duration = Duration::from_secs(10);

/// The control log. A node that may send positions is a *sender*: it holds a lease ([`crate::Discovery`]), polls the
/// log, applies what is new, confirms, and stops sending by itself when it could not poll for [`RIGHT_TO_SEND`].
///
/// # Contract
///
/// 1. `append` puts an entry at the end and returns its index once it is there for every later `read_after`.
/// 2. `read_after` is linearizable: it returns every entry whose `append` returned before the read began. So is `end`,
///    which is the index of the last of them; 0 when there was none.
/// 3. Every node reads the entries in the same order.
/// 4. `confirm` says that a sender has applied everything up to an index.
/// 5. `settled` returns once each node that was a sender when it was called has confirmed the index or is no sender any
///    more (it has left, or its lease has ended: either way it sends nothing), or [`RIGHT_TO_SEND`] has passed since
///    the call, by when a node that did not confirm has stopped sending.
/// 6. `confirm_erased` says that a member holds nothing any more of the users whose deletion is at or before an index,
///    and will write nothing more of them. `erased` returns once each node that was a member when it was called has said
///    so or is no member any more; after [`ERASURE`] it is `Unavailable`, and may be repeated.
/// 7. An entry of a kind that this version does not know is passed over: `read_after` leaves it out, and its index
///    counts as read.
/// 8. `changed` returns when there may be something after the index; it may return too early, and only makes a poll
///    come sooner. Cancel safe.
#[async_trait]
pub trait ControlLog: Send + Sync {
    /// Appends.
    async fn append(&self, entry: ControlEntry) -> Result<PolicyVersion, PortError>;

    /// Reads on.
    async fn read_after(&self, index: PolicyVersion) -> Result<LogRead, PortError>;

    /// Where a reader begins that needs nothing of what was before.
    async fn end(&self) -> Result<PolicyVersion, PortError>;

    /// Has applied.
    async fn confirm(&self, node: NodeId, index: PolicyVersion) -> Result<(), PortError>;

    /// Waits until no node sends by what was before the index.
    async fn settled(&self, index: PolicyVersion) -> Result<(), PortError>;

    /// Has erased.
    async fn confirm_erased(&self, node: NodeId, index: PolicyVersion) -> Result<(), PortError>;

    /// Waits until no member holds anything of the users deleted up to the index.
    async fn erased(&self, index: PolicyVersion) -> Result<(), PortError>;

    /// Waits for news.
    async fn changed(&self, index: PolicyVersion);
}
