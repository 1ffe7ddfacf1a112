//! How long a publication is held up by a change of the ring, with many channels subscribed: the time that `publish`
//! keeps its thread before it waits for a server's answer.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use model::{NodeId, UserId};
use ports::embedded::EmbeddedDiscovery;
use ports::{Broker, Channel, Clock, Discovery, Publication};
use protocol::ring::{RingDocument, RingNode};
use redis_backend::{BrokerSettings, RedisBroker};
use servers::redis::RedisServer;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::fix;

const CHANNELS: u64 = 100_000;
const CHANGES: u16 = 6;

pub(super) async fn stall() {
    let servers = [RedisServer::start(), RedisServer::start(), RedisServer::start()];
    let node = |at: usize| RingNode { name: format!("n{at}"), address: servers[at].address() };
    let discovery = Arc::new(EmbeddedDiscovery::new(Clock::System));
    let two = RingDocument::first(vec![node(0), node(1)]).unwrap();
    discovery.swap("ring", 0, &two.text()).await.unwrap();
    let settings = BrokerSettings {
        node: NodeId(1),
        inbox_batches: 1_024,
        prefix: String::new(),
        document: "ring".to_owned(),
        clock: Clock::System,
    };
    let (broker, mut inbox) = RedisBroker::connect(settings, discovery.clone()).await.unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { while inbox.recv().await.is_some() {} });
    let channels: Vec<Channel> = (0..CHANNELS).map(|user| Channel::User(UserId(user))).collect();
    for channels in channels.chunks(512) {
        broker.subscribe(channels).await.unwrap();
    }
    let quiet = longest(&broker, Duration::from_secs(2)).await;
    let mut during = Vec::new();
    for _ in 0..CHANGES {
        let current = discovery.document("ring").await.unwrap();
        let ring = RingDocument::parse(&current.text).unwrap();
        let next = if ring.nodes.len() == 2 { ring.add(node(2)) } else { ring.remove("n2") };
        discovery.swap("ring", current.version, &next.unwrap().text()).await.unwrap();
        during.push(longest(&broker, Duration::from_secs(3)).await);
    }
    during.sort_unstable();
    println!(
        "publish keeps its thread, {CHANNELS} channels: {quiet:?} at most without a change of the ring; with one {:?}, \
         {:?}, {:?} (fastest, median, slowest of {CHANGES} changes)",
        during[0],
        during[during.len() / 2],
        during[during.len() - 1],
    );
}

/// The longest first poll of a publication, of all within this time.
async fn longest(broker: &RedisBroker, within: Duration) -> Duration {
    let (begun, mut longest) = (Instant::now(), Duration::ZERO);
    let mut ts = 0;
    while begun.elapsed() < within {
        ts += 1;
        let message = [Publication::Location(fix(ts % CHANNELS, ts))];
        let mut publication = pin!(broker.publish(&message));
        let started = Instant::now();
        let done = poll_fn(|cx| Poll::Ready(publication.as_mut().poll(cx))).await;
        longest = longest.max(started.elapsed());
        if done.is_pending() {
            let _ = publication.await;
        }
        sleep(Duration::from_micros(200)).await;
    }
    longest
}
