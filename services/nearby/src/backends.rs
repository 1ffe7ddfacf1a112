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
use node::Backends;
use ports::embedded::{
    EmbeddedBus, EmbeddedCache, EmbeddedControlLog, EmbeddedDiscovery, EmbeddedSessions, FjallFriendships,
    FjallHistory, FjallUsers, Store,
};
use ports::{Clock, Discovery, Inbox, LocationHistory, PortError, Users};
use redis_backend::{BrokerSettings, RedisBroker, RedisCache, RedisSessions};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::{Cluster, Config, Deployment};

/// The document with the ring of pub/sub nodes.
pub const RING: &str = "ring";

/// What a deployment provides.
pub struct Ports {
    /// For the engine.
    pub node: Backends,
    /// What the broker delivers.
    pub inbox: Inbox,
    /// Who there is.
    pub users: Arc<dyn Users>,
}

/// Opens or connects to everything that the deployment names.
pub async fn open(
    config: &Config,
    id: NodeId,
    clock: Clock,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> anyhow::Result<Ports> {
    match &config.deployment {
        Deployment::Embedded { data_dir } => embedded(data_dir, clock),
        Deployment::Cluster(cluster) => {
            let retention = Duration::from_secs(config.history.retention_days * 86_400);
            clustered(cluster, retention, id, clock, tasks, stop).await
        }
    }
}

fn embedded(data_dir: &Path, clock: Clock) -> anyhow::Result<Ports> {
    let store = Store::open(data_dir)?;
    let (broker, inbox) = EmbeddedBus::new().attach(node::limits::INBOX_BATCHES);
    let discovery = Arc::new(EmbeddedDiscovery::new(clock));
    let node = Backends {
        broker,
        cache: Arc::new(EmbeddedCache::new(clock)),
        history: Arc::new(FjallHistory::new(store.clone())),
        friendships: Arc::new(FjallFriendships::new(store.clone())),
        sessions: Arc::new(EmbeddedSessions::new(clock)),
        control: Arc::new(EmbeddedControlLog::new(clock, discovery.clone())),
        discovery,
    };
    Ok(Ports { node, inbox, users: Arc::new(FjallUsers::new(store)) })
}

async fn clustered(
    cluster: &Cluster,
    retention: Duration,
    id: NodeId,
    clock: Clock,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> anyhow::Result<Ports> {
    let etcd = Etcd::new(&cluster.etcd, &cluster.prefix)?;
    let discovery = Arc::new(EtcdDiscovery::new(etcd.clone()));
    let settings = BrokerSettings {
        node: id,
        inbox_batches: node::limits::INBOX_BATCHES,
        prefix: cluster.prefix.clone(),
        document: RING.to_owned(),
        clock,
    };
    let (broker, inbox) = RedisBroker::connect(settings, discovery.clone())
        .await
        .context("the ring of pub/sub nodes (is there one? see `nearby ring add`)")?;
    let session = CassandraSession::connect(options(cluster), clock)
        .await
        .context("deployment.cluster.cassandra (has `nearby migrate` been run?)")?;
    let behind = Arc::new(CassandraHistory::new(session.clone(), retention).await?);
    let spool = SpoolSettings {
        directory: cluster.spool_dir.clone(),
        max_points: cluster.spool_points,
        replay_per_second: cluster.spool_replay_per_second,
    };
    let history = Arc::new(SpooledHistory::open(behind, spool, Arc::new(open_segment)).await?);
    let replaying = history.clone();
    let until = stop.clone();
    tasks.spawn(async move { replaying.run(until).await });
    let friendships = Arc::new(CassandraFriendships::new(session.clone()).await?);
    tasks.spawn(sweep(friendships.clone(), stop.clone()));
    let node = Backends {
        broker,
        cache: Arc::new(RedisCache::connect(&cluster.cache, &cluster.prefix, clock).await?),
        history,
        friendships,
        sessions: Arc::new(RedisSessions::connect(&cluster.cache, &cluster.prefix).await?),
        control: Arc::new(EtcdControlLog::new(etcd, clock)),
        discovery,
    };
    Ok(Ports { node, inbox, users: Arc::new(CassandraUsers::new(session).await?) })
}

/// How often changes of friendships that a crash left half done are looked for.
const SWEEP: Duration = Duration::from_secs(300);

async fn sweep(friendships: Arc<CassandraFriendships>, stop: CancellationToken) {
    while tokio::time::timeout(SWEEP, stop.cancelled()).await.is_err() {
        if let Err(error) = friendships.sweep(CassandraFriendships::SETTLED).await {
            tracing::warn!(%error, "half-done changes of friendships could not be looked for; the next sweep will");
        }
    }
}

/// A segment of the spool is a history on disk of its own.
fn open_segment(directory: &Path) -> Result<Arc<dyn LocationHistory>, PortError> {
    Ok(Arc::new(FjallHistory::new(Store::open(directory)?)))
}

fn options(cluster: &Cluster) -> CassandraOptions {
    CassandraOptions::new(cluster.cassandra.clone(), &cluster.keyspace)
}

/// Where the ring is written down.
pub fn discovery(cluster: &Cluster) -> Result<Arc<dyn Discovery>, PortError> {
    Ok(Arc::new(EtcdDiscovery::new(Etcd::new(&cluster.etcd, &cluster.prefix)?)))
}

/// Brings the database to the newest schema.
pub async fn migrate(cluster: &Cluster) -> Result<Migrated, PortError> {
    Migrator::new(options(cluster), Replication::Simple(cluster.replicas)).run().await
}
