//! The backends of a deployment. Only here are they chosen.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use cassandra_backend::{
    CassandraFriendships, CassandraHistory, CassandraOptions, CassandraSession, CassandraUsers, Migrated, Migrator,
    Replication, SpoolSettings, SpooledHistory,
};
use etcd_backend::{Etcd, EtcdControlLog, EtcdDiscovery};
use model::NodeId;
use ports::embedded::{
    EmbeddedBus, EmbeddedCache, EmbeddedControlLog, EmbeddedDiscovery, EmbeddedSessions, FjallFriendships,
    FjallHistory, FjallUsers, Store,
};
use ports::{
    Broker, Clock, ControlLog, Discovery, Friendships, Inbox, LocationCache, LocationHistory, PortError, Sessions,
    Users,
};
use prometheus_client::registry::Registry;
use protocol::ring::RingDocument;
use redis_backend::{
    BrokerCounters, BrokerSettings, RedisBroker, RedisCache, RedisSessions, announce_ring, pubsub_status,
};
pub use redis_backend::{PubSubAnswer, PubSubStatus};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use web::{Check, Readiness};

use crate::config::{Cluster, Config, Deployment};
use crate::disk::Stores;
use crate::metrics::{
    self, Reading,
    Reading::{Counter, Gauge},
};

/// The document with the ring of pub/sub nodes.
pub const RING: &str = "ring";

/// What a deployment provides.
pub struct Ports {
    /// Who there is.
    pub users: Arc<dyn Users>,
    /// Who may see whom.
    pub friendships: Arc<dyn Friendships>,
    /// Where people were.
    pub history: Arc<dyn LocationHistory>,
    /// Where people are.
    pub cache: Arc<dyn LocationCache>,
    /// What changes permissions.
    pub control: Arc<dyn ControlLog>,
    /// Who the nodes are.
    pub discovery: Arc<dyn Discovery>,
    /// What only a gateway needs.
    pub live: Option<Live>,
    /// What is on this process's disk.
    pub stores: Stores,
}

/// What carries positions.
pub struct Live {
    /// The waist.
    pub broker: Arc<dyn Broker>,
    /// What it delivers.
    pub inbox: Inbox,
    /// Which connection shares.
    pub sessions: Arc<dyn Sessions>,
}

/// The process that the backends are part of.
pub struct Host<'a> {
    /// Its id as a node.
    pub id: NodeId,
    /// Its clock.
    pub clock: Clock,
    /// Whether it carries positions.
    pub is_gateway: bool,
    /// Where tasks of the backends live,
    pub tasks: &'a TaskTracker,
    /// and what ends them.
    pub stop: &'a CancellationToken,
    /// Where their metrics go.
    pub registry: &'a mut Registry,
    /// Where they say that something is missing.
    pub readiness: &'a Readiness,
}

/// Opens or connects to everything that the deployment names.
pub async fn open(config: &Config, host: Host<'_>) -> anyhow::Result<Ports> {
    match &config.deployment {
        Deployment::Embedded { data_dir } => embedded(data_dir, host.clock),
        Deployment::Cluster(cluster) => {
            let retention = Duration::from_secs(config.history.retention_days * 86_400);
            clustered(cluster, retention, host).await
        }
    }
}

fn embedded(data_dir: &Path, clock: Clock) -> anyhow::Result<Ports> {
    let (store, stores) = (Store::open(data_dir)?, Stores::default());
    stores.add(&store);
    let (broker, inbox) = EmbeddedBus::new().attach(node::limits::INBOX_BATCHES);
    let discovery = Arc::new(EmbeddedDiscovery::new(clock));
    Ok(Ports {
        users: Arc::new(FjallUsers::new(store.clone())),
        friendships: Arc::new(FjallFriendships::new(store.clone())),
        history: Arc::new(FjallHistory::new(store)),
        cache: Arc::new(EmbeddedCache::new(clock)),
        control: Arc::new(EmbeddedControlLog::new(clock, discovery.clone())),
        discovery,
        live: Some(Live { broker, inbox, sessions: Arc::new(EmbeddedSessions::new(clock)) }),
        stores,
    })
}

async fn clustered(cluster: &Cluster, retention: Duration, mut host: Host<'_>) -> anyhow::Result<Ports> {
    let etcd = Etcd::new(&cluster.etcd, &cluster.prefix)?;
    let discovery = Arc::new(EtcdDiscovery::new(etcd.clone()));
    let live = if host.is_gateway { Some(live(cluster, discovery.clone(), &mut host).await?) } else { None };
    let session = CassandraSession::connect(options(cluster), host.clock)
        .await
        .context("deployment.cluster.cassandra (has `nearby migrate` been run?)")?;
    let history = Arc::new(CassandraHistory::new(session.clone(), retention).await?);
    let stores = Stores::default();
    let history: Arc<dyn LocationHistory> =
        if host.is_gateway { spooled(cluster, history, &stores, &mut host).await? } else { history };
    let friendships = Arc::new(CassandraFriendships::new(session.clone()).await?);
    let cache = Arc::new(RedisCache::connect(&cluster.cache, &cluster.prefix, host.clock).await?);
    let poisoned = cache.clone();
    metrics::register(host.registry, move || {
        vec![Counter("cache_poisoned", "Values in the location cache that were no records", poisoned.poisoned())]
    });
    Ok(Ports {
        users: Arc::new(CassandraUsers::new(session).await?),
        friendships,
        history,
        cache,
        control: Arc::new(EtcdControlLog::new(etcd, host.clock)),
        discovery,
        live,
        stores,
    })
}

