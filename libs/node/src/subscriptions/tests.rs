use std::time::Duration;

use async_trait::async_trait;
use model::NodeId;
use ports::broker::Unconfirmed;
use ports::embedded::{
    EmbeddedBroker, EmbeddedBus, EmbeddedCache, EmbeddedControlLog, EmbeddedDiscovery, EmbeddedSessions,
    FjallFriendships, FjallHistory, Store,
};
use ports::{Broker, Clock, PortError, Publication};
use prometheus_client::registry::Registry;
use tempfile::TempDir;
use tokio::time::sleep;

use super::*;
use crate::{Backends, Node, Settings};

/// As many as a node of a large fleet has.
const CHANNELS: u64 = 200_000;

/// The embedded broker, far enough away that each unsubscription takes a while.
struct Far(Arc<EmbeddedBroker>);

const FAR: Duration = Duration::from_millis(50);

#[async_trait]
impl Broker for Far {
    async fn publish(&self, batch: &[Publication]) -> Result<(), Unconfirmed> {
        self.0.publish(batch).await
    }

    async fn subscribe(&self, channels: &[Channel]) -> Result<(), PortError> {
        self.0.subscribe(channels).await
    }

    async fn unsubscribe(&self, channels: &[Channel]) -> Result<(), PortError> {
        sleep(FAR).await;
        self.0.unsubscribe(channels).await
    }
}

async fn node() -> (Node, Arc<EmbeddedBroker>, TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::virtual_from_now();
    let store = Store::open(dir.path()).unwrap();
    let discovery = Arc::new(EmbeddedDiscovery::new(clock));
    let (broker, inbox) = EmbeddedBus::new().attach(limits::INBOX_BATCHES);
    let backends = Backends {
        broker: Arc::new(Far(broker.clone())),
        cache: Arc::new(EmbeddedCache::new(clock)),
        history: Arc::new(FjallHistory::new(store.clone())),
        friendships: Arc::new(FjallFriendships::new(store)),
        sessions: Arc::new(EmbeddedSessions::new(clock)),
        control: Arc::new(EmbeddedControlLog::new(clock, discovery.clone())),
        discovery,
    };
    let settings = Settings { shards: 2, ..Settings::default() };
    let node = Node::start(NodeId(1), settings, backends, inbox, clock, &mut Registry::default()).await.unwrap();
    (node, broker, dir)
}

/// Users whose channels the broker holds.
fn held(broker: &EmbeddedBroker) -> Vec<UserId> {
    let user_of = |channel| match channel {
        Channel::User(user) => Some(user),
        _ => None,
    };
    broker.subscriptions().into_iter().filter_map(user_of).collect()
}

/// What a connection's friends do.
async fn watch(shared: &Shared, users: impl Iterator<Item = u64>) {
    let users: Vec<UserId> = users.map(UserId).collect();
    users.iter().for_each(|&user| shared.interest.begin(0, user));
    shared.subscriptions.ensure(users).await;
}

#[tokio::test(start_paused = true)]
async fn all_that_is_given_up_at_once_is_gone_soon_after_the_grace_period_and_delays_nobody() {
    let (node, broker, _dir) = node().await;
    let shared = &node.shared;
    for first in (0..CHANNELS).step_by(5_000) {
        watch(shared, first..first + 5_000).await;
    }
    assert_eq!(node.subscriptions(), (CHANNELS as usize, 0));
    let now = shared.clock.monotonic();
    (0..CHANNELS).for_each(|user| shared.interest.end(0, UserId(user), now));
    sleep(limits::LINGER - Duration::from_secs(1)).await;
    assert_eq!(held(&broker).len(), CHANNELS as usize, "a reconnect finds them");

    let mut slowest = Duration::ZERO;
    let mut newcomers = 0;
    while held(&broker).len() > newcomers as usize {
        let began = Instant::now();
        watch(shared, CHANNELS + newcomers..CHANNELS + newcomers + 1).await;
        newcomers += 1;
        slowest = slowest.max(began.elapsed());
        sleep(Duration::from_millis(100)).await;
        assert!(newcomers < 60, "{} left after 5 s", held(&broker).len());
    }
    eprintln!(
        "{CHANNELS} channels: {} ms after the grace period, slowest connect {slowest:?}",
        newcomers * 100 - 1_000
    );
    assert!(slowest <= Duration::from_millis(5), "{slowest:?}");
    assert_eq!(node.subscriptions(), (newcomers as usize, 0));
    node.stop(Duration::from_secs(5)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_does_not_unsubscribe_is_asked_again_and_delays_nobody() {
    let (node, broker, _dir) = node().await;
    let shared = &node.shared;
    watch(shared, 0..20_000).await;
    sleep(Duration::from_secs(1)).await;
    let now = shared.clock.monotonic();
    (0..20_000).for_each(|user| shared.interest.end(0, UserId(user), now));
    broker.lose_connection();
    sleep(2 * limits::LINGER).await;
    assert_eq!(held(&broker).len(), 20_000);
    // One of those is wanted again, by somebody who connects meanwhile.
    watch(shared, 7..8).await;
    broker.restore_connection();
    sleep(Duration::from_secs(5)).await;
    let held = held(&broker);
    assert!(held == [UserId(7)], "{} are held", held.len());
    assert_eq!(node.subscriptions(), (1, 0));
    node.stop(Duration::from_secs(5)).await.unwrap();
}
