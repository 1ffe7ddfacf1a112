//! Which pub/sub node a channel lives on. A contract between servers, so the hash is ours and written down here:
//!
//! ```text
//! hash(bytes)    FNV-1a of 64 bits (offset 0xcbf29ce484222325, prime 0x100000001b3), then the finaliser of MurmurHash3:
//!                h ^= h >> 33; h *= 0xff51afd7ed558ccd; h ^= h >> 33; h *= 0xc4ceb9fe1a85ec53; h ^= h >> 33
//! slot           hash(channel's name) >> 50, one of 16,384; the name is "u:" and the user in decimal, or
//!                "node:" and the node in 16 hexadecimal digits
//! virtual node   hash("{name of the node}#{0, 1, ..}"), a point on the circle of all u64
//! owner of slot  its pin, or the node of the first virtual node at or after hash("slot:{slot}"), going round;
//!                of two virtual nodes at one point the one whose node's name is first; nodes that are down have no
//!                virtual nodes and no pins
//! ```
//!
//! A node's place follows from its name and not from its address, so that a server can be replaced by another one
//! without moving a slot.

mod document;
#[cfg(test)]
mod tests;

use std::sync::LazyLock;

pub use document::{BadRing, MAX_NODES, MAX_RETIRED, MAX_VIRTUAL_NODES, RingDocument, RingNode, epoch_of};

/// Slots, whatever the number of nodes.
pub const SLOTS: u16 = 16_384;
/// Virtual nodes of each node, unless the document says otherwise. A node that joins takes at most 1.1 times its share
/// of the slots in 99.9 / 99 / 96 / 90 of 100 cases as the 10th / 20th / 40th / 100th: the more nodes, the fewer slots each
/// has, and the more their own chance matters. With 160 it is 90 / 89 / 86 / 82, and 4,096 are no better than 99.9 / 99.7 /
/// 97 / 90.
pub const VIRTUAL_NODES: u16 = 2_000;
/// The hash of this contract.
pub fn hash(bytes: &[u8]) -> u64 {
    let fnv = bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3));
    // FNV alone leaves the high bits of short, similar names alike.
    let mixed = (fnv ^ (fnv >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let mixed = (mixed ^ (mixed >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    mixed ^ (mixed >> 33)
}

/// The slot of a channel.
pub fn slot(channel: &[u8]) -> u16 {
    (hash(channel) >> 50) as u16
}

/// A checked document with its table of owners.
#[derive(Clone, Debug)]
pub struct Ring {
    document: RingDocument,
    owners: Vec<u16>,
}

impl Ring {
    /// The ring of a document.
    pub fn new(document: RingDocument) -> Result<Ring, BadRing> {
        let document = document.check()?;
        let mut owners = place(&document);
        for (slot, name) in document.pins.iter().filter(|(_, name)| !document.down.contains(*name)) {
            owners[usize::from(*slot)] = document.position(name)? as u16;
        }
        Ok(Ring { document, owners })
    }

    /// The ring of a document's text.
    pub fn parse(text: &str) -> Result<Ring, BadRing> {
        Ring::new(RingDocument::parse(text)?)
    }

    /// The same if its epoch is newer than this one. Who asks every second whether the ring has changed builds it, which
    /// takes milliseconds, only when it has.
    pub fn parse_newer(text: &str, epoch: u64) -> Result<Option<Ring>, BadRing> {
        if epoch_of(text)? <= epoch { Ok(None) } else { Ring::parse(text).map(Some) }
    }

    /// What it was made from.
    pub fn document(&self) -> &RingDocument {
        &self.document
    }

    /// Which ring it is.
    pub fn epoch(&self) -> u64 {
        self.document.epoch
    }

    /// Its nodes, in the document's order.
    pub fn nodes(&self) -> &[RingNode] {
        &self.document.nodes
    }

    /// The owner's place in [`Ring::nodes`]; a slot beyond the last is taken for the last.
    pub fn owner(&self, slot: u16) -> usize {
        usize::from(self.owners[usize::from(slot.min(SLOTS - 1))])
    }
}

/// Where the slots are on the circle, ascending.
static PLACES: LazyLock<Vec<(u64, u16)>> = LazyLock::new(|| {
    let mut places: Vec<(u64, u16)> = (0..SLOTS).map(|slot| (hash(format!("slot:{slot}").as_bytes()), slot)).collect();
    places.sort_unstable();
    places
});

/// The owner of each slot: both sides sorted, then one walk round the circle.
fn place(document: &RingDocument) -> Vec<u16> {
    let mut points: Vec<(u64, &str, u16)> = Vec::new();
    for (index, node) in document.nodes.iter().enumerate().filter(|(_, node)| !document.down.contains(&node.name)) {
        let point = |number| hash(format!("{}#{number}", node.name).as_bytes());
        points.extend((0..document.virtual_nodes).map(|number| (point(number), node.name.as_str(), index as u16)));
    }
    points.sort_unstable();
    let mut owners = vec![0; PLACES.len()];
    let mut at = 0;
    for (place, slot) in PLACES.iter() {
        while points.get(at).is_some_and(|(point, _, _)| point < place) {
            at += 1;
        }
        owners[usize::from(*slot)] = points[at % points.len()].2;
    }
    owners
}
