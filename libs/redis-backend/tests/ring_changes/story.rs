//! What happens in one seed, and what has to hold at its end.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use model::{NodeId, UserId};
use parking_lot::Mutex;
use ports::embedded::{EmbeddedCache, EmbeddedDiscovery};
use ports::{Clock, Discovery};
use protocol::ring::{Ring, RingDocument, RingNode, slot};
use rand::prelude::*;
use redis_backend::Break;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::task::TaskTracker;

use crate::directory::Directory;
use crate::gateway::{Gateway, World};
use crate::network::{Network, Way};

const SERVERS: usize = 6;
/// Faults and changes.
const STORM: Duration = Duration::from_millis(4_000);
/// How long it may take until all is as it should be.
const QUIET: Duration = Duration::from_secs(8);

/// What a seed came to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) violation: Option<String>,
    /// What everybody held, when, and after how many messages: two runs of a seed are the same.
    pub(crate) trace: String,
    pub(crate) changes: u64,
    pub(crate) published: u64,
}

/// Runs one seed on a clock of its own.
pub(crate) fn run(seed: u64, planted: Option<Break>) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime").block_on(async {
        let story = Story::begin(seed, planted).await;
        story.play().await
    })
}

struct Story {
    rng: StdRng,
    world: Arc<World>,
    discovery: Arc<EmbeddedDiscovery>,
    directories: Vec<Arc<Directory>>,
    gateways: Vec<Arc<Gateway>>,
    /// Where each user's phone is connected.
    homes: BTreeMap<UserId, usize>,
    /// This gateway is without discovery for the whole of it, and servers are taken away only when all others have told
    /// them that they have left: what is confirmed must arrive all the same.
    blind: Option<usize>,
    tasks: TaskTracker,
    begun: Instant,
    changes: Vec<Change>,
}

/// What an operator does to the ring.
#[derive(Clone, Copy, Debug)]
enum Change {
    Add,
    Remove,
    Replace,
    Pin,
}

impl Story {
    async fn begin(seed: u64, planted: Option<Break>) -> Story {
        let mut rng = StdRng::seed_from_u64(seed);
        let gateways = rng.random_choice(&[2, 2, 3]);
        let clock = Clock::virtual_from_now();
        let network = Network::new(gateways, SERVERS, rng.random());
        let discovery = Arc::new(EmbeddedDiscovery::new(clock));
        let nodes = (0..if rng.random_bool(0.8) { 1 } else { 2 }).map(|server| node(server, server)).collect();
        let first = RingDocument { virtual_nodes: 8, ..RingDocument::first(nodes).expect("a ring") };
        assert_eq!(discovery.swap("ring", 0, &first.text()).await, Ok(true));
        let world = Arc::new(World {
            network: network.clone(),
            cache: EmbeddedCache::new(clock),
            clock,
            taken: Mutex::default(),
            violation: Mutex::default(),
        });
        let tasks = TaskTracker::new();
        let mut story = Story {
            world,
            directories: Vec::new(),
            gateways: Vec::new(),
            homes: (1..=rng.random_range(3..=6)).map(|user| (UserId(user), rng.random_range(0..gateways))).collect(),
            blind: rng.random_bool(0.5).then(|| rng.random_range(0..gateways)),
            tasks,
            begun: Instant::now(),
            changes: Vec::new(),
            discovery,
            rng,
        };
        let are_members = story.blind.is_none() && story.rng.random_bool(0.3);
        for number in 0..gateways {
            let directory = Arc::new(Directory::new(story.discovery.clone(), network.clone()));
            if are_members {
                story.tasks.spawn(stay_a_member(directory.clone(), NodeId(number as u64 + 1)));
            }
            let gateway = Gateway::connect(number, &story.world, directory.clone(), planted, &story.tasks).await;
            let watched: Vec<UserId> = story.homes.keys().copied().filter(|_| story.rng.random_bool(0.7)).collect();
            gateway.watch(&watched).await;
            story.directories.push(directory);
            story.gateways.push(gateway);
        }
        story.begun = Instant::now();
        story
    }

