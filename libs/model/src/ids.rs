//! Who: users, nodes, sessions, and the counters that order what they say.

use std::fmt;
use std::str::FromStr;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A person. In JSON and in URLs a decimal string, because JavaScript cannot hold every `u64`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UserId(pub u64);

/// One run of one `nearby serve` process: a restarted process has another id, so that what the dead one left behind
/// is never taken for the living one's.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u64);

/// One connection on one node; never used again within a node's life.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SessionId(pub u64);

/// Which sharing device of a user speaks: a device that starts to share gets a higher one than every device before it.
///
/// It is the claiming store's own time in ms, and at least the previous one + 1, so that a store which lost its data
/// does not freeze a user.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Generation(pub u64);

/// Which of several reports of one device time came last: each report that a node takes in gets a higher number than
/// every report that this node took in before.
///
/// It is the node's wall clock in microseconds at the receipt, and at least the previous number + 1. Numbers of two
/// nodes are compared only when one device sent two reports of one time through both of them; then nothing else says
/// which came last, and every part of the system picks the same one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Sequence(pub u64);

/// How far a user's permissions have come: an index into the control log.
///
/// A position carries the index of the last entry that its owner's node had applied about the owner; an edge is worth
/// the index that its holder has applied. See [`crate::Edge::reveal`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct PolicyVersion(pub u64);

/// The text is not a user id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadUserId;

impl fmt::Display for BadUserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a user id is a decimal number from 0 to 18446744073709551615, without sign or leading zeros")
    }
}

impl std::error::Error for BadUserId {}

impl FromStr for UserId {
    type Err = BadUserId;

    /// Only the canonical spelling is taken, so that a user has one name in every key, URL and log.
    fn from_str(text: &str) -> Result<UserId, BadUserId> {
        let canonical = text.bytes().all(|b| b.is_ascii_digit()) && (text.len() == 1 || !text.starts_with('0'));
        if canonical { text.parse().map(UserId).map_err(|_| BadUserId) } else { Err(BadUserId) }
    }
}

impl fmt::Display for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "user {}", self.0)
    }
}

impl Serialize for UserId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for UserId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<UserId, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = UserId;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a user id as a decimal string")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<UserId, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Text)
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node {self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_has_one_spelling() {
        assert_eq!("7".parse(), Ok(UserId(7)));
        assert_eq!("0".parse(), Ok(UserId(0)));
        assert_eq!("18446744073709551615".parse(), Ok(UserId(u64::MAX)));
        for bad in ["", "07", "+7", "-7", " 7", "7 ", "18446744073709551616", "seven", "７"] {
            assert_eq!(bad.parse::<UserId>(), Err(BadUserId), "{bad:?}");
        }
    }
}
