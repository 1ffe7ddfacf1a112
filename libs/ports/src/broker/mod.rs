//! `Broker`: how a position gets from the node that took it in to the nodes that watch its owner.

mod affected;
pub mod conformance;
pub mod embedded;
mod inbox;

use std::fmt;

use async_trait::async_trait;
use model::{Fix, NodeId, UserId};

use crate::PortError;

pub use affected::Affected;
pub use inbox::{Inbox, InboxSender, inbox};

/// What one can subscribe to.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
#[non_exhaustive]
pub enum Channel {
    /// The positions of one user.
    User(UserId),
    /// What is said to one node alone.
    Node(NodeId),
}

/// One message; its channel follows from what it says.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Publication {
    /// A position, on its owner's channel.
    Location(Fix),
    /// The newest position of a user, for all of the user's sessions on one node, in one message.
    Directed {
        /// To whom.
        node: NodeId,
        /// The position.
        fix: Fix,
    },
}

impl Publication {
    /// The channel it goes out on.
    pub fn channel(&self) -> Channel {
        match self {
            Publication::Location(fix) => Channel::User(fix.user),
            Publication::Directed { node, .. } => Channel::Node(*node),
        }
    }

    /// The position that it carries.
    pub fn fix(&self) -> &Fix {
        match self {
            Publication::Location(fix) | Publication::Directed { fix, .. } => fix,
        }
    }
}

/// What an inbox hands out.
#[derive(Clone, Debug, PartialEq)]
pub enum Arrival {
    /// Messages, in the order of their publication for each publishing node and channel.
    Batch(Vec<Publication>),
    /// Messages to this node on these channels may have been lost until now; the subscriptions hold again. The answer:
    /// read the cache.
    Gap(Vec<Channel>),
    /// What this node published on these channels until now may not have reached everybody. The answer: publish the
    /// last of it again.
    Republish(Affected),
}

/// Some messages of a `publish` may not have gone out. Publishing them again is always allowed.
#[derive(Clone, PartialEq, Eq)]
pub struct Unconfirmed {
    /// Their places in the batch, ascending.
    pub indexes: Vec<usize>,
    /// Why, for the log.
    pub cause: PortError,
}

impl fmt::Debug for Unconfirmed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} messages unconfirmed: {}", self.indexes.len(), self.cause)
    }
}

/// The waist between ingest and fan-out. One `Broker` is one node's connection; its arrivals come out of the [`Inbox`]
/// that is made with it.
///
/// # Contract
///
/// 1. **At most once.** A message arrives once or not at all; nothing is kept for who subscribes later.
/// 2. `publish` = `Ok` when the owner of each channel took its message while the routing in use was current. An error
///    names every message whose outcome is bad or unknown, and publishing it again is always allowed: receivers
///    compare the order within the message.
/// 3. **Order.** Publications of one channel by one node arrive in the order of their `publish` calls, and in a batch
///    in the order of the batch. Nothing is said between nodes.
/// 4. After `subscribe` returned `Ok`, a publication whose `publish` call begins later reaches the inbox, or a
///    [`Arrival::Gap`] that names its channel does. A node's own publications are no exception.
/// 5. `subscribe` again to a subscribed channel changes nothing. After an error some of the channels may be
///    subscribed; calling again is allowed.
/// 6. After `unsubscribe` returned, publications whose call begins later do not arrive; what was under way may.
///    Unsubscribing from what is not subscribed is no error.
/// 7. A [`Arrival::Gap`] means: messages to this node on these channels may have been lost until now, and the
///    subscription holds again. It names only subscribed channels. Its cause (a lost connection, a full inbox, a change
///    of routing, a failed probe) is invisible. It may be told before messages that arrived earlier and still wait.
/// 8. The inbox is bounded. When it is full, what does not fit becomes a `Gap`; publishers never wait for a slow
///    receiver.
/// 9. A [`Arrival::Republish`] means: what this node published on the channels that it holds, confirmed or not, may not
///    have reached every subscriber until now; what is published from now on does. It is told whether this node is
///    subscribed to them or not. Several that wait become one, which holds what any of them held, or more; none is ever
///    lost, however full the inbox.
#[async_trait]
pub trait Broker: Send + Sync {
    /// Publishes each message on its channel.
    async fn publish(&self, batch: &[Publication]) -> Result<(), Unconfirmed>;

    /// Subscribes this node to the channels.
    async fn subscribe(&self, channels: &[Channel]) -> Result<(), PortError>;

    /// Ends this node's subscriptions.
    async fn unsubscribe(&self, channels: &[Channel]) -> Result<(), PortError>;
}
