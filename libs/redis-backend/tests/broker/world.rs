//! What all tests of the broker use.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use model::{Fix, Generation, Motion, NodeId, Order, Place, PolicyVersion, Position, TimestampMs, UserId};
use ports::broker::Unconfirmed;
use ports::conformance::{fresh_name, fresh_node};
use ports::embedded::EmbeddedDiscovery;
use ports::{Arrival, Broker, Channel, Clock, Discovery, Inbox, LocationCache, Publication};
use protocol::ring::{RingDocument, RingNode};
use redis_backend::{BrokerSettings, RedisBroker};
use servers::redis::RedisServer;
use tokio::time::{Instant, timeout};
use tokio_util::task::TaskTracker;

/// Brokers that share a discovery, a cache and a prefix.
pub(crate) struct World {
    pub(crate) discovery: Arc<EmbeddedDiscovery>,
    pub(crate) cache: Arc<dyn LocationCache>,
    pub(crate) prefix: String,
    /// Ends with the test's runtime.
    pub(crate) tasks: TaskTracker,
}

pub(crate) fn ring_node(number: usize, server: &RedisServer) -> RingNode {
    RingNode { name: format!("pubsub-{number}"), address: server.address() }
}

impl World {
    pub(crate) async fn on(servers: &[&RedisServer]) -> World {
        let nodes = servers.iter().enumerate().map(|(number, server)| ring_node(number, server)).collect();
        let world = World {
            discovery: Arc::new(EmbeddedDiscovery::new(Clock::System)),
            cache: Arc::new(ports::embedded::EmbeddedCache::new(Clock::System)),
            prefix: fresh_name("test:"),
            tasks: TaskTracker::new(),
        };
        world.set(0, &RingDocument::first(nodes).expect("a ring")).await;
        world
    }

    pub(crate) async fn set(&self, version: u64, ring: &RingDocument) {
        assert_eq!(self.discovery.swap("ring", version, &ring.text()).await, Ok(true));
    }

    pub(crate) async fn ring(&self) -> (u64, RingDocument) {
        let document = self.discovery.document("ring").await.expect("discovery");
        (document.version, RingDocument::parse(&document.text).expect("a ring"))
    }

    pub(crate) async fn attach(&self, inbox_batches: usize) -> (Arc<RedisBroker>, Inbox) {
        self.attach_as(fresh_node(), inbox_batches).await
    }

    pub(crate) async fn attach_as(&self, node: NodeId, inbox_batches: usize) -> (Arc<RedisBroker>, Inbox) {
        let settings = BrokerSettings {
            node,
            inbox_batches,
            prefix: self.prefix.clone(),
            document: "ring".to_owned(),
            clock: Clock::System,
        };
        RedisBroker::connect(settings, self.discovery.clone()).await.expect("a broker")
    }
}

pub(crate) fn fix(user: UserId, ts: u64) -> Fix {
    Fix {
        user,
        place: Place::new(Position::new(40.0, 116.0).expect("a position")),
        order: Order { generation: Generation(1), ts: TimestampMs(ts), ..Order::default() },
        expires: Clock::System.monotonic().after(Duration::from_secs(60)),
        policy: PolicyVersion(3),
        motion: Motion::UNKNOWN,
    }
}

pub(crate) fn message(user: UserId, ts: u64) -> Publication {
    Publication::Location(fix(user, ts))
}

pub(crate) fn channels(users: &[UserId]) -> Vec<Channel> {
    users.iter().map(|user| Channel::User(*user)).collect()
}

/// Publishes as the pump does: cache first, and what is unconfirmed again, until all of it is confirmed.
pub(crate) async fn publish(world: &World, broker: &RedisBroker, fixes: &[(UserId, u64)]) {
    let mut rest: Vec<Fix> = fixes.iter().map(|(user, ts)| fix(*user, *ts)).collect();
    world.cache.put_many(&rest).await.expect("the cache");
    for _ in 0..200 {
        let batch: Vec<Publication> = rest.iter().map(|fix| Publication::Location(*fix)).collect();
        match broker.publish(&batch).await {
            Ok(()) => return,
            Err(Unconfirmed { indexes, .. }) => rest = indexes.into_iter().map(|index| rest[index]).collect(),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("not confirmed for long");
}

/// What a node knows of each user: what arrived, and what it read from the cache after a gap.
#[derive(Default)]
pub(crate) struct Known(pub(crate) HashMap<UserId, u64>);

impl Known {
    pub(crate) fn learn(&mut self, fix: &Fix) {
        let known = self.0.entry(fix.user).or_default();
        *known = (*known).max(fix.order.ts.0);
    }

    pub(crate) async fn take(&mut self, world: &World, arrival: Arrival) {
        match arrival {
            Arrival::Batch(batch) => batch.iter().for_each(|message| self.learn(message.fix())),
            // Who has nothing of their own to publish.
            Arrival::Republish(_) => {}
            Arrival::Gap(channels) => {
                let users: Vec<UserId> = channels.iter().map(|channel| user_of(*channel)).collect();
                world.cache.get_many(&users).await.expect("the cache").iter().flatten().for_each(|fix| self.learn(fix));
            }
        }
    }

    /// Listens until it knows this value of everybody.
    pub(crate) async fn until(
        &mut self,
        world: &World,
        inbox: &mut Inbox,
        users: &[UserId],
        ts: u64,
        patience: Duration,
    ) {
        let until = Instant::now() + patience;
        while users.iter().any(|user| self.0.get(user).copied().unwrap_or(0) < ts) {
            let left = until.saturating_duration_since(Instant::now());
            match timeout(left, inbox.recv()).await {
                Ok(Some(arrival)) => self.take(world, arrival).await,
                _ => {
                    let missing = users.iter().filter(|user| self.0.get(user).copied().unwrap_or(0) < ts).count();
                    panic!("{missing} of {} last values lost", users.len());
                }
            }
        }
    }
}

/// Until a ring is in use and all that its change owes has been told.
pub(crate) async fn until_adopted(broker: &RedisBroker, epoch: u64) {
    until_epoch(broker, epoch).await;
    let adopted = async {
        while broker.counters().rings + 1 < epoch {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(5), adopted).await.expect("adopted");
}

pub(crate) async fn until_epoch(broker: &RedisBroker, epoch: u64) {
    for _ in 0..500 {
        if broker.epoch() >= epoch {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("epoch {} and not {epoch}", broker.epoch());
}

fn user_of(channel: Channel) -> UserId {
    match channel {
        Channel::User(user) => user,
        other => panic!("{other:?}"),
    }
}
