//! The broker within one process.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use async_trait::async_trait;
use parking_lot::RwLock;
use rustc_hash::{FxHashMap, FxHashSet};

use super::{Affected, Broker, Channel, Inbox, InboxSender, Publication, Unconfirmed, inbox};
use crate::PortError;
use crate::health::{Health, Switch};

const BACKEND: &str = "embedded broker";

/// Nodes on one bus at a time: the subscribers of a channel are the bits of one word.
pub const MAX_NODES: usize = 64;

/// Messages in one batch of an inbox.
const MAX_BATCH: usize = 1_024;

/// What the nodes of one process publish to each other through. A clone is the same bus.
#[derive(Clone, Default)]
pub struct EmbeddedBus {
    routes: Arc<RwLock<Routes>>,
}

/// One node's connection to the bus; dropping it ends the connection and its inbox.
pub struct EmbeddedBroker {
    routes: Arc<RwLock<Routes>>,
    slot: usize,
    line: Arc<Line>,
    health: Switch,
    published: AtomicU64,
}

/// Who is subscribed to what. Publishers read, so they never wait for each other; one lock serves a whole batch.
#[derive(Default)]
struct Routes {
    /// The slots of the subscribed nodes, as bits; never zero.
    subscribers: FxHashMap<Channel, u64>,
    /// By slot, at most [`MAX_NODES`].
    nodes: Vec<Option<Node>>,
}

struct Node {
    inbox: InboxSender,
    line: Arc<Line>,
}

/// What tests do to one node's connection.
#[derive(Default)]
struct Line {
    cut: AtomicBool,
    lose_next: AtomicUsize,
    misdirect_next: AtomicUsize,
}

impl EmbeddedBus {
    /// Without nodes.
    pub fn new() -> EmbeddedBus {
        EmbeddedBus::default()
    }

    /// Connects a node whose inbox holds `batches` batches.
    ///
    /// # Panics
    ///
    /// With more than [`MAX_NODES`] nodes at a time.
    pub fn attach(&self, batches: usize) -> (Arc<EmbeddedBroker>, Inbox) {
        let (sender, inbox) = inbox(batches);
        let line = Arc::new(Line::default());
        let mut routes = self.routes.write();
        let slot = routes.nodes.iter().position(Option::is_none).unwrap_or(routes.nodes.len());
        assert!(slot < MAX_NODES, "at most {MAX_NODES} nodes on one embedded bus");
        if slot == routes.nodes.len() {
            routes.nodes.push(None);
        }
        routes.nodes[slot] = Some(Node { inbox: sender, line: line.clone() });
        drop(routes);
        let health = Switch::up(BACKEND);
        let broker = EmbeddedBroker { routes: self.routes.clone(), slot, line, health, published: AtomicU64::new(0) };
        (Arc::new(broker), inbox)
    }
}

/// Faults, for tests.
impl EmbeddedBus {
    /// As if every channel had moved to another server: whoever subscribes has a gap, and whoever publishes is told to
    /// publish again.
    pub fn change_routing(&self) {
        let routes = self.routes.write();
        for (slot, node) in routes.nodes.iter().enumerate() {
            routes.gap_in_all_of(slot);
            if let Some(node) = node {
                node.inbox.republish(Affected::everything());
            }
        }
    }
}

/// Faults, for tests.
impl EmbeddedBroker {
    /// Makes the node's calls sick or well.
    pub fn set_health(&self, health: Health) {
        self.health.set(health);
    }

    /// Loses the connection: nothing arrives, and every call fails, until it is restored.
    pub fn lose_connection(&self) {
        // Behind the lock: what was being delivered has arrived, and nothing arrives later.
        let _routes = self.routes.write();
        self.line.cut.store(true, Ordering::Relaxed);
    }

    /// Restores a lost connection, with its subscriptions; they are told as a gap.
    pub fn restore_connection(&self) {
        let routes = self.routes.write();
        self.line.cut.store(false, Ordering::Relaxed);
        routes.gap_in_all_of(self.slot);
    }

    /// The next `messages` messages to this node do not arrive; each is told as a gap of its channel.
    pub fn lose_next(&self, messages: usize) {
        self.line.lose_next.store(messages, Ordering::Relaxed);
    }

    /// The next `messages` messages of this node are confirmed and reach nobody, as when a server took them that others
    /// have left; it is told to publish each of them again.
    pub fn misdirect_next(&self, messages: usize) {
        self.line.misdirect_next.store(messages, Ordering::Relaxed);
    }

    /// Messages that this node published, or tried to.
    pub fn published(&self) -> u64 {
        self.published.load(Ordering::Relaxed)
    }

    /// The channels that this node is subscribed to, in no order.
    pub fn subscriptions(&self) -> Vec<Channel> {
        self.routes.read().of(self.slot).collect()
    }

    async fn ask(&self) -> Result<(), PortError> {
        self.health.ask().await?;
        match self.line.cut.load(Ordering::Relaxed) {
            false => Ok(()),
            true => Err(PortError::Unavailable { backend: BACKEND, reason: "the connection is lost".to_owned() }),
        }
    }
}