    async fn play(mut self) -> Outcome {
        if let Some(blind) = self.blind {
            self.directories[blind].set(self.rng.random_choice(&[Way::Cut, Way::Stalled]));
        }
        // A later change has everything read again, and so hides what an earlier one has lost.
        let changes = self.rng.random_choice(if self.blind.is_some() { &[1, 1, 1, 2, 4] } else { &[1, 1, 2, 3, 4] });
        let moments: Vec<Duration> = (0..changes).map(|_| self.moment()).collect();
        self.publishers(&moments);
        self.watchers();
        for _ in 0..self.rng.random_choice(&[0, 0, 0, 1, 3, 6]) {
            self.fault();
        }
        let mut moments = moments;
        moments.sort_unstable();
        for moment in moments {
            sleep_until(self.begun + moment).await;
            self.change().await;
        }
        // Faults last at most a second and a half.
        sleep_until(self.begun + STORM + Duration::from_millis(1_600)).await;
        self.heal();
        let mut violation = None;
        if self.blind.is_some() {
            violation = self.until(Story::what_was_confirmed_is_missing).await;
            self.directories.iter().for_each(|directory| directory.set(Way::Open));
        }
        if violation.is_none() {
            violation = self.until(Story::something_is_missing).await;
        }
        let violation = self.world.violation.lock().take().or(violation);
        let published = self.gateways.iter().map(|gateway| gateway.broker.counters().published).sum();
        Outcome { trace: self.trace(), changes: self.gateways[0].broker.epoch() - 1, published, violation }
    }

    fn moment(&mut self) -> Duration {
        Duration::from_millis(self.rng.random_range(0..STORM.as_millis() as u64))
    }

    /// Each moves for a while and then falls silent, often just after a change: no later position repairs what was lost.
    fn publishers(&mut self, changes: &[Duration]) {
        for (user, home) in self.homes.clone() {
            let near = self.rng.random_choice(changes) + Duration::from_millis(self.rng.random_range(0..1_300));
            let end = self.begun + if self.rng.random_bool(0.7) { near.min(STORM) } else { self.moment() };
            let (gateway, mut rng) = (self.gateways[home].clone(), StdRng::seed_from_u64(self.rng.random()));
            let pace = self.rng.random_choice(&[20, 100, 700]);
            self.tasks.spawn(async move {
                let mut ts = 0;
                while Instant::now() < end {
                    ts += 1;
                    gateway.moved(user, ts);
                    sleep(Duration::from_millis(rng.random_range(1..=pace))).await;
                }
                gateway.moved(user, ts + 1);
            });
        }
    }

    /// Some come to be watched, or not any more.
    fn watchers(&mut self) {
        for number in 0..self.gateways.len() {
            let mut moments: Vec<Duration> = (0..self.rng.random_range(0..=3)).map(|_| self.moment()).collect();
            moments.sort_unstable();
            let begun = self.begun;
            let users: Vec<UserId> = self.homes.keys().copied().collect();
            let (gateway, mut rng) = (self.gateways[number].clone(), StdRng::seed_from_u64(self.rng.random()));
            self.tasks.spawn(async move {
                for moment in moments {
                    sleep_until(begun + moment).await;
                    let user = rng.random_choice(&users);
                    match gateway.watched().contains(&user) {
                        true => gateway.unwatch(user).await,
                        false => gateway.watch(&[user]).await,
                    }
                }
            });
        }
    }

    /// Something fails for a while, from some moment on.
    fn fault(&mut self) {
        let (from, lasts) = (self.begun + self.moment(), Duration::from_millis(self.rng.random_range(1..1_500)));
        let (gateway, server) = (self.rng.random_range(0..self.gateways.len()), self.rng.random_range(0..SERVERS / 2));
        let (world, directory) = (self.world.clone(), self.directories[gateway].clone());
        let kind = self.rng.random_range(0..7);
        let blind = self.blind == Some(gateway);
        self.tasks.spawn(async move {
            sleep_until(from).await;
            let network = &world.network;
            match kind {
                0 => network.servers[server].freeze(true),
                1 => network.servers[server].kill(),
                2 => network.set(gateway, server, Way::Stalled),
                3 | 4 => network.set(gateway, server, Way::Cut),
                5 if !blind => directory.set(Way::Cut),
                6 if !blind => directory.set(Way::Stalled),
                _ => {}
            }
            sleep(lasts).await;
            match kind {
                0 => network.servers[server].freeze(false),
                1 => network.servers[server].restart(),
                2..=4 => network.set(gateway, server, Way::Open),
                _ if !blind => directory.set(Way::Open),
                _ => {}
            }
        });
    }

