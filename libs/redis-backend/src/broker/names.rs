//! How things are called on a pub/sub node.

use model::{NodeId, UserId};
use ports::Channel;

/// All with one prefix, which is empty outside of tests.
#[derive(Clone)]
pub(crate) struct Names {
    prefix: String,
    node: NodeId,
}

impl Names {
    pub(crate) fn new(prefix: &str, node: NodeId) -> Names {
        Names { prefix: prefix.to_owned(), node }
    }

    /// `u:{user}`, `node:{node}`.
    pub(crate) fn channel(&self, channel: Channel) -> Vec<u8> {
        let mut name = self.prefix.clone().into_bytes();
        name.extend_from_slice(&plain(channel));
        name
    }

    /// The channel that is called like this.
    pub(crate) fn read(&self, name: &[u8]) -> Option<Channel> {
        let name = name.strip_prefix(self.prefix.as_bytes())?;
        let number = |digits, base| u64::from_str_radix(std::str::from_utf8(digits).ok()?, base).ok();
        match name.strip_prefix(b"u:") {
            Some(digits) => Some(Channel::User(UserId(number(digits, 10)?))),
            None => Some(Channel::Node(NodeId(number(name.strip_prefix(b"node:")?, 16)?))),
        }
    }

    /// Where a node's probes go.
    pub(crate) fn probe(&self) -> Vec<u8> {
        format!("{}probe:{}", self.prefix, self.node).into_bytes()
    }

    /// What a node's subscriber connections are called in `CLIENT LIST`.
    pub(crate) fn client(&self) -> Vec<u8> {
        format!("{}subscriber:{}", self.prefix, self.node).into_bytes()
    }

    /// The newest epoch that this pub/sub node has been told.
    pub(crate) fn epoch(&self) -> Vec<u8> {
        format!("{}ring:epoch", self.prefix).into_bytes()
    }

    /// The document of that epoch.
    pub(crate) fn document(&self) -> Vec<u8> {
        format!("{}ring:doc", self.prefix).into_bytes()
    }
}

/// The name that decides the slot.
pub(crate) fn plain(channel: Channel) -> Vec<u8> {
    match channel {
        Channel::User(user) => format!("u:{user}").into_bytes(),
        Channel::Node(node) => format!("node:{node}").into_bytes(),
        // Channels are added together with their names.
        other => format!("{other:?}").into_bytes(),
    }
}
