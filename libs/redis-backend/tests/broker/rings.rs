//! The ring changes while positions are published: when all is quiet, everybody holds everybody's last value.

use std::time::Duration;

use model::UserId;
use ports::conformance::fresh_user;
use ports::{Arrival, Broker, Channel};
use rand::prelude::*;
use servers::proxy::{Proxy, Way};
use servers::redis::RedisServer;
use tokio::time::{Instant, timeout};

use crate::conformance::shared_servers;
use crate::world::{Known, World, channels, publish, ring_node, until_adopted, until_epoch};

const PATIENCE: Duration = Duration::from_secs(5);

/// Discovery is asked each second; who is told asks at once. Of five changes none waits for that second.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_announced_ring_is_learned_without_waiting_for_the_next_question() {
    let servers = shared_servers();
    let world = World::on(&servers).await;
    let mut brokers = Vec::new();
    for _ in 0..3 {
        brokers.push(world.attach(64).await);
    }
    let mut slowest = Duration::ZERO;
    for slot in 0..5 {
        let (version, ring) = world.ring().await;
        let next = ring.pin(slot, Some("pubsub-0")).expect("a ring");
        world.set(version, &next).await;
        let begun = Instant::now();
        redis_backend::announce_ring(&next, &world.prefix).await;
        for (broker, _) in &brokers {
            until_epoch(broker, next.epoch).await;
        }
        slowest = slowest.max(begun.elapsed());
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
    assert!(slowest < Duration::from_millis(700), "{slowest:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_last_value_is_lost_while_nodes_come_and_go() {
    let servers = [RedisServer::start(), RedisServer::start(), RedisServer::start()];
    let world = World::on(&[&servers[0], &servers[1]]).await;
    let (one, mut one_inbox) = world.attach(64).await;
    let (other, mut other_inbox) = world.attach(64).await;
    let users: Vec<UserId> = (0..300).map(|_| fresh_user()).collect();
    for broker in [&one, &other] {
        broker.subscribe(&channels(&users)).await.expect("subscribed");
    }
    let (mut one_knows, mut other_knows) = (Known::default(), Known::default());
    let seed = rand::random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    for round in 1..=12u64 {
        let (version, ring) = world.ring().await;
        let here = ring.nodes.iter().any(|node| node.name == "pubsub-2");
        let next = if here { ring.remove("pubsub-2") } else { ring.add(ring_node(2, &servers[2])) }.expect("a ring");
        let values = [round * 10, round * 10 + 1];
        let publishing = async {
            for ts in values {
                let half: Vec<(UserId, u64)> = users[..150].iter().map(|user| (*user, ts)).collect();
                let rest: Vec<(UserId, u64)> = users[150..].iter().map(|user| (*user, ts)).collect();
                tokio::join!(publish(&world, &one, &half), publish(&world, &other, &rest));
                tokio::time::sleep(Duration::from_millis(random.random_range(0..30))).await;
            }
        };
        tokio::join!(publishing, world.set(version, &next));
        tokio::join!(until_epoch(&one, next.epoch), until_epoch(&other, next.epoch));
        tokio::join!(
            one_knows.until(&world, &mut one_inbox, &users, values[1], PATIENCE),
            other_knows.until(&world, &mut other_inbox, &users, values[1], PATIENCE),
        );
    }
    // And live again, without a gap.
    let last: Vec<(UserId, u64)> = users.iter().map(|user| (*user, 1_000)).collect();
    publish(&world, &one, &last).await;
    other_knows.until(&world, &mut other_inbox, &users, 1_000, PATIENCE).await;
}

/// One learns of the change from discovery, the other only from the pub/sub nodes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_cut_off_from_discovery_learns_the_ring_from_the_nodes() {
    let servers = [RedisServer::start(), RedisServer::start()];
    let world = World::on(&[&servers[0]]).await;
    let elsewhere = World { prefix: world.prefix.clone(), ..World::on(&[&servers[0]]).await };
    let (one, _inbox) = world.attach(64).await;
    let (cut_off, mut inbox) = elsewhere.attach(64).await;
    elsewhere.discovery.set_health(ports::embedded::Health::Frozen);
    let users: Vec<UserId> = (0..100).map(|_| fresh_user()).collect();
    cut_off.subscribe(&channels(&users)).await.expect("subscribed");
    let (version, ring) = world.ring().await;
    world.set(version, &ring.add(ring_node(1, &servers[1])).expect("a ring")).await;
    until_epoch(&one, 2).await;
    until_epoch(&cut_off, 2).await;
    publish(&world, &one, &users.iter().map(|user| (*user, 7)).collect::<Vec<_>>()).await;
    Known::default().until(&world, &mut inbox, &users, 7, PATIENCE).await;
}

