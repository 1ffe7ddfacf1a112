//! What friends see when a backend fails: nothing is lost for good, and nothing is sent that may not be. By the faults
//! of the embedded backends; real servers fail in tests of their own.

use std::time::Duration;

use ports::embedded::Health;
use ports::{Broker, Channel, Discovery, Sessions};
use tokio::time::Instant;

use crate::phone::{Phone, north};
use crate::world::World;

async fn connected(world: &World) -> (Phone, Phone) {
    let (mut alice, mut bob) = world.alice_and_bob().await;
    alice.connect_at(north(0.0)).await;
    bob.connect_at(north(1_000.0)).await;
    world.settle().await;
    assert_eq!((alice.sees(&bob), bob.sees(&alice)), (Some(1_000.0), Some(1_000.0)));
    (alice, bob)
}

#[tokio::test(start_paused = true)]
async fn a_lost_subscription_loses_no_last_position() {
    let world = World::new(2).await;
    let (mut alice, mut bob) = connected(&world).await;
    world.foundation.brokers[0].lose_connection();
    bob.at(north(2_000.0));
    world.settle().await;
    assert_eq!(alice.sees(&bob), Some(1_000.0), "the message was lost");
    world.foundation.brokers[0].restore_connection();
    world.settle().await;
    assert_eq!(alice.sees(&bob), Some(2_000.0), "the gap was answered by a read of the cache");
}

#[tokio::test(start_paused = true)]
async fn what_was_published_in_vain_is_published_again() {
    let world = World::new(2).await;
    let (mut alice, mut bob) = connected(&world).await;
    // Confirmed by a server that others have left; nobody has a gap who might look into the cache.
    world.foundation.brokers[1].misdirect_next(1);
    bob.at(north(2_000.0));
    world.settle().await;
    assert_eq!(alice.sees(&bob), Some(2_000.0));
}

#[tokio::test(start_paused = true)]
async fn a_message_that_did_not_fit_into_the_inbox_is_read_from_the_cache() {
    let world = World::new(2).await;
    let (mut alice, mut bob) = connected(&world).await;
    world.foundation.brokers[0].lose_next(1);
    bob.at(north(2_000.0));
    world.settle().await;
    assert_eq!(alice.sees(&bob), Some(2_000.0));
}

#[tokio::test(start_paused = true)]
async fn a_message_that_vanished_unnoticed_is_found_by_the_silence() {
    let world = World::new(2).await;
    let (mut alice, mut bob) = connected(&world).await;
    // The subscription is gone, and nobody told the node.
    world.foundation.brokers[0].unsubscribe(&[Channel::User(bob.user)]).await.unwrap();
    bob.at(north(2_000.0));
    world.wait(60).await;
    assert_eq!(alice.sees(&bob), Some(1_000.0));
    world.wait(40).await;
    assert_eq!(alice.sees(&bob), Some(2_000.0), "a live channel silent for 90 s is read once from the cache");
}

