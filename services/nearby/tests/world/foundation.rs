//! The embedded backends, with their faults, in virtual time.

use std::sync::Arc;
use std::time::Duration;

use model::NodeId;
use node::{Backends, Settings};
use ports::Clock;
use ports::embedded::{
    EmbeddedBroker, EmbeddedBus, EmbeddedCache, EmbeddedControlLog, EmbeddedDiscovery, EmbeddedSessions,
    FjallFriendships, FjallHistory, FjallUsers, Health, Store,
};
use rand::RngExt;
use rand::rngs::StdRng;
use tempfile::TempDir;

use crate::world::{Ports, World};

/// How soon news arrive, in virtual time.
pub(crate) const PATIENCE: Duration = Duration::from_millis(400);
/// How often who connects may look whether the first page is complete: it is.
pub(crate) const CONNECTS: usize = 1;
/// Of the simulation, on each number of nodes.
pub(crate) const SEEDS: std::ops::Range<u64> = 0..10;
/// Between two steps of the simulation, at most.
pub(crate) const PAUSE_MS: u64 = 300;
/// Pairs that are changed from two sides at once, and how often each.
pub(crate) const RACE: (usize, usize) = (50, 20);
/// A broken cache rests for a second; what failed is tried again within two; a lease comes back within a poll.
pub(crate) const QUIET: Duration = Duration::from_secs(10);
/// After what silence a friend is gone, where that is waited for.
pub(crate) const SILENCE: Duration = Duration::from_secs(600);

/// What all nodes share, as what it is: for what only the embedded backends can be made to do.
pub(crate) struct Foundation {
    /// By node.
    pub(crate) brokers: Vec<Arc<EmbeddedBroker>>,
    pub(crate) bus: EmbeddedBus,
    pub(crate) cache: Arc<EmbeddedCache>,
    pub(crate) control: Arc<EmbeddedControlLog>,
    pub(crate) discovery: Arc<EmbeddedDiscovery>,
    pub(crate) sessions: Arc<EmbeddedSessions>,
    pub(crate) history: Arc<FjallHistory>,
    _dir: TempDir,
}

impl Foundation {
    /// Makes some backend sick.
    pub(crate) fn hurt(&self, rng: &mut StdRng) {
        let broker = &self.brokers[rng.random_range(0..self.brokers.len())];
        match rng.random_range(0..6) {
            0 => self.cache.set_health(Health::Down),
            1 => self.cache.set_health(Health::Frozen),
            2 => broker.lose_connection(),
            3 => broker.lose_next(3),
            4 => broker.set_health(Health::Down),
            _ => broker.set_health(Health::Mute),
        }
    }

    /// Makes all backends well that the above makes sick.
    pub(crate) fn heal(&self) {
        self.cache.set_health(Health::Up);
        for broker in &self.brokers {
            broker.set_health(Health::Up);
            broker.restore_connection();
        }
    }
}

/// Plays a scenario on so many nodes each time.
pub(crate) async fn play(sizes: &[usize], settings: Settings, scenario: impl AsyncFn(&World)) {
    for &nodes in sizes {
        eprintln!("{nodes} nodes");
        scenario(&World::with(nodes, settings).await).await;
    }
}

/// For what needs faults of the embedded backends, or hours.
impl World {
    /// So many nodes, with an operator's default settings.
    pub(crate) async fn new(nodes: usize) -> World {
        World::with(nodes, Settings::default()).await
    }

    pub(crate) async fn with(nodes: usize, settings: Settings) -> World {
        let clock = Clock::virtual_from_now();
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let bus = EmbeddedBus::new();
        let discovery = Arc::new(EmbeddedDiscovery::new(clock));
        let cache = Arc::new(EmbeddedCache::new(clock));
        let control = Arc::new(EmbeddedControlLog::new(clock, discovery.clone()));
        let users = Arc::new(FjallUsers::new(store.clone()));
        let sessions = Arc::new(EmbeddedSessions::new(clock));
        let friendships = Arc::new(FjallFriendships::new(store.clone()));
        let history = Arc::new(FjallHistory::new(store));
        let (mut all, mut brokers) = (Vec::new(), Vec::new());
        for node in 0..nodes {
            let (broker, inbox) = bus.attach(64);
            brokers.push(broker.clone());
            let backends = Backends {
                broker,
                cache: cache.clone(),
                history: history.clone(),
                friendships: friendships.clone(),
                sessions: sessions.clone(),
                control: control.clone(),
                discovery: discovery.clone(),
            };
            all.push(Ports { id: NodeId(node as u64 + 1), backends, inbox, users: users.clone() });
        }
        let foundation = Foundation { brokers, bus, cache, control, discovery, sessions, history, _dir: dir };
        World::on(foundation, all, clock, settings).await
    }

    /// Time passes.
    pub(crate) async fn wait(&self, seconds: u64) {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
    }
}
