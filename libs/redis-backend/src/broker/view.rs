//! The ring in use, and the connections to everybody on it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use ports::broker::InboxSender;
use ports::{Affected, Channel};
use protocol::ring::{Ring, SLOTS};
use rustc_hash::FxHashSet;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Shared;
use super::names::slot_of;
use super::publisher::Publisher;
use super::subscriber::{Subscriber, Surroundings};

/// A ring with the connections of its nodes, in the ring's order.
pub(crate) struct View {
    pub(crate) ring: Ring,
    pub(crate) nodes: Vec<Arc<PubSubNode>>,
}

impl View {
    pub(crate) fn owner(&self, channel: Channel) -> usize {
        self.ring.owner(slot_of(channel))
    }

    fn is_owner(&self, slot: u16, node: &Arc<PubSubNode>) -> bool {
        Arc::ptr_eq(self.node_of(slot), node)
    }

    fn node_of(&self, slot: u16) -> &Arc<PubSubNode> {
        &self.nodes[self.ring.owner(slot)]
    }

    /// The slots that are elsewhere than by an earlier ring; with `fenced` only those that were that node's. Without an
    /// earlier ring: all, or all that are not that node's now.
    fn moved(&self, before: Option<&View>, fenced: Option<&Arc<PubSubNode>>) -> Slots {
        let mut words = vec![0u64; usize::from(SLOTS) / 64].into_boxed_slice();
        for slot in 0..SLOTS {
            let now = self.node_of(slot);
            let stayed = before.is_some_and(|before| before.is_owner(slot, now));
            let counts = match (before, fenced) {
                (Some(before), Some(fenced)) => before.is_owner(slot, fenced),
                (None, Some(fenced)) => !Arc::ptr_eq(fenced, now),
                (_, None) => true,
            };
            if counts && !stayed {
                words[usize::from(slot) / 64] |= 1 << (slot % 64);
            }
        }
        Slots(words)
    }
}

/// Some of the slots, one bit each.
pub(crate) struct Slots(Box<[u64]>);

impl Slots {
    fn holds(&self, slot: u16) -> bool {
        self.0[usize::from(slot) / 64] & (1 << (slot % 64)) != 0
    }

    fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }
}

/// One pub/sub node.
pub(crate) struct PubSubNode {
    pub(crate) address: String,
    pub(crate) publisher: Publisher,
    pub(crate) subscriber: Subscriber,
    /// The connection on which its epoch was found absent; 0 if it was not.
    absent: AtomicU64,
    /// It was not reached when the ring changed.
    pub(crate) unfenced: Mutex<Option<Unfenced>>,
    stop: CancellationToken,
}

/// An earlier owner that may still take messages for current.
pub(crate) struct Unfenced {
    /// How long it is tried.
    pub(crate) until: Instant,
    /// By which ring it was an owner; `None` when that may have been several.
    pub(crate) before: Option<Arc<View>>,
}

impl PubSubNode {
    /// Both ways.
    pub(crate) fn is_connected(&self) -> bool {
        self.publisher.is_up() && self.subscriber.is_connected()
    }

    /// And what is published there arrives.
    pub(crate) fn is_usable(&self) -> bool {
        self.is_connected() && !self.subscriber.probe.is_deaf()
    }

    /// For how long it has been out of use, if it is now.
    pub(crate) fn unhealthy_for(&self) -> Option<Duration> {
        let silence = self.subscriber.probe.silent_for();
        silence.or((!self.publisher.is_up()).then_some(Duration::ZERO))
    }

    pub(crate) fn epoch_is_absent(&self, connection: u64) {
        self.absent.store(connection, Ordering::Release);
    }

    /// The connection on which the epoch was found absent.
    pub(crate) fn absent_on(&self) -> Option<u64> {
        Some(self.absent.load(Ordering::Acquire)).filter(|connection| *connection != 0)
    }

    /// It has been told.
    pub(crate) fn epoch_is_there(&self, connection: u64) {
        // Of a later connection it may have been found absent meanwhile.
        let _ = self.absent.compare_exchange(connection, 0, Ordering::AcqRel, Ordering::Acquire);
    }
}

/// What waits for acknowledgements.
pub(crate) type Waiting = Vec<oneshot::Receiver<()>>;

/// The ring in use. Whoever publishes reads it, and waits for nobody who changes the ring: it is written only by
/// [`Nodes::begin`], as its last step.
pub(crate) type Current = RwLock<Option<Arc<View>>>;

/// The connections, under one lock that is held for no I/O.
#[derive(Default)]
pub(crate) struct Nodes {
    /// The ring in use.
    view: Option<Arc<View>>,
    /// Everybody with connections, by address: the ring's nodes and those that have left it lately.
    pub(crate) all: BTreeMap<String, Arc<PubSubNode>>,
    /// Channels may be wanted of earlier owners as well.
    moving: bool,
}

impl Nodes {
    /// Wants these of their owners.
    pub(crate) fn want(&self, channels: &[Channel]) -> Waiting {
        let Some(view) = &self.view else { return Vec::new() };
        let mut shares: Vec<Vec<Channel>> = vec![Vec::new(); view.nodes.len()];
        let fresh: FxHashSet<Channel> = channels.iter().copied().collect();
        fresh.into_iter().for_each(|channel| shares[view.owner(channel)].push(channel));
        let shares = view.nodes.iter().zip(shares).filter(|(_, share)| !share.is_empty());
        shares.filter_map(|(node, share)| node.subscriber.want(share)).collect()
    }

