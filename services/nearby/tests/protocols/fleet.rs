//! Nodes on the embedded backends, each of which sees them through the chaos, and an application's backend.

use std::sync::Arc;
use std::time::Duration;

use api::ApiState;
use model::{NodeId, UserId};
use node::{Backends, Break, Node, Settings};
use ports::broker::inbox;
use ports::embedded::{
    EmbeddedBroker, EmbeddedBus, EmbeddedCache, EmbeddedControlLog, EmbeddedDiscovery, EmbeddedSessions,
};
use ports::{Broker, Clock, ControlLog, Discovery, Friendships, LocationCache, LocationHistory, Sessions, Users};
use prometheus_client::registry::Registry;

use crate::application::{Application, state_beside};
use crate::backends::{Mistake, Seen, relay};
use crate::chaos::{Caller, Chaos};
use crate::judge::Judge;
use crate::records::{MemoryFriendships, MemoryUsers, NoHistory};

/// How far the wall clocks of two nodes are apart at most. A device's time may be 120 s ahead of a node's.
const SKEW_MS: u64 = 60_000;

/// What is wrong in a run, if anything: a test has to find it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Planted {
    pub(crate) in_nodes: Option<Break>,
    pub(crate) in_backends: Option<Mistake>,
}

pub(crate) struct Fleet {
    pub(crate) nodes: Vec<Arc<Node>>,
    pub(crate) brokers: Vec<Arc<EmbeddedBroker>>,
    pub(crate) bus: EmbeddedBus,
    pub(crate) cache: Arc<EmbeddedCache>,
    pub(crate) application: Application,
    /// What the application's API works with.
    pub(crate) records: ApiState,
    pub(crate) friendships: Arc<MemoryFriendships>,
    pub(crate) clock: Clock,
}

/// What all nodes share.
struct Shared {
    cache: Arc<EmbeddedCache>,
    friendships: Arc<MemoryFriendships>,
    sessions: Arc<EmbeddedSessions>,
    control: Arc<EmbeddedControlLog>,
    discovery: Arc<EmbeddedDiscovery>,
    history: Arc<NoHistory>,
    chaos: Arc<Chaos>,
    judge: Arc<Judge>,
    mistake: Option<Mistake>,
}

impl Shared {
    fn seen<P: ?Sized>(&self, backend: Arc<P>, caller: Caller) -> Arc<Seen<P>> {
        let (chaos, judge) = (self.chaos.clone(), self.judge.clone());
        Arc::new(Seen { backend, caller, chaos, mistake: self.mistake, judge })
    }

    fn backends(&self, caller: Caller, broker: Arc<dyn Broker>) -> Backends {
        Backends {
            broker: self.seen::<dyn Broker>(broker, caller),
            cache: self.seen::<dyn LocationCache>(self.cache.clone(), caller),
            history: self.history.clone() as Arc<dyn LocationHistory>,
            friendships: self.seen::<dyn Friendships>(self.friendships.clone(), caller),
            sessions: self.seen::<dyn Sessions>(self.sessions.clone(), caller),
            control: self.seen::<dyn ControlLog>(self.control.clone(), caller),
            discovery: self.seen::<dyn Discovery>(self.discovery.clone(), caller),
        }
    }
}

impl Fleet {
    /// So many nodes, with a control log that keeps so many entries.
    pub(crate) async fn start(
        nodes: usize,
        kept: usize,
        planted: Planted,
        chaos: &Arc<Chaos>,
        judge: &Arc<Judge>,
    ) -> Fleet {
        let clock = Clock::virtual_from_now();
        let discovery = Arc::new(EmbeddedDiscovery::new(clock));
        let shared = Shared {
            cache: Arc::new(EmbeddedCache::new(clock)),
            friendships: Arc::new(MemoryFriendships::watched_by(judge.clone())),
            sessions: Arc::new(EmbeddedSessions::new(clock)),
            control: Arc::new(EmbeddedControlLog::keeping(kept, clock, discovery.clone())),
            discovery,
            history: Arc::new(NoHistory),
            chaos: chaos.clone(),
            judge: judge.clone(),
            mistake: planted.in_backends,
        };
        let users: Arc<dyn Users> = Arc::new(MemoryUsers::default());
        let bus = EmbeddedBus::new();
        let (mut running, mut brokers) = (Vec::new(), Vec::new());
        for node in 0..nodes {
            let (broker, arriving) = bus.attach(64);
            let (to_node, inbox) = inbox(64);
            chaos.spawn(relay(chaos.clone(), arriving, to_node));
            let backends = shared.backends(Some(node), broker.clone());
            brokers.push(broker);
            running.push(start(node, backends, inbox, skewed(clock, chaos), planted.in_nodes, chaos).await);
        }
        let backends = shared.backends(None, brokers[0].clone());
        let records = state_beside(&backends, users.clone(), clock);
        let application = Application::new(vec![api::router(records.clone(), None)], clock);
        for user in 0..crate::play::PEOPLE {
            users.put(UserId(user as u64 + 1), "somebody").await.unwrap();
        }
        Fleet {
            nodes: running,
            brokers,
            bus,
            cache: shared.cache,
            application,
            records,
            friendships: shared.friendships,
            clock,
        }
    }
}

async fn start(
    node: usize,
    backends: Backends,
    inbox: ports::Inbox,
    clock: Clock,
    planted: Option<Break>,
    chaos: &Arc<Chaos>,
) -> Arc<Node> {
    let settings = Settings {
        updates_per_second: 1e6,
        update_burst: 1_000_000,
        planted,
        freezer: Some(chaos.freezer(node)),
        ..Settings::default()
    };
    let id = NodeId(node as u64 + 1);
    Arc::new(Node::start(id, settings, backends, inbox, clock, &mut Registry::default()).await.unwrap())
}

/// A machine's wall clock.
fn skewed(clock: Clock, chaos: &Chaos) -> Clock {
    match clock {
        Clock::Virtual { start, epoch } => {
            let epoch = epoch.before(Duration::from_millis(SKEW_MS / 2)).after(chaos.millis(0..SKEW_MS));
            Clock::Virtual { start, epoch }
        }
        Clock::System => Clock::System,
    }
}