async fn live(cluster: &Cluster, discovery: Arc<EtcdDiscovery>, host: &mut Host<'_>) -> anyhow::Result<Live> {
    let settings = BrokerSettings {
        node: host.id,
        inbox_batches: node::limits::INBOX_BATCHES,
        prefix: cluster.prefix.clone(),
        document: RING.to_owned(),
        clock: host.clock,
    };
    let (broker, inbox) = RedisBroker::connect(settings, discovery)
        .await
        .context("the ring of pub/sub nodes (is there one? see `nearby ring add`)")?;
    let sessions = Arc::new(RedisSessions::connect(&cluster.cache, &cluster.prefix).await?);
    let poisoned = sessions.clone();
    metrics::register(host.registry, move || {
        vec![Counter("sessions_poisoned", "Values in the session registry that were no entries", poisoned.poisoned())]
    });
    let counted = broker.clone();
    metrics::register(host.registry, move || broker_readings(counted.counters()));
    host.tasks.spawn(watch_broker(broker.clone(), host.readiness.check("pub/sub"), host.stop.clone()));
    Ok(Live { broker, inbox, sessions })
}

/// A gateway takes positions in also while the database is away.
async fn spooled(
    cluster: &Cluster,
    behind: Arc<CassandraHistory>,
    stores: &Stores,
    host: &mut Host<'_>,
) -> anyhow::Result<Arc<SpooledHistory>> {
    let stores = stores.clone();
    let open_segment = move |directory: &Path| open_segment(directory, &stores);
    let spool = SpoolSettings {
        directory: cluster.spool_dir.clone(),
        max_points: cluster.spool_points,
        replay_per_second: cluster.spool_replay_per_second,
    };
    let history = Arc::new(SpooledHistory::open(behind, spool, Arc::new(open_segment)).await?);
    let (replaying, backlog, until) = (history.clone(), history.clone(), host.stop.clone());
    host.tasks.spawn(async move { replaying.run(until).await });
    metrics::register(host.registry, move || {
        vec![Gauge("spool_points", "Points that wait on disk for the database", backlog.backlog() as i64)]
    });
    Ok(history)
}

fn broker_readings(counters: BrokerCounters) -> Vec<Reading> {
    vec![
        Counter("pubsub_published", "Messages given to the pub/sub nodes", counters.published),
        Counter("pubsub_unconfirmed", "Those of them that have to be published again", counters.unconfirmed),
        Counter("pubsub_received", "Messages that arrived from the pub/sub nodes", counters.received),
        Counter("pubsub_poisoned", "Messages and ring documents that were none", counters.poisoned),
        Counter("pubsub_reconnects", "Subscriber connections that were lost", counters.reconnects),
        Counter("pubsub_probe_failures", "Probes that did not come back in time", counters.probe_failures),
        Counter("pubsub_rings", "Rings that were adopted after the first", counters.rings),
    ]
}

/// How often the broker is asked how it is, and after how many answers in a row that are bad it counts as out of
/// reach: shorter outages are recovered from before a load balancer could do anything about them.
const LOOK: Duration = Duration::from_secs(1);
const BAD_LOOKS: u32 = 10;

async fn watch_broker(broker: Arc<RedisBroker>, check: Check, stop: CancellationToken) {
    let mut bad = 0;
    loop {
        let unhealthy = broker.unhealthy();
        bad = if unhealthy.is_empty() { 0 } else { bad + 1 };
        if bad >= BAD_LOOKS {
            check.missing(format!("no messages through {}", unhealthy.join(", ")));
        } else {
            check.ready();
        }
        if tokio::time::timeout(LOOK, stop.cancelled()).await.is_ok() {
            return;
        }
    }
}

/// A segment of the spool is a history on disk of its own.
fn open_segment(directory: &Path, stores: &Stores) -> Result<Arc<dyn LocationHistory>, PortError> {
    let store = Store::open(directory)?;
    stores.add(&store);
    Ok(Arc::new(FjallHistory::new(store)))
}

fn options(cluster: &Cluster) -> CassandraOptions {
    CassandraOptions::new(cluster.cassandra.clone(), &cluster.keyspace)
}

/// Where the ring is written down.
pub fn discovery(cluster: &Cluster) -> Result<Arc<dyn Discovery>, PortError> {
    Ok(Arc::new(EtcdDiscovery::new(Etcd::new(&cluster.etcd, &cluster.prefix)?)))
}

/// What the pub/sub nodes of a ring say of themselves.
pub async fn ask_ring(cluster: &Cluster, ring: &RingDocument) -> Vec<PubSubStatus> {
    pubsub_status(ring, &cluster.prefix).await
}

/// Tells the gateways that there is another ring.
pub async fn announce(cluster: &Cluster, ring: &RingDocument) {
    announce_ring(ring, &cluster.prefix).await;
}

/// Brings the database to the newest schema.
pub async fn migrate(cluster: &Cluster) -> Result<Migrated, PortError> {
    Migrator::new(options(cluster), Replication::Simple(cluster.replicas)).run().await
}
