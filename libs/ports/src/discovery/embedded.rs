//! Discovery in memory: the nodes of one process (one when it serves, several when tests run a cluster).

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use model::{MonotonicMs, NodeId};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::{Discovery, Document, LEASE};
use crate::health::{Health, Switch};
use crate::{Clock, PortError};

const BACKEND: &str = "embedded discovery";

/// Leases by the process's own clock, documents in a map.
pub struct EmbeddedDiscovery {
    clock: Clock,
    state: Mutex<State>,
    /// Says that somebody has left.
    left: watch::Sender<()>,
    health: Switch,
    members_asked: AtomicU64,
}

#[derive(Default)]
struct State {
    /// Until when each is a member.
    members: BTreeMap<NodeId, MonotonicMs>,
    documents: HashMap<String, Document>,
}

impl EmbeddedDiscovery {
    /// Without members; leases end by this clock.
    pub fn new(clock: Clock) -> EmbeddedDiscovery {
        EmbeddedDiscovery {
            clock,
            state: Mutex::default(),
            left: watch::Sender::new(()),
            health: Switch::up(BACKEND),
            members_asked: AtomicU64::new(0),
        }
    }

    /// Makes it sick or well, for tests.
    pub fn set_health(&self, health: Health) {
        self.health.set(health);
    }

    /// How often somebody asked for the members.
    pub fn members_asked(&self) -> u64 {
        self.members_asked.load(Ordering::Relaxed)
    }

    /// Members, whatever the health: what the control log of the same process knows.
    pub(crate) fn senders(&self) -> Vec<NodeId> {
        self.state.lock().living(self.clock.monotonic())
    }

    /// Hears of everybody who leaves from now on.
    pub(crate) fn leaves(&self) -> watch::Receiver<()> {
        self.left.subscribe()
    }
}

#[async_trait]
impl Discovery for EmbeddedDiscovery {
    async fn join(&self, node: NodeId) -> Result<(), PortError> {
        let until = self.clock.monotonic().after(LEASE);
        self.health.ask().await?;
        self.state.lock().members.insert(node, until);
        self.health.answer(()).await
    }

    async fn keepalive(&self, node: NodeId) -> Result<(), PortError> {
        let until = self.clock.monotonic().after(LEASE);
        self.health.ask().await?;
        if !self.state.lock().prolong(node, until, self.clock.monotonic()) {
            return Err(PortError::Refused { backend: BACKEND, reason: format!("{node} is no member") });
        }
        self.health.answer(()).await
    }

    async fn leave(&self, node: NodeId) -> Result<(), PortError> {
        self.health.ask().await?;
        self.state.lock().members.remove(&node);
        self.left.send_replace(());
        self.health.answer(()).await
    }

    async fn members(&self) -> Result<Vec<NodeId>, PortError> {
        self.members_asked.fetch_add(1, Ordering::Relaxed);
        self.health.ask().await?;
        let members = self.senders();
        self.health.answer(members).await
    }

    async fn document(&self, name: &str) -> Result<Document, PortError> {
        self.health.ask().await?;
        let document = self.state.lock().documents.get(name).cloned();
        self.health.answer(document.unwrap_or(Document { version: 0, text: String::new() })).await
    }

    async fn swap(&self, name: &str, version: u64, text: &str) -> Result<bool, PortError> {
        self.health.ask().await?;
        let swapped = self.state.lock().swap(name, version, text);
        self.health.answer(swapped).await
    }
}

impl State {
    fn living(&mut self, now: MonotonicMs) -> Vec<NodeId> {
        self.members.retain(|_, until| *until > now);
        self.members.keys().copied().collect()
    }

    fn prolong(&mut self, node: NodeId, until: MonotonicMs, now: MonotonicMs) -> bool {
        match self.members.get_mut(&node) {
            Some(lease) if *lease > now => {
                // Of two calls that overtook each other, the later lease holds.
                *lease = until.max(*lease);
                true
            }
            _ => false,
        }
    }

    fn swap(&mut self, name: &str, version: u64, text: &str) -> bool {
        let current = self.documents.get(name).map_or(0, |document| document.version);
        if current != version {
            return false;
        }
        self.documents.insert(name.to_owned(), Document { version: version + 1, text: text.to_owned() });
        true
    }
}
