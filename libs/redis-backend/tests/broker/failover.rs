//! A pub/sub node that is gone is taken out of service by those who need it, if most of them do.

use std::sync::Arc;
use std::time::Duration;

use model::{NodeId, UserId};
use ports::conformance::{fresh_node, fresh_user};
use ports::{Broker, Discovery, Inbox};
use redis_backend::RedisBroker;
use servers::redis::RedisServer;
use tokio::time::{Instant, sleep};

use crate::world::{Known, World, channels, publish};

struct Fleet {
    servers: [RedisServer; 3],
    world: World,
    nodes: Vec<(Arc<RedisBroker>, Inbox, Known)>,
    users: Vec<UserId>,
    round: u64,
}

impl Fleet {
    /// Three brokers that are members, each subscribed to everybody, and so many members that are silent.
    async fn with_silent_members(silent: usize) -> Fleet {
        let servers = [RedisServer::start(), RedisServer::start(), RedisServer::start()];
        let world = World::on(&[&servers[0], &servers[1], &servers[2]]).await;
        let users: Vec<UserId> = (0..200).map(|_| fresh_user()).collect();
        let mut nodes = Vec::new();
        for _ in 0..3 {
            let node = fresh_node();
            let (broker, inbox) = world.attach_as(node, 64).await;
            broker.subscribe(&channels(&users)).await.expect("subscribed");
            nodes.push((broker, inbox, Known::default()));
            keep_alive(&world, node);
        }
        (0..silent).for_each(|_| keep_alive(&world, fresh_node()));
        sleep(Duration::from_millis(100)).await;
        Fleet { servers, world, nodes, users, round: 0 }
    }

    /// A new position of everybody, and how long it takes until each node knows all of them.
    async fn round(&mut self, patience: Duration) -> Duration {
        let begun = Instant::now();
        self.round += 1;
        let fixes: Vec<(UserId, u64)> = self.users.iter().map(|user| (*user, self.round)).collect();
        publish(&self.world, &self.nodes[0].0, &fixes).await;
        for (_, inbox, known) in &mut self.nodes {
            known.until(&self.world, inbox, &self.users, self.round, patience).await;
        }
        begun.elapsed()
    }

    async fn down(&self) -> Vec<String> {
        self.world.ring().await.1.down.into_iter().collect()
    }

    async fn until_down_is(&self, down: &[&str], patience: Duration) -> Duration {
        let begun = Instant::now();
        while self.down().await != down {
            assert!(begun.elapsed() < patience, "{:?} and not {down:?} are down", self.down().await);
            sleep(Duration::from_millis(20)).await;
        }
        begun.elapsed()
    }
}

fn keep_alive(world: &World, node: NodeId) {
    let discovery = world.discovery.clone();
    world.tasks.spawn(async move {
        while discovery.join(node).await.is_ok() {
            sleep(Duration::from_secs(3)).await;
        }
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_node_is_taken_out_within_two_seconds_and_put_back_when_it_serves_again() {
    let mut fleet = Fleet::with_silent_members(0).await;
    fleet.round(Duration::from_secs(2)).await;
    fleet.servers[1].kill();
    let restored = fleet.round(Duration::from_secs(2)).await;
    assert!(restored < Duration::from_secs(2), "{restored:?}");
    println!("restored {restored:?} after the kill");
    assert_eq!(fleet.down().await, ["pubsub-1"]);
    let again = fleet.round(Duration::from_secs(1)).await;
    assert!(again < Duration::from_secs(1), "nobody waits for it any more: {again:?}");
    fleet.servers[1].restart();
    let back = fleet.until_down_is(&[], Duration::from_secs(20)).await;
    assert!(back > Duration::from_secs(8), "not before it has served for a while: {back:?}");
    fleet.round(Duration::from_secs(2)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_node_is_taken_out_within_five_seconds() {
    let mut fleet = Fleet::with_silent_members(0).await;
    fleet.round(Duration::from_secs(2)).await;
    fleet.servers[2].freeze();
    let restored = fleet.round(Duration::from_secs(5)).await;
    assert!(restored < Duration::from_secs(5), "{restored:?}");
    println!("restored {restored:?} after the freeze");
    assert_eq!(fleet.down().await, ["pubsub-2"]);
    // Woken, it hands out what it had taken before; nothing goes back.
    fleet.servers[2].thaw();
    fleet.round(Duration::from_secs(1)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_minority_takes_nobody_out() {
    let fleet = Fleet::with_silent_members(3).await;
    fleet.servers[0].kill();
    sleep(Duration::from_secs(3)).await;
    assert_eq!(fleet.down().await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_node_stays_though_nobody_can_use_it() {
    let mut fleet = Fleet::with_silent_members(0).await;
    fleet.servers[0].kill();
    fleet.servers[1].kill();
    fleet.until_down_is(&["pubsub-0", "pubsub-1"], Duration::from_secs(5)).await;
    fleet.servers[2].kill();
    sleep(Duration::from_secs(2)).await;
    assert_eq!(fleet.down().await, ["pubsub-0", "pubsub-1"]);
    fleet.servers[2].restart();
    fleet.round(Duration::from_secs(5)).await;
}
