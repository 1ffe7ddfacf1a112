//! The text of a ring, and how one becomes the next.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{SLOTS, VIRTUAL_NODES};

/// Nodes of one ring.
pub const MAX_NODES: usize = 1_024;
/// Virtual nodes of one node.
pub const MAX_VIRTUAL_NODES: u16 = 4_096;
/// Removed nodes that a document remembers.
pub const MAX_RETIRED: usize = 16;

/// One pub/sub node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RingNode {
    /// Who it is; decides where it stands on the ring.
    pub name: String,
    /// Where it listens: `host:port`.
    pub address: String,
}

/// The text that all nodes agree on: in discovery, and beside the epoch on each pub/sub node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RingDocument {
    /// Goes up by one with each change. Equal epoch means equal ring.
    pub epoch: u64,
    /// Who shares the slots, in no order.
    pub nodes: Vec<RingNode>,
    /// Of each node.
    #[serde(default = "virtual_nodes")]
    pub virtual_nodes: u16,
    /// Slots that an operator put elsewhere: slot -> name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub pins: BTreeMap<u16, String>,
    /// Names of the nodes that are out of service: they keep their place and own no slot.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub down: BTreeSet<String>,
    /// Nodes of earlier rings, newest last: who has not learnt this one may still publish there, so they are told its
    /// epoch as well.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub retired: Vec<RingNode>,
}

fn virtual_nodes() -> u16 {
    VIRTUAL_NODES
}

/// Why a text or a change is no ring.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BadRing {
    /// Not the JSON of a ring document.
    #[error("not a ring document: {0}")]
    Text(String),
    /// Epoch 0 is "no ring yet".
    #[error("the epoch of a ring is at least 1")]
    Epoch,
    /// Nobody to own the slots, or too many.
    #[error("a ring has 1 to {MAX_NODES} nodes, not {0}")]
    Nodes(usize),
    /// Too few or too many.
    #[error("a node has 1 to {MAX_VIRTUAL_NODES} virtual nodes, not {0}")]
    VirtualNodes(u16),
    /// A name is letters, digits, '-', '_' and '.'.
    #[error("{0:?} is no node name: 1 to 64 letters, digits, '-', '_' or '.'")]
    Name(String),
    /// An address is `host:port`.
    #[error("{0:?} is no address: host:port")]
    Address(String),
    /// Two nodes of one name.
    #[error("two nodes are called {0:?}")]
    SameName(String),
    /// Two nodes at one address would be told apart by nobody.
    #[error("two nodes are at {0:?}")]
    SameAddress(String),
    /// A pin's slot is below [`SLOTS`].
    #[error("there is no slot {0}: slots are 0 to 16383")]
    Slot(u16),
    /// A pin, or a change, names a node that is not in the ring.
    #[error("no node is called {0:?}")]
    Unknown(String),
    /// Somebody has to own the slots.
    #[error("no node of the ring would be in service")]
    AllDown,
}

impl RingDocument {
    /// The first ring of these nodes.
    pub fn first(nodes: Vec<RingNode>) -> Result<RingDocument, BadRing> {
        let first = RingDocument {
            epoch: 1,
            nodes,
            virtual_nodes: VIRTUAL_NODES,
            pins: BTreeMap::new(),
            down: BTreeSet::new(),
            retired: Vec::new(),
        };
        first.check()
    }

    /// Reads and checks a document.
    pub fn parse(text: &str) -> Result<RingDocument, BadRing> {
        serde_json::from_str::<RingDocument>(text).map_err(|error| BadRing::Text(error.to_string()))?.check()
    }

    /// Its text.
    pub fn text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// The next ring, with one node more.
    pub fn add(&self, node: RingNode) -> Result<RingDocument, BadRing> {
        let mut next = self.next();
        next.retired.retain(|retired| retired.address != node.address);
        next.nodes.push(node);
        next.check()
    }

