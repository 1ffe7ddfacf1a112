//! After a lost connection: live channels first, and the rest in pieces that hold up nobody.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use model::{NodeId, UserId};
use ports::embedded::EmbeddedDiscovery;
use ports::{Arrival, Broker, Channel, Clock, Discovery, Publication};
use protocol::ring::{RingDocument, RingNode};
use redis_backend::{BrokerSettings, RedisBroker};
use tokio::time::{sleep, timeout};

use crate::gateway::fix;
use crate::network::Network;

/// Channels in one piece.
const PIECE: usize = 512;

fn name(user: UserId) -> String {
    format!("n:u:{user}")
}

#[tokio::test(start_paused = true)]
async fn live_channels_come_first_and_nobody_waits_for_more_than_a_piece_of_the_rest() {
    let clock = Clock::virtual_from_now();
    let network = Network::new(1, 1, 7);
    let discovery = Arc::new(EmbeddedDiscovery::new(clock));
    let ring = RingDocument::first(vec![RingNode { name: "one".to_owned(), address: Network::address(0) }]);
    assert_eq!(discovery.swap("ring", 0, &ring.expect("a ring").text()).await, Ok(true));
    let settings = BrokerSettings {
        node: NodeId(1),
        inbox_batches: 64,
        prefix: "n:".to_owned(),
        document: "ring".to_owned(),
        clock,
    };
    let connected = RedisBroker::simulated(settings, discovery, network.of(0), None).await;
    let (broker, mut inbox) = connected.expect("a broker");
    let users: Vec<UserId> = (1..=4_000).map(UserId).collect();
    let channels: Vec<Channel> = users.iter().map(|user| Channel::User(*user)).collect();
    broker.subscribe(&channels).await.expect("subscribed");
    sleep(Duration::from_secs(1)).await;
    let live: Vec<UserId> = users.iter().step_by(100).copied().collect();
    let messages: Vec<Publication> = live.iter().map(|user| Publication::Location(fix(*user, 1, clock))).collect();
    broker.publish(&messages).await.expect("confirmed");
    while timeout(Duration::from_secs(1), inbox.recv()).await.is_ok() {}
    network.servers[0].take_asked();

    network.servers[0].cut_subscribers();
    let Some(Arrival::Gap(told)) = inbox.recv().await else { panic!("no gap") };
    let told: BTreeSet<Channel> = told.into_iter().collect();
    assert_eq!(told, live.iter().map(|user| Channel::User(*user)).collect(), "the live ones are told by themselves");
    // Who comes now waits for the piece that is under way, and no other.
    let newcomer = Channel::User(UserId(9_999));
    assert!(timeout(Duration::from_millis(500), broker.subscribe(&[newcomer])).await.is_ok());
    let mut rest = 0;
    while rest < users.len() - live.len() {
        match timeout(Duration::from_secs(1), inbox.recv()).await.expect("a gap") {
            Some(Arrival::Gap(channels)) => rest += channels.iter().filter(|channel| **channel != newcomer).count(),
            other => panic!("{other:?}"),
        }
    }
    let asked = network.servers[0].take_asked();
    assert_eq!(asked[0].iter().cloned().collect::<BTreeSet<_>>(), live.iter().copied().map(name).collect());
    assert!(asked.iter().all(|names| names.len() <= PIECE));
    let turn = asked.iter().position(|names| names == &[name(UserId(9_999))]).expect("the newcomer");
    assert!(turn <= 3, "the newcomer was asked for after {turn} others of {}", asked.len());
    assert_eq!(asked.iter().map(Vec::len).sum::<usize>(), users.len() + 1, "each once");
}