    fn heal(&self) {
        self.world.network.heal();
        self.world.network.servers.iter().for_each(|server| server.freeze(false));
        let seeing = self.directories.iter().enumerate().filter(|(number, _)| self.blind != Some(*number));
        seeing.for_each(|(_, directory)| directory.set(Way::Open));
    }

    async fn ring(&self) -> (u64, RingDocument) {
        let document = self.discovery.document("ring").await.expect("discovery");
        (document.version, RingDocument::parse(&document.text).expect("a ring"))
    }

    /// One change by one compare-and-swap, as `nearby ring` makes it.
    async fn change(&mut self) {
        let (version, ring) = self.ring().await;
        let used: Vec<usize> = ring.nodes.iter().map(|node| Network::server_at(&node.address)).collect();
        let unused: Vec<usize> = (0..SERVERS).filter(|server| !used.contains(server)).collect();
        let fresh = self.rng.random_choice(&unused);
        let at = self.rng.random_range(0..ring.nodes.len());
        let name = ring.nodes[at].name.clone();
        let change = self.rng.random_choice(&[
            Change::Add,
            Change::Remove,
            Change::Replace,
            Change::Replace,
            Change::Replace,
            Change::Pin,
        ]);
        let (next, gone) = match change {
            Change::Add => (ring.add(node(fresh + 10 * version as usize, fresh)), None),
            Change::Remove => (ring.remove(&name), Some(used[at])),
            Change::Replace => (ring.replace(&name, &Network::address(fresh)), Some(used[at])),
            Change::Pin => {
                let users: Vec<UserId> = self.homes.keys().copied().collect();
                let user = self.rng.random_choice(&users);
                (ring.pin(slot(format!("u:{user}").as_bytes()), Some(&name)), None)
            }
        };
        // The last node is not removed.
        let Ok(next) = next else { return };
        self.changes.push(change);
        // A server that was taken away comes back, empty.
        self.world.network.servers[fresh].restart();
        if self.discovery.swap("ring", version, &next.text()).await == Ok(true)
            && let Some(gone) = gone
        {
            self.trouble(gone);
            if self.rng.random_bool(0.8) {
                self.take_away(gone, next.epoch);
            }
        }
    }

    /// What makes a change hard: one hears of it late and goes on publishing by the earlier ring, and the others have a
    /// slow way to the earlier owner, or none.
    fn trouble(&mut self, earlier: usize) {
        let any = self.rng.random_range(0..self.gateways.len());
        let late = self.blind.unwrap_or(any);
        for gateway in (0..self.gateways.len()).filter(|gateway| *gateway != late) {
            let way = self.rng.random_choice(&[Way::Open, Way::Slow, Way::Slow, Way::Slow, Way::Cut, Way::Cut]);
            let (world, lasts) = (self.world.clone(), Duration::from_millis(self.rng.random_range(100..2_500)));
            self.tasks.spawn(async move {
                world.network.set(gateway, earlier, way);
                sleep(lasts).await;
                world.network.set(gateway, earlier, Way::Open);
            });
        }
        if self.blind.is_none() && self.rng.random_bool(0.7) {
            let (directory, lasts) = (self.directories[late].clone(), self.rng.random_range(100..1_500));
            self.tasks.spawn(async move {
                directory.set(Way::Cut);
                sleep(Duration::from_millis(lasts)).await;
                directory.set(Way::Open);
            });
        }
    }

    /// Switches a server off that is not on the ring any more. If a gateway is blind, when all others have told it so,
    /// as `nearby ring status` shows an operator; otherwise whenever it pleases.
    fn take_away(&mut self, gone: usize, epoch: u64) {
        let (world, discovery) = (self.world.clone(), self.discovery.clone());
        let seeing: Vec<usize> = (0..self.gateways.len()).filter(|number| self.blind != Some(*number)).collect();
        let most = if self.blind.is_some() { self.rng.random_choice(&[1, 1, 1_000]) } else { 2_000 };
        let (waits, pause) = (self.blind.is_some(), Duration::from_millis(self.rng.random_range(0..most)));
        self.tasks.spawn(async move {
            while waits && !world.network.servers[gone].is_told_by(seeing.iter().copied(), epoch) {
                sleep(Duration::from_millis(5)).await;
            }
            sleep(pause).await;
            let document = discovery.document("ring").await.expect("discovery");
            if is_retired(&document.text, gone) {
                world.network.servers[gone].kill();
            }
        });
    }