    /// Wants these of nobody.
    pub(crate) fn drop_all(&self, channels: &[Channel]) -> Waiting {
        let Some(view) = &self.view else { return Vec::new() };
        if self.moving {
            return self.all.values().filter_map(|node| node.subscriber.drop_all(channels.to_vec())).collect();
        }
        let mut shares: Vec<Vec<Channel>> = vec![Vec::new(); view.nodes.len()];
        channels.iter().for_each(|channel| shares[view.owner(*channel)].push(*channel));
        let shares = view.nodes.iter().zip(shares).filter(|(_, share)| !share.is_empty());
        shares.filter_map(|(node, share)| node.subscriber.drop_all(share)).collect()
    }

    /// From now on publications, and new subscriptions, go by this ring. What is wanted of earlier owners is wanted of
    /// the new ones as well.
    pub(crate) fn begin(&mut self, ring: Ring, shared: &Arc<Shared>) -> Waiting {
        // Before connections begin, which name it.
        shared.epoch.store(ring.epoch(), Ordering::Release);
        let nodes = ring.nodes().iter().map(|node| self.node(&node.address, shared)).collect();
        for retired in &ring.document().retired {
            self.node(&retired.address, shared);
        }
        let view = Arc::new(View { ring, nodes });
        let mut moved = vec![Vec::new(); view.nodes.len()];
        for node in self.all.values() {
            for channel in node.subscriber.wanted_in(|slot| !view.is_owner(slot, node)) {
                moved[view.owner(channel)].push(channel);
            }
        }
        let moved = view.nodes.iter().zip(moved).filter(|(_, channels)| !channels.is_empty());
        let waiting = moved.filter_map(|(node, channels)| node.subscriber.want(channels)).collect();
        *shared.current.write() = Some(view.clone());
        self.view = Some(view);
        self.moving = true;
        waiting
    }

    /// Earlier owners are asked for nothing any more.
    pub(crate) fn finish(&mut self) {
        let Some(view) = &self.view else { return };
        for node in self.all.values() {
            let gone = node.subscriber.wanted_in(|slot| !view.is_owner(slot, node));
            if !gone.is_empty() {
                // What arrives until then is not wanted, and is dropped.
                drop(node.subscriber.drop_all(gone));
            }
        }
        self.moving = false;
    }

    /// Ends the connections to who is not on the ring and has nothing to be told any more.
    pub(crate) fn sweep(&mut self) {
        let Some(view) = &self.view else { return };
        self.all.retain(|address, node| {
            let stays = view.nodes.iter().any(|other| other.address == *address) || node.unfenced.lock().is_some();
            if !stays {
                node.stop.cancel();
            }
            stays
        });
    }

    /// Tells a gap in what has moved since an earlier ring, also in what was subscribed since then. With `fenced` only
    /// in what was that node's; without an earlier ring in all that is not.
    pub(crate) fn gap_in_moved(&self, before: Option<&View>, fenced: Option<&Arc<PubSubNode>>, shared: &Shared) {
        let Some(view) = &self.view else { return };
        let moved = view.moved(before, fenced);
        for node in &view.nodes {
            node.subscriber.gap(&shared.inbox, &shared.counters, |slot| moved.holds(slot));
        }
    }

    /// Asks for what this node published on the same channels, whoever watches them.
    pub(crate) fn republish_moved(&self, before: Option<&View>, fenced: Option<&Arc<PubSubNode>>, inbox: &InboxSender) {
        let Some(view) = &self.view else { return };
        let moved = view.moved(before, fenced);
        if !moved.is_empty() {
            inbox.republish(Affected::by(move |channel| moved.holds(slot_of(channel))));
        }
    }

    /// The connections to an address, which begin when it is new.
    fn node(&mut self, address: &str, shared: &Arc<Shared>) -> Arc<PubSubNode> {
        if let Some(node) = self.all.get(address) {
            return node.clone();
        }
        let (publisher, calls) = Publisher::new();
        let (subscriber, orders) = Subscriber::new();
        let stop = shared.stop.child_token();
        let node = Arc::new(PubSubNode {
            address: address.to_owned(),
            publisher,
            subscriber,
            absent: AtomicU64::new(0),
            unfenced: Mutex::new(None),
            stop: stop.clone(),
        });
        let with = Surroundings {
            inbox: shared.inbox.clone(),
            names: shared.names.clone(),
            clock: shared.clock,
            dial: shared.dial.clone(),
            counters: shared.counters.clone(),
            votes: shared.votes.clone(),
        };
        let (one, other, until) = (node.clone(), node.clone(), stop.clone());
        let and = (shared.dial.clone(), shared.identity());
        shared.tasks.spawn(async move { one.publisher.run(&one.address, calls, and, until).await });
        shared.tasks.spawn(async move { other.subscriber.run(&other.address, orders, with, stop).await });
        self.all.insert(address.to_owned(), node.clone());
        node
    }
}
