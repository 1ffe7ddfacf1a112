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

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Slots, whatever the number of nodes.
pub const SLOTS: u16 = 16_384;
/// Virtual nodes of each node, unless the document says otherwise. A node that joins takes at most 1.1 times its share
/// of the slots in 99.9 / 99 / 96 / 90 of 100 cases as the 10th / 20th / 40th / 100th: the more nodes, the fewer slots each
/// has, and the more their own chance matters. With 160 it is 90 / 89 / 86 / 82, and 4,096 are no better than 99.9 / 99.7 /
/// 97 / 90.
pub const VIRTUAL_NODES: u16 = 2_000;
/// Nodes of one ring.
pub const MAX_NODES: usize = 1_024;
/// Virtual nodes of one node.
pub const MAX_VIRTUAL_NODES: u16 = 4_096;
/// Removed nodes that a document remembers.
pub const MAX_RETIRED: usize = 16;

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

    fn position(&self, name: &str) -> Result<usize, BadRing> {
        self.nodes.iter().position(|node| node.name == name).ok_or_else(|| BadRing::Unknown(name.to_owned()))
    }

    fn retire(&mut self, node: RingNode) {
        self.retired.retain(|retired| retired.address != node.address);
        self.retired.push(node);
        let surplus = self.retired.len().saturating_sub(MAX_RETIRED);
        self.retired.drain(..surplus);
    }

    fn check(self) -> Result<RingDocument, BadRing> {
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn node(number: usize) -> RingNode {
        RingNode { name: format!("pubsub-{number}"), address: format!("10.0.0.{number}:6379") }
    }

    fn document(nodes: usize) -> RingDocument {
        RingDocument::first((1..=nodes).map(node).collect()).unwrap()
    }

    fn owners(document: &RingDocument) -> Vec<String> {
        let ring = Ring::new(document.clone()).unwrap();
        (0..SLOTS).map(|slot| ring.nodes()[ring.owner(slot)].name.clone()).collect()
    }

    fn moved(before: &RingDocument, after: &RingDocument) -> usize {
        owners(before).iter().zip(owners(after)).filter(|(before, after)| **before != *after).count()
    }

    /// The wire contract: servers of other versions compute the same.
    #[test]
    fn the_vectors_of_the_contract() {
        let hashes = ["", "u:1", "u:18446744073709551615", "pubsub-1#0", "slot:0"].map(|text| hash(text.as_bytes()));
        assert_eq!(hashes.map(|hash| format!("{hash:016x}")), VECTORS);
        assert_eq!(["u:0", "u:1", "u:2", "u:1000000"].map(|name| slot(name.as_bytes())), SLOT_VECTORS);
        for (virtual_nodes, owners) in OWNER_VECTORS {
            let ring = Ring::new(RingDocument { virtual_nodes, ..document(3) }).unwrap();
            assert_eq!([0, 1, 2, 3, 4, 5, 16_383].map(|slot| ring.owner(slot)), owners);
        }
    }

    const VECTORS: [&str; 5] =
        ["efd01f60ba992926", "7684ebca9c120548", "b078699ef34146de", "04d4df237483a9dc", "b7c8c359c9aeced5"];
    const SLOT_VECTORS: [u16; 4] = [8589, 7585, 10695, 5617];
    const OWNER_VECTORS: [(u16, [usize; 7]); 2] = [(160, [1, 0, 2, 1, 2, 1, 0]), (2_000, [1, 0, 0, 1, 0, 1, 2])];

    /// By the words of the contract, slowly.
    #[test]
    fn the_owner_is_the_first_virtual_node_at_or_after_the_slot() {
        let ring = Ring::new(RingDocument { virtual_nodes: 20, ..document(5) }).unwrap();
        let points = |node: &RingNode| {
            let name = node.name.clone();
            (0..20).map(move |number| (hash(format!("{name}#{number}").as_bytes()), name.clone())).collect::<Vec<_>>()
        };
        let points: BTreeSet<(u64, String)> = ring.nodes().iter().flat_map(points).collect();
        for slot in 0..SLOTS {
            let place = hash(format!("slot:{slot}").as_bytes());
            let (_, owner) = points.iter().find(|(point, _)| *point >= place).or(points.first()).unwrap();
            assert_eq!(ring.nodes()[ring.owner(slot)].name, *owner);
        }
    }

    /// How far it is from each slot, in the order of [`PLACES`], to the first virtual node of this name, going round: the
    /// ring in other words, in which nodes can be put together cheaply.
    fn distances(name: &str) -> Vec<u64> {
        let numbers = 0..VIRTUAL_NODES;
        let mut points: Vec<u64> = numbers.map(|number| hash(format!("{name}#{number}").as_bytes())).collect();
        points.sort_unstable();
        let next = |place: u64| points[points.partition_point(|point| *point < place) % points.len()];
        PLACES.iter().map(|(place, _)| next(*place).wrapping_sub(*place)).collect()
    }

    /// How many slots each of so many nodes has, as a share of the mean, in many rings of different nodes. It is also
    /// what the last of them took when it joined.
    fn shares(nodes: usize, reach: &[Vec<u64>]) -> Vec<f64> {
        let mut shares = Vec::new();
        for ring in 0..1_200 / nodes {
            let members: Vec<&Vec<u64>> = (0..nodes).map(|at| &reach[(ring * 37 + at) % reach.len()]).collect();
            let mut loads = vec![0; nodes];
            for place in 0..usize::from(SLOTS) {
                let (nearest, _) = members.iter().enumerate().min_by_key(|(_, reach)| reach[place]).unwrap();
                loads[nearest] += 1;
            }
            shares.extend(loads.iter().map(|load| f64::from(*load) * nodes as f64 / f64::from(SLOTS)));
        }
        shares.sort_unstable_by(f64::total_cmp);
        shares
    }

    /// 1.1 times its share is what a node takes at most in 99 of 100 cases in rings of up to 20, and in fewer where it
    /// has few slots: with 40 nodes 410 of them, which chance alone spreads by a twentieth.
    #[test]
    fn a_node_that_joins_takes_its_share_and_little_more() {
        let reach: Vec<Vec<u64>> = (1..=119).map(|number| distances(&node(number).name)).collect();
        for (nodes, within, worst) in
            [(2, 1.0, 1.1), (4, 0.998, 1.13), (10, 0.995, 1.16), (20, 0.98, 1.2), (40, 0.95, 1.3)]
        {
            let shares = shares(nodes, &reach);
            let held = shares.iter().filter(|share| **share <= 1.1).count() as f64 / shares.len() as f64;
            let most = shares.last().unwrap();
            println!("{nodes} nodes: at most 1.1 in {:.2} % of {}, the worst {most:.3}", held * 100.0, shares.len());
            assert!(held >= within && *most <= worst, "{nodes} nodes: {held} of the cases, at worst {most}");
        }
    }

    #[test]
    fn a_pin_moves_one_slot_and_its_end_moves_it_back() {
        let ring = document(4);
        let pinned = ring.pin(7, Some("pubsub-2")).unwrap();
        assert_eq!(owners(&pinned)[7], "pubsub-2");
        assert!(moved(&ring, &pinned) <= 1);
        assert_eq!(owners(&pinned.pin(7, None).unwrap()), owners(&ring));
        assert_eq!(pinned.remove("pubsub-2").unwrap().pins.len(), 0);
    }

    /// Only the slots concerned move, whatever is done in whatever order.
    #[test]
    fn removing_a_node_moves_what_it_had() {
        let ring = document(6).pin(7, Some("pubsub-4")).unwrap().pin(8, Some("pubsub-2")).unwrap();
        let less = ring.remove("pubsub-4").unwrap();
        assert_eq!(less.pins, BTreeMap::from([(8, "pubsub-2".to_owned())]), "its pins go with it");
        for (slot, (before, after)) in owners(&ring).iter().zip(owners(&less)).enumerate() {
            assert_eq!(*before == after, before != "pubsub-4", "slot {slot}");
        }
    }

    #[test]
    fn a_pin_moves_its_slot_and_no_other() {
        let ring = document(6);
        for (slot, name) in [(0, "pubsub-1"), (77, "pubsub-6"), (SLOTS - 1, "pubsub-3")] {
            let before = owners(&ring);
            let mut expected = before.clone();
            expected[usize::from(slot)] = name.to_owned();
            let pinned = ring.pin(slot, Some(name)).unwrap();
            assert_eq!(owners(&pinned), expected);
            let elsewhere = pinned.pin(slot, Some("pubsub-2")).unwrap();
            assert_eq!(moved(&pinned, &elsewhere), usize::from(name != "pubsub-2"));
            let replaced = pinned.replace(name, "10.0.9.9:6379").unwrap();
            assert_eq!(owners(&replaced), expected, "it stays with the name");
        }
    }

    #[test]
    fn a_ring_is_built_only_of_a_newer_document() {
        let ring = document(3).pin(1, None).unwrap();
        assert_eq!(epoch_of(&ring.text()), Ok(2));
        assert!(Ring::parse_newer(&ring.text(), 2).unwrap().is_none());
        assert_eq!(Ring::parse_newer(&ring.text(), 1).unwrap().map(|ring| ring.epoch()), Some(2));
        // What is wrong beside the epoch is found when it is read.
        let broken = ring.text().replace("pubsub-1", "pubsub-2");
        assert!(Ring::parse_newer(&broken, 2).unwrap().is_none());
        assert!(Ring::parse_newer(&broken, 1).is_err());
        for text in ["", "{}", "[]", "7", "{\"epoch\":-1}"] {
            assert!(matches!(Ring::parse_newer(text, 0), Err(BadRing::Text(_))), "{text}");
        }
    }

    #[test]
    fn another_server_in_a_nodes_place_moves_no_slot() {
        let ring = document(5);
        let replaced = ring.replace("pubsub-3", "10.0.9.9:6379").unwrap();
        assert_eq!(moved(&ring, &replaced), 0);
        assert_eq!((replaced.epoch, &replaced.retired), (2, &vec![node(3)]));
        assert_eq!(replaced.remove("pubsub-3").unwrap().retired.len(), 2);
    }

    #[test]
    fn a_node_out_of_service_gives_its_slots_to_the_others_and_gets_them_back() {
        let ring = document(4).pin(7, Some("pubsub-2")).unwrap();
        let without = ring.set_down("pubsub-2", true).unwrap();
        for (before, after) in owners(&ring).iter().zip(owners(&without)) {
            assert!(after != "pubsub-2" && (*before == after || before == "pubsub-2"));
        }
        assert_eq!((without.epoch, without.nodes.len()), (ring.epoch + 1, 4));
        assert_eq!(owners(&without.set_down("pubsub-2", false).unwrap()), owners(&ring));
        assert!(without.replace("pubsub-2", "10.0.9.9:6379").unwrap().down.is_empty(), "another server is well");
        assert!(without.remove("pubsub-2").unwrap().down.is_empty());
        assert_eq!(document(1).set_down("pubsub-1", true), Err(BadRing::AllDown));
        assert_eq!(ring.set_down("nobody", true), Err(BadRing::Unknown("nobody".to_owned())));
    }

    #[test]
    fn what_is_no_ring_is_refused_by_name() {
        let ring = document(2);
        let named = |name: &str, address: &str| {
            ring.add(RingNode { name: name.to_owned(), address: address.to_owned() }).unwrap_err()
        };
        assert_eq!(named("pubsub-1", "h:1"), BadRing::SameName("pubsub-1".to_owned()));
        assert_eq!(named("other", "10.0.0.1:6379"), BadRing::SameAddress("10.0.0.1:6379".to_owned()));
        assert_eq!(named("an other", "h:1"), BadRing::Name("an other".to_owned()));
        for address in ["", "host", "host:", ":1", "host:0", "host:65536"] {
            assert_eq!(named("other", address), BadRing::Address(address.to_owned()));
        }
        assert_eq!(ring.remove("nobody"), Err(BadRing::Unknown("nobody".to_owned())));
        assert_eq!(ring.pin(1, Some("nobody")), Err(BadRing::Unknown("nobody".to_owned())));
        assert_eq!(ring.pin(SLOTS, Some("pubsub-1")), Err(BadRing::Slot(SLOTS)));
        assert_eq!(document(1).remove("pubsub-1"), Err(BadRing::Nodes(0)));
        assert_eq!(RingDocument { epoch: 0, ..ring.clone() }.check(), Err(BadRing::Epoch));
        assert!(matches!(RingDocument::parse("{}"), Err(BadRing::Text(_))));
        assert!(matches!(RingDocument::parse(&ring.text().replace("epoch", "era")), Err(BadRing::Text(_))));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        /// Only what must move does: to the new node, or away from the one that is gone.
        #[test]
        fn a_change_moves_its_own_share(nodes in 2usize..40, salt in 0usize..1_000) {
            let ring = RingDocument { virtual_nodes: 100, ..document(nodes) };
            let more = ring.add(node(10_000 + salt)).unwrap_or_else(|_| unreachable!());
            let (now, name) = (owners(&more), format!("pubsub-{}", 10_000 + salt));
            for (before, after) in owners(&ring).iter().zip(&now) {
                prop_assert!(before == after || *after == name);
            }
            prop_assert_eq!(owners(&more.remove(&name).unwrap()), owners(&ring));
            let name = format!("pubsub-{}", 1 + salt % nodes);
            let less = ring.remove(&name).unwrap();
            for (before, after) in owners(&ring).iter().zip(&owners(&less)) {
                prop_assert!(before == after || *before == name);
            }
        }

        #[test]
        fn a_document_survives_its_text(nodes in 1usize..20, slot in 0..SLOTS) {
            let ring = document(nodes).pin(slot, Some("pubsub-1")).unwrap();
            prop_assert_eq!(RingDocument::parse(&ring.text()).unwrap(), ring);
        }

        #[test]
        fn the_order_of_the_nodes_does_not_matter(nodes in 1usize..20, turn in 0usize..20) {
            let ring = document(nodes);
            let mut turned = ring.clone();
            turned.nodes.rotate_left(turn % nodes);
            prop_assert_eq!(owners(&ring), owners(&turned));
        }

        #[test]
        fn any_text_is_safe(text in ".{0,200}") {
            let _ = Ring::parse(&text);
        }
    }
}