    /// The next ring, without a node; its pins go with it.
    pub fn remove(&self, name: &str) -> Result<RingDocument, BadRing> {
        let mut next = self.next();
        let at = self.position(name)?;
        let gone = next.nodes.remove(at);
        next.retire(gone);
        next.pins.retain(|_, pinned| pinned != name);
        next.down.remove(name);
        next.check()
    }

    /// The next ring, with a node out of service, or in service again: only its slots move.
    pub fn set_down(&self, name: &str, down: bool) -> Result<RingDocument, BadRing> {
        let mut next = self.next();
        self.position(name)?;
        match down {
            true => next.down.insert(name.to_owned()),
            false => next.down.remove(name),
        };
        next.check()
    }

    /// The next ring, with another server in the place of a node: no slot changes its node.
    pub fn replace(&self, name: &str, address: &str) -> Result<RingDocument, BadRing> {
        let mut next = self.next();
        let at = self.position(name)?;
        let here = RingNode { name: name.to_owned(), address: address.to_owned() };
        next.retired.retain(|retired| retired.address != address);
        let gone = std::mem::replace(&mut next.nodes[at], here);
        next.retire(gone);
        next.down.remove(name);
        next.check()
    }

    /// The next ring, with a slot put on a node, or back where the hash puts it.
    pub fn pin(&self, slot: u16, name: Option<&str>) -> Result<RingDocument, BadRing> {
        let mut next = self.next();
        match name {
            Some(name) => drop(next.pins.insert(slot, name.to_owned())),
            None => drop(next.pins.remove(&slot)),
        }
        next.check()
    }

    fn next(&self) -> RingDocument {
        RingDocument { epoch: self.epoch + 1, ..self.clone() }
    }

    pub(super) fn position(&self, name: &str) -> Result<usize, BadRing> {
        self.nodes.iter().position(|node| node.name == name).ok_or_else(|| BadRing::Unknown(name.to_owned()))
    }

    fn retire(&mut self, node: RingNode) {
        self.retired.retain(|retired| retired.address != node.address);
        self.retired.push(node);
        let surplus = self.retired.len().saturating_sub(MAX_RETIRED);
        self.retired.drain(..surplus);
    }

    pub(super) fn check(self) -> Result<RingDocument, BadRing> {
        if self.epoch == 0 {
            return Err(BadRing::Epoch);
        }
        if !(1..=MAX_NODES).contains(&self.nodes.len()) {
            return Err(BadRing::Nodes(self.nodes.len()));
        }
        if !(1..=MAX_VIRTUAL_NODES).contains(&self.virtual_nodes) {
            return Err(BadRing::VirtualNodes(self.virtual_nodes));
        }
        for (at, node) in self.nodes.iter().enumerate() {
            check_node(node, &self.nodes[..at])?;
        }
        for (slot, name) in &self.pins {
            if *slot >= SLOTS {
                return Err(BadRing::Slot(*slot));
            }
            self.position(name)?;
        }
        for name in &self.down {
            self.position(name)?;
        }
        if self.down.len() == self.nodes.len() { Err(BadRing::AllDown) } else { Ok(self) }
    }
}

fn check_node(node: &RingNode, others: &[RingNode]) -> Result<(), BadRing> {
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if !(1..=64).contains(&node.name.len()) || !node.name.bytes().all(is_name) {
        return Err(BadRing::Name(node.name.clone()));
    }
    let port = node.address.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port.parse::<u16>());
    if !matches!(port, Some(Ok(1..))) {
        return Err(BadRing::Address(node.address.clone()));
    }
    if others.iter().any(|other| other.name == node.name) {
        return Err(BadRing::SameName(node.name.clone()));
    }
    match others.iter().any(|other| other.address == node.address) {
        true => Err(BadRing::SameAddress(node.address.clone())),
        false => Ok(()),
    }
}

/// The epoch of a document's text, whose other parts are skipped and not checked.
pub fn epoch_of(text: &str) -> Result<u64, BadRing> {
    #[derive(Deserialize)]
    struct Header {
        epoch: u64,
    }
    let header = serde_json::from_str::<Header>(text).map_err(|error| BadRing::Text(error.to_string()))?;
    Ok(header.epoch)
}