/// The node that is removed cannot be reached: its channels are read again from the cache.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_node_is_replaced_and_nothing_is_lost() {
    let servers = [RedisServer::start(), RedisServer::start(), RedisServer::start()];
    let world = World::on(&[&servers[0], &servers[1]]).await;
    let (one, _inbox) = world.attach(64).await;
    let (other, mut inbox) = world.attach(64).await;
    let users: Vec<UserId> = (0..200).map(|_| fresh_user()).collect();
    other.subscribe(&channels(&users)).await.expect("subscribed");
    servers[1].freeze();
    let (version, ring) = world.ring().await;
    world.set(version, &ring.replace("pubsub-1", &servers[2].address()).expect("a ring")).await;
    publish(&world, &one, &users.iter().map(|user| (*user, 5)).collect::<Vec<_>>()).await;
    Known::default().until(&world, &mut inbox, &users, 5, PATIENCE).await;
}

/// The earlier owner lives on and would take what is published by the earlier ring.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_publishes_by_an_earlier_ring_is_told() {
    let servers = [RedisServer::start(), RedisServer::start()];
    let world = World::on(&[&servers[0]]).await;
    let elsewhere =
        World { prefix: world.prefix.clone(), cache: world.cache.clone(), ..World::on(&[&servers[0]]).await };
    let (subscriber, mut inbox) = world.attach(64).await;
    let (cut_off, _inbox) = elsewhere.attach(64).await;
    elsewhere.discovery.set_health(ports::embedded::Health::Frozen);
    let users: Vec<UserId> = (0..100).map(|_| fresh_user()).collect();
    subscriber.subscribe(&channels(&users)).await.expect("subscribed");
    let mut known = Known::default();
    for round in 1..=6 {
        let (version, ring) = world.ring().await;
        let other = &servers[round as usize % 2];
        let next = ring.replace("pubsub-0", &other.address()).expect("a ring");
        world.set(version, &next).await;
        until_epoch(&subscriber, next.epoch).await;
        // Before, while and after the epoch is raised.
        for step in 0..8 {
            let ts = round * 10 + step;
            publish(&elsewhere, &cut_off, &users.iter().map(|user| (*user, ts)).collect::<Vec<_>>()).await;
            known.until(&world, &mut inbox, &users, ts, PATIENCE).await;
        }
    }
}

/// The earlier owner lives on, and who watches has it out of its reach: no reading of the cache finds what is published
/// there from now on, until the publisher learns the ring and publishes again. It watches nobody itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_owner_out_of_reach_took_is_published_again_by_who_watches_nobody() {
    let servers = [RedisServer::start(), RedisServer::start()];
    let proxy = Proxy::to(&servers[0].address());
    let near = World::on(&[&servers[0]]).await;
    let far = World { prefix: near.prefix.clone(), cache: near.cache.clone(), ..World::on(&[&servers[0]]).await };
    let (version, ring) = far.ring().await;
    let mut through = ring.clone();
    through.nodes[0].address = proxy.address();
    far.set(version, &through).await;
    let (publisher, mut told) = near.attach(64).await;
    let (subscriber, mut inbox) = far.attach(64).await;
    let users: Vec<UserId> = (0..50).map(|_| fresh_user()).collect();
    subscriber.subscribe(&channels(&users)).await.expect("subscribed");
    proxy.set(Way::Reset);
    let (version, here) = far.ring().await;
    far.set(version, &here.replace("pubsub-0", &servers[1].address()).expect("a ring")).await;
    until_adopted(&subscriber, 2).await;
    let mut known = Known::default();
    // It has read the cache by now, in which there is nothing yet.
    while let Ok(Some(arrival)) = timeout(Duration::from_millis(300), inbox.recv()).await {
        known.take(&far, arrival).await;
    }
    let last: Vec<(UserId, u64)> = users.iter().map(|user| (*user, 7)).collect();
    publish(&near, &publisher, &last).await;
    assert_eq!(publisher.epoch(), 1, "confirmed by the earlier owner");
    let (version, here) = near.ring().await;
    near.set(version, &here.replace("pubsub-0", &servers[1].address()).expect("a ring")).await;
    let arrival = timeout(PATIENCE, told.recv()).await.expect("told").expect("an arrival");
    let Arrival::Republish(affected) = arrival else { panic!("it watches nobody: {arrival:?}") };
    assert!(users.iter().all(|user| affected.holds(Channel::User(*user))));
    publish(&near, &publisher, &last).await;
    known.until(&far, &mut inbox, &users, 7, PATIENCE).await;
}
