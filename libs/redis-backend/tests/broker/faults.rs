//! What happens to one pub/sub node concerns its own channels only, and is over soon after the node is back.

use std::time::Duration;

use model::UserId;
use ports::Broker;
use ports::conformance::fresh_user;
use protocol::ring::{Ring, slot};
use servers::redis::RedisServer;
use tokio::time::{Instant, timeout};

use crate::conformance::shared_servers;
use crate::world::{Known, World, channels, message, publish};

/// So many users whose channels one node has.
async fn users_of(world: &World, node: usize, count: usize) -> Vec<UserId> {
    let ring = Ring::new(world.ring().await.1).expect("a ring");
    let all = std::iter::repeat_with(fresh_user);
    all.filter(|user| ring.owner(slot(format!("u:{user}").as_bytes())) == node).take(count).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_node_that_comes_back_empty_loses_no_last_value() {
    let servers = [RedisServer::start(), RedisServer::start()];
    let world = World::on(&[&servers[0], &servers[1]]).await;
    let (publisher, _inbox) = world.attach(64).await;
    let (subscriber, mut inbox) = world.attach(64).await;
    let users: Vec<UserId> = (0..200).map(|_| fresh_user()).collect();
    subscriber.subscribe(&channels(&users)).await.expect("subscribed");
    let mut known = Known::default();
    for round in 1..=3 {
        servers[1].kill();
        let fixes: Vec<(UserId, u64)> = users.iter().map(|user| (*user, round)).collect();
        let back = async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            servers[1].restart();
        };
        tokio::join!(publish(&world, &publisher, &fixes), back);
        known.until(&world, &mut inbox, &users, round, Duration::from_secs(3)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_node_holds_up_nobody_else() {
    let servers = [RedisServer::start(), RedisServer::start()];
    let world = World::on(&[&servers[0], &servers[1]]).await;
    let (publisher, _inbox) = world.attach(64).await;
    let (subscriber, mut inbox) = world.attach(64).await;
    let [well, frozen] = [users_of(&world, 0, 50).await, users_of(&world, 1, 50).await];
    servers[1].freeze();
    let begun = Instant::now();
    let all: Vec<UserId> = well.iter().chain(&frozen).copied().collect();
    subscriber.subscribe(&channels(&all)).await.expect("subscribed, or told later");
    assert!(begun.elapsed() < Duration::from_millis(200), "{:?}", begun.elapsed());
    for ts in 1..=5 {
        let begun = Instant::now();
        publisher.publish(&well.iter().map(|user| message(*user, ts)).collect::<Vec<_>>()).await.expect("confirmed");
        assert!(begun.elapsed() < Duration::from_millis(100), "{:?}", begun.elapsed());
    }
    let mut known = Known::default();
    known.until(&world, &mut inbox, &well, 5, Duration::from_secs(1)).await;
    let mixed: Vec<_> = [well[0], frozen[0]].map(|user| message(user, 6)).into();
    let failed = publisher.publish(&mixed).await.expect_err("one of them is frozen");
    assert_eq!(failed.indexes, [1]);
    // From now on it is known to be down, and nobody waits for it.
    let begun = Instant::now();
    publisher.publish(&mixed).await.expect_err("one of them is frozen");
    assert!(begun.elapsed() < Duration::from_millis(100), "{:?}", begun.elapsed());
    servers[1].thaw();
    let fixes: Vec<(UserId, u64)> = all.iter().map(|user| (*user, 9)).collect();
    publish(&world, &publisher, &fixes).await;
    known.until(&world, &mut inbox, &all, 9, Duration::from_secs(5)).await;
}

#[tokio::test]
async fn poison_is_counted_and_dropped() {
    let world = World::on(&shared_servers()).await;
    let (broker, mut inbox) = world.attach(64).await;
    let user = fresh_user();
    broker.subscribe(&channels(&[user])).await.expect("subscribed");
    let name = format!("{}u:{user}", world.prefix);
    let foreign = protocol::record::encode(&crate::world::fix(fresh_user(), 1), ports::Clock::System.monotonic());
    for payload in [&b""[..], b"\r\n*3\r\n", &[0xF1; 66], &foreign, &[0; 100_000]] {
        for server in shared_servers() {
            server.command(&[b"PUBLISH", name.as_bytes(), payload]);
        }
    }
    publish(&world, &broker, &[(user, 4)]).await;
    Known::default().until(&world, &mut inbox, &[user], 4, Duration::from_secs(2)).await;
    assert_eq!((broker.counters().poisoned, broker.counters().reconnects), (5, 0));
}

/// Nothing of a broker outlives it.
#[tokio::test]
async fn a_broker_that_is_closed_is_gone() {
    let world = World::on(&shared_servers()).await;
    let (broker, mut inbox) = world.attach(64).await;
    let user = fresh_user();
    broker.subscribe(&channels(&[user])).await.expect("subscribed");
    let name = broker.client_name();
    broker.close().await;
    drop(broker);
    for server in shared_servers() {
        let clients = server.command(&[b"CLIENT", b"LIST"]);
        assert!(!String::from_utf8_lossy(&clients).contains(&name));
    }
    let end = timeout(Duration::from_secs(1), inbox.recv()).await;
    assert_eq!(end.expect("no end"), None);
}
