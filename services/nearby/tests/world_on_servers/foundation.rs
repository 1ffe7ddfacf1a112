//! Real servers, shared by the tests of this binary, and on them a fleet for each test.

use std::panic::{AssertUnwindSafe, resume_unwind};
use std::path::Path;
use std::sync::LazyLock;
use std::thread;
use std::time::Duration;

use futures_util::FutureExt;
use nearby::Config;
use nearby::backends::{self, Host, RING};
use nearby::config::{Cluster, Overrides};
use node::{Backends, Settings};
use ports::Clock;
use ports::conformance::fresh_node;
use prometheus_client::registry::Registry;
use protocol::ring::{RingDocument, RingNode};
use rand::rngs::StdRng;
use servers::cassandra::CassandraServer;
use servers::etcd::EtcdServer;
use servers::redis::RedisServer;
use tempfile::TempDir;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use web::Readiness;

use crate::keyspaces::Keyspaces;
use crate::world::{Ports, World};

/// How soon news arrive: far later than anybody would like, for a machine that compiles beside.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);
/// How often who connects may look whether the first page is complete, which it need not be on a busy machine.
pub(crate) const CONNECTS: usize = 10;
/// Of the simulation.
pub(crate) const SEEDS: std::ops::Range<u64> = 0..2;
/// Between two steps of the simulation, at most.
pub(crate) const PAUSE_MS: u64 = 30;
/// Pairs that are changed from two sides at once, and how often each.
pub(crate) const RACE: (usize, usize) = (40, 5);
/// Nothing has been made sick.
pub(crate) const QUIET: Duration = Duration::ZERO;
/// After what silence a friend is gone, where that is waited for. Three quarters of it are longer than it may take beyond
/// it: who counts anew from the middle is found.
pub(crate) const SILENCE: Duration = Duration::from_secs(8);

/// Nodes of a fleet.
const NODES: usize = 3;
/// Fleets at a time, however many cores there are: Cassandra keeps the tables of each in memory.
const FLEETS: usize = 4;
/// How long the end of a fleet may take.
const END: Duration = Duration::from_secs(10);

struct Servers {
    cache: RedisServer,
    pubsub: [RedisServer; 3],
    etcd: EtcdServer,
    cassandra: CassandraServer,
}

/// Killed with this process.
static SERVERS: LazyLock<Servers> = LazyLock::new(|| {
    let cassandra = thread::spawn(CassandraServer::start_forgetful);
    Servers {
        cache: RedisServer::start(),
        pubsub: [RedisServer::start(), RedisServer::start(), RedisServer::start()],
        etcd: EtcdServer::start(),
        cassandra: cassandra.join().unwrap(),
    }
});

static KEYSPACES: LazyLock<Keyspaces> = LazyLock::new(|| {
    let anywhere = tempfile::tempdir().unwrap();
    let cluster = configure(anywhere.path(), "unused", 0).cluster().unwrap().clone();
    Keyspaces::on(&SERVERS.cassandra, cluster)
});

/// What one test has of the servers.
pub(crate) struct Foundation {
    keyspace: String,
    tasks: TaskTracker,
    stop: CancellationToken,
    _dir: TempDir,
}

impl Foundation {
    /// Nothing: the servers are everybody's. Who kills and freezes some has them for itself, in a test of its own.
    pub(crate) fn hurt(&self, _: &mut StdRng) {}

    /// Nothing, for nothing was hurt.
    pub(crate) fn heal(&self) {}
}

/// Plays a scenario on a fleet of its own, and ends the fleet, whatever came of it.
pub(crate) async fn play(settings: Settings, scenario: impl AsyncFn(&World)) {
    static TURNS: Semaphore = Semaphore::const_new(FLEETS);
    let _turn = TURNS.acquire().await.unwrap();
    let begun = Instant::now();
    let world = lay(settings).await;
    let laid = begun.elapsed();
    let outcome = AssertUnwindSafe(scenario(&world)).catch_unwind().await;
    let played = begun.elapsed();
    let ended = end(&world).await;
    eprintln!("laid in {laid:.1?}, played in {:.1?}, ended in {:.1?}", played - laid, begun.elapsed() - played);
    KEYSPACES.give_back(world.foundation.keyspace);
    if let Err(panic) = outcome {
        resume_unwind(panic);
    }
    ended.unwrap();
}

/// A fleet as an operator would make it: tables, a ring, configurations, nodes.
async fn lay(settings: Settings) -> World {
    let keyspace = KEYSPACES.take();
    let dir = tempfile::tempdir().unwrap();
    let configs: Vec<Config> = (0..NODES).map(|node| configure(dir.path(), &keyspace, node)).collect();
    make_ring(configs[0].cluster().unwrap()).await;
    let foundation = Foundation { keyspace, tasks: TaskTracker::new(), stop: CancellationToken::new(), _dir: dir };
    let mut ports = Vec::new();
    for config in &configs {
        ports.push(open(config, &foundation).await);
    }
    World::on(foundation, ports, Clock::System, settings).await
}

/// The keyspace's name goes before all keys of the test, too.
fn configure(dir: &Path, keyspace: &str, node: usize) -> Config {
    let (file, spool) = (dir.join(format!("{node}.toml")), dir.join(format!("spool-{node}")));
    let text = format!(
        "[deployment.cluster]\ncache = {:?}\netcd = [{:?}]\ncassandra = [{:?}]\nspool_dir = {spool:?}\n\
         keyspace = {keyspace:?}\nprefix = {keyspace:?}\nreplicas = 1\n",
        SERVERS.cache.url(),
        SERVERS.etcd.endpoint(),
        SERVERS.cassandra.address(),
    );
    std::fs::write(&file, text).unwrap();
    Config::load(Some(&file), &Overrides::default()).unwrap()
}

async fn make_ring(cluster: &Cluster) {
    let nodes = SERVERS.pubsub.iter().zip(["a", "b", "c"]);
    let nodes = nodes.map(|(server, name)| RingNode { name: name.to_owned(), address: server.address() });
    let ring = RingDocument::first(nodes.collect()).unwrap();
    let discovery = backends::discovery(cluster).unwrap();
    assert!(discovery.swap(RING, 0, &ring.text()).await.unwrap());
}

/// The backends of one node, by the executable's own way from a configuration.
async fn open(config: &Config, foundation: &Foundation) -> Ports {
    // Like a process's, it is nobody else's, in no fleet: etcd's leases have no prefix.
    let id = fresh_node();
    let host = Host {
        id,
        clock: Clock::System,
        is_gateway: true,
        tasks: &foundation.tasks,
        stop: &foundation.stop,
        registry: &mut Registry::default(),
        readiness: &Readiness::new(),
    };
    let opened = backends::open(config, host).await.unwrap();
    let live = opened.live.unwrap();
    let backends = Backends {
        broker: live.broker,
        cache: opened.cache,
        history: opened.history,
        friendships: opened.friendships,
        sessions: live.sessions,
        control: opened.control,
        discovery: opened.discovery,
    };
    Ports { id, backends, inbox: live.inbox, users: opened.users }
}

/// Ends the fleet as its processes would end, which must succeed.
async fn end(world: &World) -> Result<(), String> {
    let mut ended = Ok(());
    for node in &world.nodes {
        if let Err(error) = node.stop(END).await {
            ended = Err(format!("{:?} did not stop: {error}", node.id()));
        }
    }
    let Foundation { tasks, stop, .. } = &world.foundation;
    stop.cancel();
    tasks.close();
    if timeout(END, tasks.wait()).await.is_err() {
        ended = Err("tasks of the backends outlive the fleet".to_owned());
    }
    ended
}
