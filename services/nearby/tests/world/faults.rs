//! What friends see when a backend fails: nothing is lost for good, and nothing is sent that may not be. By the faults
//! of the embedded backends; real servers fail in tests of their own.

use std::time::Duration;

use axum::http::{Method, StatusCode};
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
async fn a_node_whose_lease_ended_is_silent_and_keeps_its_connections() {
    for sick in [Health::Down, Health::Frozen] {
        let world = World::new(2).await;
        let (mut alice, mut bob) = connected(&world).await;
        let (mut carol, mut dave) = connected(&world).await;
        world.foundation.discovery.set_health(sick);
        world.wait(20).await;
        assert!(world.nodes.iter().all(|node| !node.may_send()));
        // Nobody is waited for who has no lease.
        world.unfriend(&alice, &bob).await;
        for phone in [&mut bob, &mut dave] {
            phone.at(north(1_100.0));
        }
        world.wait(20).await;
        assert_eq!(alice.sees(&bob), Some(1_000.0), "nothing is sent, neither a position nor an end");
        world.foundation.discovery.set_health(Health::Up);
        world.wait(5).await;
        assert!(world.nodes.iter().all(|node| node.may_send()));
        assert_eq!(alice.sees(&bob), None, "the log said what changed meanwhile");
        assert_eq!(carol.sees(&dave), Some(1_100.0), "what was held back");
        for phone in [&alice, &bob, &carol, &dave] {
            assert_eq!(phone.closing(), None, "{sick:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn only_who_revokes_waits_for_a_node_that_cannot_confirm() {
    for sick in [Health::Down, Health::Frozen] {
        let world = World::new(2).await;
        let (mut alice, mut bob) = connected(&world).await;
        let (mut carol, mut dave) = connected(&world).await;
        world.foundation.control.set_confirm_health(sick);
        for step in 1..=40 {
            dave.at(north(1_000.0 + f64::from(step)));
            world.wait(1).await;
            assert_eq!(carol.sees(&dave), Some(1_000.0 + f64::from(step)), "{sick:?}, second {step}");
        }
        let began = Instant::now();
        world.unfriend(&alice, &bob).await;
        assert!(began.elapsed() >= ports::control::RIGHT_TO_SEND, "{:?}", began.elapsed());
        bob.at(north(1_200.0));
        world.settle().await;
        assert_eq!(alice.sees(&bob), None);
        world.foundation.control.set_confirm_health(Health::Up);
        world.wait(4).await;
        let began = Instant::now();
        world.unfriend(&carol, &dave).await;
        assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    }
}

/// The control loop waited for what the pump and the recorder had under way of a deleted user.
#[tokio::test(start_paused = true)]
async fn a_deletion_does_not_silence_a_node_whose_backends_hang() {
    for sick in [Health::Down, Health::Frozen, Health::Mute] {
        let world = World::new(2).await;
        let (mut alice, mut bob) = connected(&world).await;
        let (mut carol, _dave) = connected(&world).await;
        world.foundation.history.set_health(sick);
        for broker in &world.foundation.brokers {
            broker.set_health(sick);
        }
        carol.at(north(1.0));
        world.settle().await;
        let entry = ports::ControlEntry::UserDeleted(carol.user);
        world.backends[0].control.append(entry).await.unwrap();
        world.wait(1).await;
        for broker in &world.foundation.brokers {
            broker.set_health(Health::Up);
        }
        for step in 1..=30 {
            bob.at(north(1_000.0 + f64::from(step)));
            world.wait(1).await;
            assert!(world.nodes.iter().all(|node| node.may_send()), "{sick:?}, second {step}");
        }
        assert_eq!(alice.sees(&bob), Some(1_030.0), "{sick:?}");
        world.foundation.history.set_health(Health::Up);
    }
}

/// What a node has confirmed lasts as long as its lease: a deletion that waits goes on when the node is back.
#[tokio::test(start_paused = true)]
async fn a_node_whose_lease_ended_says_again_what_it_has_erased() {
    let world = World::new(2).await;
    let (alice, _bob) = connected(&world).await;
    let control = &world.backends[0].control;
    let index = control.append(ports::ControlEntry::UserDeleted(alice.user)).await.unwrap();
    control.erased(index).await.unwrap();
    world.foundation.discovery.set_health(Health::Down);
    world.wait(20).await;
    // Nobody is a member.
    control.erased(index).await.unwrap();
    world.foundation.discovery.set_health(Health::Up);
    world.wait(5).await;
    let began = Instant::now();
    control.erased(index).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
}

/// With the history under way and failing, its batch is tried again: not with what belongs to who is deleted.
#[tokio::test(start_paused = true)]
async fn nothing_of_a_deleted_person_comes_back_from_what_is_tried_again() {
    for sick in [Health::Down, Health::Frozen, Health::Mute] {
        let world = World::new(2).await;
        let (mut alice, mut bob) = connected(&world).await;
        world.until("bob is recorded", async || !world.recorded(&bob).await.is_empty()).await;
        world.foundation.history.set_health(sick);
        world.foundation.cache.set_health(sick);
        for step in 0..20 {
            bob.at(north(1_010.0 + f64::from(step)));
            alice.at(north(f64::from(step)));
            world.wait(1).await;
        }
        let path = format!("/v1/users/{}", bob.user);
        let (answer, ()) = tokio::join!(world.ask(Method::DELETE, &path), async {
            world.wait(5).await;
            world.foundation.history.set_health(Health::Up);
            world.foundation.cache.set_health(Health::Up);
        });
        if answer != StatusCode::NO_CONTENT {
            assert_eq!((answer, sick), (StatusCode::SERVICE_UNAVAILABLE, Health::Down));
            world.delete(&bob).await;
        }
        world.wait(20).await;
        assert!(world.recorded(&bob).await.is_empty(), "{sick:?}");
        assert_eq!(world.backends[0].cache.get_many(&[bob.user]).await.unwrap(), [None], "{sick:?}");
        assert!(world.recorded(&alice).await.len() >= 20, "{sick:?}: who stays loses nothing");
        assert_eq!(alice.sees(&bob), None);
    }
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

#[tokio::test(start_paused = true)]
async fn a_stop_waits_for_a_history_that_comes_back_in_time() {
    let world = World::new(2).await;
    let (_alice, mut bob) = connected(&world).await;
    world.foundation.history.set_health(Health::Down);
    bob.at(north(1_500.0));
    bob.disconnect().await;
    let back = async {
        world.wait(5).await;
        world.foundation.history.set_health(Health::Up);
    };
    let (stopped, ()) = tokio::join!(world.nodes[1].stop(Duration::from_secs(10)), back);
    stopped.unwrap();
    assert_eq!(world.recorded(&bob).await.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_stop_says_how_many_points_it_could_not_write() {
    for sick in [Health::Down, Health::Frozen] {
        let world = World::new(2).await;
        let (_alice, mut bob) = connected(&world).await;
        world.wait(1).await;
        world.foundation.history.set_health(sick);
        for step in 1..=3 {
            bob.at(north(1_500.0 + f64::from(step)));
            world.wait(1).await;
        }
        bob.disconnect().await;
        let began = Instant::now();
        let error = world.nodes[1].stop(Duration::from_secs(10)).await.unwrap_err();
        assert!(error.to_string().contains("3 points"), "{sick:?}: {error}");
        assert!(began.elapsed() <= Duration::from_secs(11), "{sick:?}: {:?}", began.elapsed());
        world.foundation.history.set_health(Health::Up);
        world.wait(5).await;
    }
}

/// A revoke waits for members: what has left may send nothing any more.
#[tokio::test(start_paused = true)]
async fn the_right_to_send_ends_before_a_node_leaves() {
    let world = World::new(2).await;
    let (mut alice, mut bob) = connected(&world).await;
    world.foundation.discovery.set_health(Health::Frozen);
    // A poll is under way, which would extend the right.
    world.foundation.control.set_health(Health::Mute);
    world.wait(3).await;
    let stop = world.nodes[0].stop(Duration::from_secs(20));
    let meanwhile = async {
        tokio::task::yield_now().await;
        assert!(!world.nodes[0].may_send(), "it has not left yet");
        world.foundation.control.set_health(Health::Up);
        world.foundation.discovery.set_health(Health::Up);
        bob.at(north(1_100.0));
        for _ in 0..100 {
            assert!(!world.nodes[0].may_send());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let (stopped, ()) = tokio::join!(stop, meanwhile);
    stopped.unwrap();
    assert_eq!(alice.sees(&bob), Some(1_000.0));
}