#[async_trait]
impl Broker for EmbeddedBroker {
    async fn publish(&self, batch: &[Publication]) -> Result<(), Unconfirmed> {
        self.published.fetch_add(batch.len() as u64, Ordering::Relaxed);
        let unconfirmed = |cause| Unconfirmed { indexes: (0..batch.len()).collect(), cause };
        self.ask().await.map_err(unconfirmed)?;
        let (misdirected, rest) = batch.split_at(take(&self.line.misdirect_next, batch.len()));
        if !misdirected.is_empty() {
            self.routes.read().misdirect(self.slot, misdirected);
        }
        self.routes.read().publish(rest);
        self.health.answer(()).await.map_err(unconfirmed)
    }

    async fn subscribe(&self, channels: &[Channel]) -> Result<(), PortError> {
        self.ask().await?;
        self.routes.write().subscribe(self.slot, channels);
        self.health.answer(()).await
    }

    async fn unsubscribe(&self, channels: &[Channel]) -> Result<(), PortError> {
        self.ask().await?;
        self.routes.write().unsubscribe(self.slot, channels);
        self.health.answer(()).await
    }
}

impl Drop for EmbeddedBroker {
    fn drop(&mut self) {
        let mut routes = self.routes.write();
        let channels: Vec<Channel> = routes.of(self.slot).collect();
        routes.unsubscribe(self.slot, &channels);
        routes.nodes[self.slot] = None;
    }
}

impl Routes {
    /// Sorts the messages by receiving node, then hands each node its own: an inbox is touched once per batch.
    fn publish(&self, batch: &[Publication]) {
        let mut sorted: Vec<Vec<Publication>> = self.nodes.iter().map(|_| Vec::new()).collect();
        let mut receivers = 0;
        for message in batch {
            let mut rest = self.subscribers.get(&message.channel()).copied().unwrap_or(0);
            receivers |= rest;
            while let Some(slot) = take_lowest(&mut rest) {
                let messages = &mut sorted[slot];
                if messages.capacity() == 0 {
                    messages.reserve_exact(batch.len().min(MAX_BATCH));
                }
                messages.push(*message);
                if messages.len() == MAX_BATCH {
                    self.deliver(slot, std::mem::take(messages));
                }
            }
        }
        while let Some(slot) = take_lowest(&mut receivers) {
            self.deliver(slot, std::mem::take(&mut sorted[slot]));
        }
    }

    fn deliver(&self, slot: usize, mut messages: Vec<Publication>) {
        let Some(node) = &self.nodes[slot] else { return };
        if node.line.cut.load(Ordering::Relaxed) {
            return;
        }
        let lost = take(&node.line.lose_next, messages.len());
        if lost > 0 {
            node.inbox.gap(messages.drain(..lost).map(|message| message.channel()));
        }
        if !messages.is_empty() {
            node.inbox.deliver(messages);
        }
    }

    /// Takes messages of one node to nobody.
    fn misdirect(&self, slot: usize, messages: &[Publication]) {
        if let Some(node) = &self.nodes[slot] {
            let channels: FxHashSet<Channel> = messages.iter().map(Publication::channel).collect();
            node.inbox.republish(Affected::by(move |channel| channels.contains(&channel)));
        }
    }

    fn subscribe(&mut self, slot: usize, channels: &[Channel]) {
        for channel in channels {
            *self.subscribers.entry(*channel).or_default() |= 1 << slot;
        }
    }

    fn unsubscribe(&mut self, slot: usize, channels: &[Channel]) {
        for channel in channels {
            if let Some(nodes) = self.subscribers.get_mut(channel) {
                *nodes &= !(1 << slot);
                if *nodes == 0 {
                    self.subscribers.remove(channel);
                }
            }
        }
        if let Some(node) = &self.nodes[slot] {
            node.inbox.forget(channels);
        }
    }

    fn of(&self, slot: usize) -> impl Iterator<Item = Channel> {
        self.subscribers.iter().filter(move |(_, nodes)| *nodes & (1 << slot) != 0).map(|(channel, _)| *channel)
    }

    fn gap_in_all_of(&self, slot: usize) {
        if let Some(node) = &self.nodes[slot] {
            node.inbox.gap(self.of(slot));
        }
    }
}

/// How many of the next `messages` a test wants lost.
fn take(wanted: &AtomicUsize, messages: usize) -> usize {
    if wanted.load(Ordering::Relaxed) == 0 {
        return 0;
    }
    let rest = wanted.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| Some(n.saturating_sub(messages)));
    rest.map_or(0, |before| before.min(messages))
}

/// Removes and returns the lowest bit that is set.
fn take_lowest(bits: &mut u64) -> Option<usize> {
    let lowest = (*bits != 0).then(|| bits.trailing_zeros() as usize);
    *bits &= bits.wrapping_sub(1);
    lowest
}