#[tokio::test(start_paused = true)]
async fn the_cache_is_down_and_live_pushes_go_on() {
    for sick in [Health::Down, Health::Frozen, Health::Mute] {
        let world = World::new(2).await;
        let (mut alice, mut bob) = connected(&world).await;
        world.foundation.cache.set_health(sick);
        for step in 1..=20 {
            bob.at(north(1_000.0 + f64::from(step)));
            world.wait(1).await;
            assert_eq!(alice.sees(&bob), Some(1_000.0 + f64::from(step)), "{sick:?}, step {step}");
        }
        world.foundation.cache.set_health(Health::Up);
        bob.at(north(3_000.0));
        world.wait(3).await;
        assert_eq!(alice.sees(&bob), Some(3_000.0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_fails_gets_everything_again() {
    let world = World::new(2).await;
    let (mut alice, mut bob) = connected(&world).await;
    world.foundation.brokers[1].set_health(Health::Down);
    bob.at(north(2_000.0));
    world.wait(5).await;
    bob.at(north(2_500.0));
    world.settle().await;
    assert_eq!(alice.sees(&bob), Some(1_000.0));
    world.foundation.brokers[1].set_health(Health::Up);
    world.wait(2).await;
    assert_eq!(alice.sees(&bob), Some(2_500.0), "the newest, once");
}

#[tokio::test(start_paused = true)]
async fn without_the_control_log_positions_stop_after_ten_seconds_and_come_back() {
    for sick in [Health::Down, Health::Frozen] {
        let world = World::new(2).await;
        let (mut alice, mut bob) = connected(&world).await;
        world.foundation.control.set_health(sick);
        world.wait(5).await;
        bob.at(north(1_100.0));
        world.settle().await;
        assert_eq!(alice.sees(&bob), Some(1_100.0), "delivery is unaffected at first");
        world.wait(7).await;
        assert!(!world.nodes[0].may_send());
        bob.at(north(1_200.0));
        world.settle().await;
        assert_eq!(alice.sees(&bob), Some(1_100.0), "fail closed");
        world.foundation.control.set_health(Health::Up);
        world.wait(5).await;
        assert_eq!(alice.sees(&bob), Some(1_200.0), "what was held back");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_buffered_for_a_slow_reader_is_not_written_once_the_right_to_send_has_ended() {
    let world = World::new(2).await;
    let (mut alice, mut bob) = connected(&world).await;
    bob.at(north(1_100.0));
    world.settle().await;
    assert!(alice.read_without_flush() > 0);
    assert!(alice.feed().may_write());
    world.foundation.control.set_health(Health::Down);
    world.wait(12).await;
    assert!(!alice.feed().may_write(), "a revoke may have been acknowledged without this node");
    assert!(bob.feed().may_write(), "nothing is on its way to bob: a close may still be sent");
    alice.vanish();
}

#[tokio::test(start_paused = true)]
async fn a_node_whose_lease_ended_closes_its_connections() {
    let world = World::new(2).await;
    let (mut alice, _bob) = connected(&world).await;
    world.foundation.discovery.set_health(Health::Down);
    world.wait(20).await;
    assert!(!world.nodes[0].may_send());
    world.foundation.discovery.set_health(Health::Up);
    world.wait(5).await;
    assert!(world.nodes[0].may_send());
    assert_eq!(alice.closing(), Some(protocol::close::CloseCode::Restart), "it may have slept through anything");
    alice.disconnect().await;
}

#[tokio::test(start_paused = true)]
async fn who_connects_after_the_lease_ended_is_not_closed_for_it_again() {
    let world = World::new(2).await;
    let (mut alice, bob) = connected(&world).await;
    world.foundation.discovery.set_health(Health::Down);
    world.wait(20).await;
    alice.vanish();
    alice.open();
    world.wait(10).await;
    assert_eq!(alice.closing(), None, "the lease is asked for in vain all the time, and ended once");
    world.foundation.discovery.set_health(Health::Up);
    world.wait(5).await;
    assert_eq!(alice.closing(), None);
    alice.connect_at(north(0.0)).await;
    assert_eq!(alice.sees(&bob), Some(1_000.0));
    alice.disconnect().await;
}

#[tokio::test(start_paused = true)]
async fn a_frozen_broker_or_cache_delays_a_connect_by_two_hundred_milliseconds_at_most() {
    let world = World::new(2).await;
    let (mut alice, mut bob) = world.alice_and_bob().await;
    bob.connect_at(north(1_000.0)).await;
    world.settle().await;
    world.foundation.brokers[0].set_health(Health::Frozen);
    let began = Instant::now();
    assert_eq!(alice.connect_at(north(0.0)).await.friends.len(), 0);
    assert!(began.elapsed() <= Duration::from_millis(205), "{:?}", began.elapsed());
    world.foundation.brokers[0].set_health(Health::Up);
    world.wait(3).await;
    assert_eq!(alice.sees(&bob), Some(1_000.0), "what was owed came as a push");

    alice.disconnect().await;
    world.wait(200).await;
    world.foundation.cache.set_health(Health::Frozen);
    let began = Instant::now();
    alice.connect_at(north(0.0)).await;
    assert!(began.elapsed() <= Duration::from_millis(205), "{:?}", began.elapsed());
    world.foundation.cache.set_health(Health::Up);
    world.wait(3).await;
    assert_eq!(alice.sees(&bob), Some(1_000.0));
}

#[tokio::test(start_paused = true)]
async fn the_entry_of_a_node_that_was_killed_is_believed_by_nobody() {
    let world = World::new(2).await;
    let (mut alice, _bob) = connected(&world).await;
    let sharing = async || world.foundation.sessions.locate(alice.user).await.unwrap().unwrap().session.node;
    let [hers, other] = [world.nodes[0].id(), world.nodes[1].id()];
    let post = async || world.nodes[1].record(alice.user, &[alice.report(north(500.0))], world.clock.monotonic()).await;
    post().await.unwrap();
    assert_eq!(sharing().await, hers, "her phone is connected");
    // Her node is gone, and has released nothing: what she posts begins a sequence of its own.
    world.foundation.discovery.leave(hers).await.unwrap();
    tokio::time::sleep(node::limits::MEMBERS).await;
    post().await.unwrap();
    assert_eq!(sharing().await, other);
    alice.vanish();
}
