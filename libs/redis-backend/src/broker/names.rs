//! How things are called on a pub/sub node.

use model::{NodeId, UserId};
use ports::Channel;
use protocol::ring::slot;

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

    /// Whose names these are.
    pub(crate) fn node(&self) -> NodeId {
        self.node
    }

    /// Where nodes say which pub/sub nodes they cannot use.
    pub(crate) fn votes(&self) -> Vec<u8> {
        format!("{}ring:votes", self.prefix).into_bytes()
    }

    /// What a node's subscriber connections are called in `CLIENT LIST`.
    pub(crate) fn client(&self) -> Vec<u8> {
        printable(format!("{}subscriber:{}", self.prefix, self.node))
    }

    /// What a node's publishing connections are called there, when the ring of this epoch is in use.
    pub(crate) fn publisher(&self, epoch: u64) -> Vec<u8> {
        printable(format!("{}publisher:{}:{epoch}", self.prefix, self.node))
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

/// A name as `CLIENT SETNAME` takes it, which refuses spaces and line ends.
fn printable(mut name: String) -> Vec<u8> {
    name.retain(|c| c.is_ascii_graphic());
    name.into_bytes()
}

/// Whose publishing connection in a fleet of this prefix is called so, and what epoch it has learned.
pub(crate) fn publisher_of(name: &str, prefix: &str) -> Option<(NodeId, u64)> {
    let rest = strip(name, prefix)?.strip_prefix("publisher:")?;
    let (node, epoch) = rest.split_once(':')?;
    Some((NodeId(u64::from_str_radix(node, 16).ok()?), epoch.parse().ok()?))
}

/// Whether a subscriber connection in a fleet of this prefix is called so.
pub(crate) fn subscriber_of(name: &str, prefix: &str) -> bool {
    let node = strip(name, prefix).and_then(|rest| rest.strip_prefix("subscriber:"));
    node.is_some_and(|node| u64::from_str_radix(node, 16).is_ok())
}

fn strip<'a>(name: &'a str, prefix: &str) -> Option<&'a str> {
    let prefix = printable(prefix.to_owned());
    name.strip_prefix(std::str::from_utf8(&prefix).ok()?)
}

/// The slot of a channel.
pub(crate) fn slot_of(channel: Channel) -> u16 {
    slot(&plain(channel))
}

/// The name that decides the slot.
fn plain(channel: Channel) -> Vec<u8> {
    match channel {
        Channel::User(user) => format!("u:{user}").into_bytes(),
        Channel::Node(node) => format!("node:{node}").into_bytes(),
        // Channels are added together with their names.
        other => format!("{other:?}").into_bytes(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_connections_tell_fleets_apart() {
        let node = NodeId(0xab);
        for prefix in ["", "nearby", "a b\n:"] {
            let names = Names::new(prefix, node);
            let publisher = String::from_utf8(names.publisher(7)).unwrap();
            let subscriber = String::from_utf8(names.client()).unwrap();
            assert_eq!(publisher_of(&publisher, prefix), Some((node, 7)));
            assert!(subscriber_of(&subscriber, prefix));
            assert_eq!(publisher_of(&publisher, "other"), None);
            assert!(!subscriber_of(&subscriber, "other"));
            assert_eq!(publisher_of(&subscriber, prefix), None);
            assert!(!subscriber_of(&publisher, prefix));
        }
        assert_eq!(publisher_of("nearbypublisher:ab:7", ""), None, "of another fleet");
    }

    #[test]
    fn a_channel_has_one_name() {
        let names = Names::new("x:", NodeId(1));
        for channel in [Channel::User(UserId(u64::MAX)), Channel::Node(NodeId(0xab))] {
            assert_eq!(names.read(&names.channel(channel)), Some(channel));
        }
        for name in ["u:7", "x:u:", "x:u:x", "x:v:7", "x:node:x", "x:probe:1"] {
            assert_eq!(names.read(name.as_bytes()), None, "{name}");
        }
    }
}
