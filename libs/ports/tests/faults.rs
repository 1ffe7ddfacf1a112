//! What the embedded backends do when a test makes them sick.

use std::sync::Arc;
use std::time::Duration;

use model::{Fix, Generation, Motion, Order, Place, PolicyVersion, Position, TimestampMs, UserId};
use ports::control::LogRead;
use ports::embedded::*;
use ports::{Arrival, Broker, Channel, Clock, ControlEntry, ControlLog, LocationCache, Publication};
use tokio::time::timeout;

const USER: UserId = UserId(7);
const CHANNEL: Channel = Channel::User(USER);
const A_WHILE: Duration = Duration::from_secs(60);

fn fix(clock: Clock, ts: u64) -> Fix {
    Fix {
        user: USER,
        place: Place::new(Position::new(40.0, 116.0).expect("a position")),
        order: Order { generation: Generation(1), ts: TimestampMs(ts), ..Order::default() },
        expires: clock.monotonic().after(Duration::from_secs(600)),
        policy: PolicyVersion(0),
        motion: Motion::UNKNOWN,
    }
}

fn message(ts: u64) -> Publication {
    Publication::Location(fix(Clock::System, ts))
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_is_down_refuses_and_does_nothing() {
    let clock = Clock::virtual_from_now();
    let cache = EmbeddedCache::new(clock);
    cache.set_health(Health::Down);
    assert!(cache.put_many(&[fix(clock, 1)]).await.unwrap_err().is_transient());
    cache.set_health(Health::Up);
    assert_eq!(cache.get_many(&[USER]).await, Ok(vec![None]));
}

#[tokio::test(start_paused = true)]
async fn a_frozen_backend_does_nothing_until_it_is_up_again() {
    let clock = Clock::virtual_from_now();
    let cache = EmbeddedCache::new(clock);
    cache.set_health(Health::Frozen);
    let fixes = [fix(clock, 1)];
    let mut put = cache.put_many(&fixes);
    assert!(timeout(A_WHILE, &mut put).await.is_err());
    cache.set_health(Health::Up);
    assert_eq!(cache.get_many(&[USER]).await, Ok(vec![None]), "it had not taken effect");
    put.await.unwrap();
    assert_eq!(cache.get_many(&[USER]).await, Ok(vec![Some(fixes[0])]));
}

#[tokio::test(start_paused = true)]
async fn a_mute_backend_answers_what_it_knew_when_it_was_asked() {
    let clock = Clock::virtual_from_now();
    let log = EmbeddedControlLog::new(clock, Arc::new(EmbeddedDiscovery::new(clock)));
    log.set_health(Health::Mute);
    let mut read = log.read_after(PolicyVersion(0));
    assert!(timeout(A_WHILE, &mut read).await.is_err());
    let mut append = log.append(ControlEntry::UserDeleted(USER));
    assert!(timeout(A_WHILE, &mut append).await.is_err());
    log.set_health(Health::Up);
    assert_eq!(read.await, Ok(LogRead::Entries { records: vec![], end: PolicyVersion(0) }), "as old as the question");
    assert_eq!(append.await, Ok(PolicyVersion(1)));
}

#[tokio::test(start_paused = true)]
async fn what_the_log_no_longer_keeps_is_told() {
    let clock = Clock::virtual_from_now();
    let log = EmbeddedControlLog::keeping(3, clock, Arc::new(EmbeddedDiscovery::new(clock)));
    for user in 1..=5 {
        assert_eq!(log.append(ControlEntry::UserDeleted(UserId(user))).await, Ok(PolicyVersion(user)));
    }
    let end = PolicyVersion(5);
    for lost in [0, 1] {
        assert_eq!(log.read_after(PolicyVersion(lost)).await, Ok(LogRead::Compacted { end }));
    }
    for (kept, expected) in [(2, 3), (4, 1), (5, 0)] {
        let Ok(LogRead::Entries { records, .. }) = log.read_after(PolicyVersion(kept)).await else {
            panic!("entries after {kept} are kept")
        };
        assert_eq!(records.len(), expected);
        assert!(records.iter().all(|record| record.entry == ControlEntry::UserDeleted(UserId(record.index.0))));
    }
}

/// A node that publishes and one that is subscribed to the channel.
async fn two_nodes() -> (EmbeddedBus, Arc<EmbeddedBroker>, Arc<EmbeddedBroker>, ports::Inbox) {
    let bus = EmbeddedBus::new();
    let (publisher, _) = bus.attach(8);
    let (subscriber, inbox) = bus.attach(8);
    subscriber.subscribe(&[CHANNEL]).await.expect("subscribed");
    (bus, publisher, subscriber, inbox)
}

#[tokio::test(start_paused = true)]
async fn nothing_goes_over_a_lost_connection_and_its_return_is_a_gap() {
    let (_bus, publisher, subscriber, mut inbox) = two_nodes().await;
    subscriber.lose_connection();
    publisher.publish(&[message(1)]).await.unwrap();
    assert!(timeout(A_WHILE, inbox.recv()).await.is_err(), "lost, and not told before it holds again");
    let unconfirmed = subscriber.publish(&[message(2), message(3)]).await.unwrap_err();
    assert_eq!(unconfirmed.indexes, [0, 1]);
    subscriber.subscribe(&[CHANNEL]).await.unwrap_err();
    subscriber.restore_connection();
    publisher.publish(&[message(4)]).await.unwrap();
    assert_eq!(inbox.recv().await, Some(Arrival::Gap(vec![CHANNEL])));
    assert!(matches!(inbox.recv().await, Some(Arrival::Batch(batch)) if batch.len() == 1));
}

#[tokio::test(start_paused = true)]
async fn messages_that_a_test_wants_lost_are_told_as_a_gap() {
    let (_bus, publisher, subscriber, mut inbox) = two_nodes().await;
    subscriber.lose_next(3);
    publisher.publish(&[message(1), message(2)]).await.unwrap();
    assert_eq!(inbox.recv().await, Some(Arrival::Gap(vec![CHANNEL])));
    let last = message(4);
    publisher.publish(&[message(3), last]).await.unwrap();
    assert_eq!(inbox.recv().await, Some(Arrival::Gap(vec![CHANNEL])));
    assert_eq!(inbox.recv().await, Some(Arrival::Batch(vec![last])));
}

#[tokio::test(start_paused = true)]
async fn messages_that_a_test_wants_misdirected_are_to_be_published_again() {
    let (bus, _publisher, _subscriber, mut inbox) = two_nodes().await;
    let (sender, mut told) = bus.attach(8);
    sender.misdirect_next(1);
    let second = message(2);
    sender.publish(&[message(1), second]).await.expect("confirmed all the same");
    assert_eq!(inbox.recv().await, Some(Arrival::Batch(vec![second])));
    let Some(Arrival::Republish(affected)) = told.recv().await else { panic!("not told") };
    assert_eq!([USER, UserId(8)].map(|user| affected.holds(Channel::User(user))), [true, false]);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_gone_leaves_its_place_and_no_subscriptions() {
    let bus = EmbeddedBus::new();
    for _ in 0..200 {
        let (node, mut inbox) = bus.attach(8);
        assert_eq!(node.subscriptions(), [], "a new node inherits nothing");
        node.subscribe(&[CHANNEL]).await.unwrap();
        assert_eq!(node.subscriptions(), [CHANNEL]);
        drop(node);
        assert_eq!(inbox.recv().await, None);
    }
}