    /// Looks now and then until nothing is found any more; what is found at the end.
    async fn until(&self, find: impl Fn(&Story, &RingDocument) -> Option<String>) -> Option<String> {
        let end = Instant::now() + QUIET;
        loop {
            let (_, ring) = self.ring().await;
            if self.world.violation.lock().is_some() {
                return None;
            }
            let found = find(self, &ring)?;
            if Instant::now() > end {
                return Some(found);
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// Those that see hold what was confirmed, also to the one that does not know the ring.
    fn what_was_confirmed_is_missing(&self, _: &RingDocument) -> Option<String> {
        let seeing = self.gateways.iter().enumerate().filter(|(number, _)| self.blind != Some(*number));
        for (number, gateway) in seeing {
            for (user, (_, confirmed)) in self.sent() {
                let held = gateway.holds(user);
                if gateway.watched().contains(&user) && held < confirmed {
                    return Some(format!("gateway {number} holds {held} of {user:?}, and {confirmed} was confirmed"));
                }
            }
        }
        None
    }

    /// Everybody holds everything, by one ring, through exactly the subscriptions that are wanted.
    fn something_is_missing(&self, ring: &RingDocument) -> Option<String> {
        for (number, gateway) in self.gateways.iter().enumerate() {
            if gateway.broker.epoch() != ring.epoch {
                return Some(format!("gateway {number} goes by epoch {} of {}", gateway.broker.epoch(), ring.epoch));
            }
            for (user, (last, _)) in self.sent() {
                let held = gateway.holds(user);
                if gateway.watched().contains(&user) && held < last {
                    return Some(format!("gateway {number} holds {held} of {user:?}, whose last is {last}"));
                }
            }
        }
        self.subscriptions_differ(ring)
    }

    fn subscriptions_differ(&self, ring: &RingDocument) -> Option<String> {
        let view = Ring::new(ring.clone()).expect("a ring");
        let mut wanted: Vec<BTreeSet<(usize, String)>> = vec![BTreeSet::new(); SERVERS];
        for (number, gateway) in self.gateways.iter().enumerate() {
            for user in gateway.watched() {
                let owner = &view.nodes()[view.owner(slot(format!("u:{user}").as_bytes()))];
                wanted[Network::server_at(&owner.address)].insert((number, format!("n:u:{user}")));
            }
        }
        let held: Vec<_> = self.world.network.servers.iter().map(|server| server.subscriptions()).collect();
        (held != wanted).then(|| format!("subscriptions held {held:?}, wanted {wanted:?}"))
    }

    fn sent(&self) -> BTreeMap<UserId, (u64, u64)> {
        self.gateways.iter().flat_map(|gateway| gateway.sent()).collect()
    }

    fn trace(&self) -> String {
        let mut trace = format!("{:?} {:?}", self.begun.elapsed(), self.changes);
        for gateway in &self.gateways {
            let held: Vec<u64> = self.homes.keys().map(|user| gateway.holds(*user)).collect();
            let _ = write!(trace, " {held:?} {:?}", gateway.broker.counters());
        }
        trace
    }
}

fn node(name: usize, server: usize) -> RingNode {
    RingNode { name: format!("pubsub-{name}"), address: Network::address(server) }
}

/// Not, or no longer, on the ring.
fn is_retired(text: &str, server: usize) -> bool {
    let ring = RingDocument::parse(text).expect("a ring");
    ring.nodes.iter().all(|node| node.address != Network::address(server))
}

async fn stay_a_member(directory: Arc<Directory>, node: NodeId) {
    loop {
        // Sometimes cut off: then it is one no longer, and joins again.
        if directory.keepalive(node).await.is_err() {
            let _ = directory.join(node).await;
        }
        sleep(Duration::from_secs(2)).await;
    }
}

trait Choice {
    fn random_choice<T: Copy>(&mut self, of: &[T]) -> T;
}

impl Choice for StdRng {
    fn random_choice<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.random_range(0..of.len())]
    }
}
