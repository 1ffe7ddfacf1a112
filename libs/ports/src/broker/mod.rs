//! `Broker`: how a position gets from the node that took it in to the nodes that watch its owner.

pub mod conformance;
pub mod embedded;
mod inbox;

use std::fmt;

use async_trait::async_trait;
use model::{Fix, UserId};

use crate::PortError;

pub use inbox::{Inbox, InboxSender, inbox};

/// What one can subscribe to.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
#[non_exhaustive]
pub enum Channel {
    /// The positions of one user.
    User(UserId),
}

/// One message; its channel follows from what it says.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Publication {
    /// A position, on its owner's channel.
    Location(Fix),
}

impl Publication {
    /// The channel it goes out on.
    pub fn channel(&self) -> Channel {
        match self {
            Publication::Location(fix) => Channel::User(fix.user),
        }
    }
}

/// What an inbox hands out.
#[derive(Clone, Debug, PartialEq)]
pub enum Arrival {
    /// Messages, in the order of their publication for each publishing node and channel.
    Batch(Vec<Publication>),
    /// Messages on these channels, in either direction, may have been lost until now; the subscriptions hold again.
    Gap(Vec<Channel>),
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
/// 7. A [`Arrival::Gap`] means: messages on these channels, in either direction, may have been lost until now, and the
///    subscription holds again. It names only subscribed channels. Its cause (a lost connection, a full inbox, a ring
///    change, a failed probe) is invisible. It may be told before messages that arrived earlier and still wait.
/// 8. The inbox is bounded. When it is full, what does not fit becomes a `Gap`; publishers never wait for a slow
///    receiver.
#[async_trait]
pub trait Broker: Send + Sync {
    /// Publishes each message on its channel.
    async fn publish(&self, batch: &[Publication]) -> Result<(), Unconfirmed>;

    /// Subscribes this node to the channels.
    async fn subscribe(&self, channels: &[Channel]) -> Result<(), PortError>;

    /// Ends this node's subscriptions.
    async fn unsubscribe(&self, channels: &[Channel]) -> Result<(), PortError>;
}
