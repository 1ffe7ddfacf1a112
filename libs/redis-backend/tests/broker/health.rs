//! What a broker says of itself and of the pub/sub nodes, and how soon it knows.

use std::sync::Arc;
use std::time::Duration;

use model::{NodeId, UserId};
use ports::conformance::fresh_user;
use ports::{Broker, Inbox};
use redis_backend::{RedisBroker, pubsub_status};
use servers::proxy::{Proxy, Way};
use servers::redis::RedisServer;
use tokio::time::{Instant, sleep, timeout};

use crate::world::{Known, World, channels, publish, until_adopted};

/// A world whose only node is behind a proxy.
async fn behind_a_proxy(server: &RedisServer) -> (World, Proxy) {
    let proxy = Proxy::to(&server.address());
    let world = World::on(&[server]).await;
    let (version, ring) = world.ring().await;
    world.set(version, &ring.replace("pubsub-0", &proxy.address()).expect("a ring")).await;
    (world, proxy)
}

/// Its own account of how long something took.
async fn until(what: &str, patience: Duration, done: impl Fn() -> bool) -> Duration {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < patience, "{what}: not within {patience:?}");
        sleep(Duration::from_millis(10)).await;
    }
    begun.elapsed()
}

/// Whatever the moment between two probes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_looks_well_and_delivers_nothing_is_found_out_within_three_seconds() {
    let server = RedisServer::start();
    let (world, proxy) = behind_a_proxy(&server).await;
    let mut brokers: Vec<(Arc<RedisBroker>, Inbox)> = Vec::new();
    for _ in 0..5 {
        brokers.push(world.attach(64).await);
        sleep(Duration::from_millis(200)).await;
    }
    let (subscriber, inbox) = &mut brokers[0];
    let users: Vec<UserId> = (0..20).map(|_| fresh_user()).collect();
    subscriber.subscribe(&channels(&users)).await.expect("subscribed");
    proxy.set(Way::NoMessages);
    // The subscriber publishes as well, and only its own probes can tell.
    publish(&world, subscriber, &users.iter().map(|user| (*user, 1)).collect::<Vec<_>>()).await;
    let begun = Instant::now();
    Known::default().until(&world, inbox, &users, 1, Duration::from_secs(3)).await;
    assert!(begun.elapsed() > Duration::from_millis(500), "the messages were to be lost");
    for (broker, _) in &brokers {
        until("found out", Duration::from_secs(3), || broker.counters().probe_failures >= 1).await;
        println!("found out after {:?}", begun.elapsed());
        assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
        assert!(!broker.unhealthy().is_empty());
    }
    proxy.set(Way::Open);
    for (broker, _) in &brokers {
        until("well again", Duration::from_secs(5), || broker.unhealthy().is_empty()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_out_of_reach_is_named_for_as_long_as_it_is() {
    let server = RedisServer::start();
    let (world, proxy) = behind_a_proxy(&server).await;
    let (broker, _inbox) = world.attach(64).await;
    sleep(Duration::from_millis(3_500)).await;
    assert!(broker.unhealthy().is_empty(), "{:?}", broker.unhealthy());
    proxy.set(Way::Reset);
    until("cut off", Duration::from_secs(1), || !broker.unhealthy().is_empty()).await;
    for _ in 0..30 {
        let unhealthy = broker.unhealthy();
        assert!(unhealthy.len() == 1 && unhealthy[0].starts_with("pubsub-0 at 127.0.0.1:"), "{unhealthy:?}");
        sleep(Duration::from_millis(100)).await;
    }
    proxy.set(Way::Open);
    until("back", Duration::from_secs(3), || broker.unhealthy().is_empty()).await;
    server.freeze();
    until("frozen", Duration::from_secs(2), || !broker.unhealthy().is_empty()).await;
    server.thaw();
    until("thawed", Duration::from_secs(3), || broker.unhealthy().is_empty()).await;
}

#[tokio::test]
async fn everything_is_counted() {
    let server = RedisServer::start();
    let world = World::on(&[&server]).await;
    let (broker, mut inbox) = world.attach(64).await;
    let users: Vec<UserId> = (0..30).map(|_| fresh_user()).collect();
    broker.subscribe(&channels(&users[..10])).await.expect("subscribed");
    publish(&world, &broker, &users.iter().map(|user| (*user, 1)).collect::<Vec<_>>()).await;
    Known::default().until(&world, &mut inbox, &users[..10], 1, Duration::from_secs(3)).await;
    let counters = broker.counters();
    assert_eq!((counters.published, counters.unconfirmed, counters.received, counters.gaps), (30, 0, 10, 0));
    server.kill();
    let failed = broker.publish(&[crate::world::message(users[0], 2)]).await.expect_err("nobody to take it");
    assert_eq!(failed.indexes, [0]);
    server.restart();
    timeout(Duration::from_secs(3), inbox.recv()).await.expect("a gap").expect("an arrival");
    let counters = broker.counters();
    assert_eq!((counters.published, counters.unconfirmed, counters.gaps), (31, 1, 1));
    assert_eq!((counters.reconnects, counters.rings, counters.probe_failures), (1, 0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_status_says_who_is_there_and_what_ring_each_goes_by() {
    let servers = [RedisServer::start(), RedisServer::start(), RedisServer::start()];
    let world = World::on(&[&servers[0], &servers[1]]).await;
    let mut stranger = World::on(&[&servers[0]]).await;
    stranger.prefix = format!("other {}", stranger.prefix);
    let (first, second) = (NodeId(0xa), NodeId(0xb));
    let (one, _inbox) = world.attach_as(first, 64).await;
    let (other, _other_inbox) = world.attach_as(second, 64).await;
    let (_third, _third_inbox) = stranger.attach(64).await;
    let users: Vec<UserId> = (0..100).map(|_| fresh_user()).collect();
    one.subscribe(&channels(&users)).await.expect("subscribed");
    other.subscribe(&channels(&users)).await.expect("subscribed");
    let (version, ring) = world.ring().await;
    let status = pubsub_status(&ring, &world.prefix).await;
    assert_eq!(status.iter().map(|node| node.name.as_str()).collect::<Vec<_>>(), ["pubsub-0", "pubsub-1"]);
    let mut channels = 0;
    for node in &status {
        let answer = node.answer.clone().expect("reachable");
        assert_eq!((answer.epoch, answer.subscribers), (Some(1), 2));
        assert_eq!(answer.gateways, [(first, 1), (second, 1)]);
        channels += answer.channels;
    }
    // Each user's, two of votes, and one for the probes of each broker at each node.
    assert_eq!(channels, 100 + 2 + 2 * 2 + 2);
    let theirs = pubsub_status(&stranger.ring().await.1, &stranger.prefix).await;
    assert_eq!(theirs[0].answer.as_ref().map(|answer| (answer.subscribers, answer.gateways.len())), Ok((1, 1)));
    // What each has learned.
    let next = ring.replace("pubsub-1", &servers[2].address()).expect("a ring");
    world.set(version, &next).await;
    until_adopted(&one, 2).await;
    until_adopted(&other, 2).await;
    // The new one is told the epoch when somebody has found that it has none.
    let learned = |node: &redis_backend::PubSubStatus| {
        let answer = node.answer.as_ref().expect("reachable");
        answer.epoch == Some(2) && answer.gateways == [(first, 2), (second, 2)]
    };
    let begun = Instant::now();
    while !pubsub_status(&next, &world.prefix).await.iter().all(learned) {
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", pubsub_status(&next, &world.prefix).await);
        sleep(Duration::from_millis(50)).await;
    }
    // And who does not answer.
    servers[0].freeze();
    servers[2].kill();
    let begun = Instant::now();
    let status = pubsub_status(&next, &world.prefix).await;
    assert!(begun.elapsed() < Duration::from_millis(1_500), "{:?}", begun.elapsed());
    for (node, reason) in status.iter().zip(["no answer within 1s", "refused"]) {
        let why = node.answer.as_ref().expect_err("unreachable").to_string();
        assert!(why.contains(reason), "{why}");
    }
    servers[0].thaw();
}
