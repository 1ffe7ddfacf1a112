//! Friendships made and ended while people are connected, and people who are deleted.

use std::time::Duration;

use axum::http::{Method, StatusCode};
use protocol::client::GoneReason;
use protocol::close::CloseCode;
use tokio::time::{Instant, timeout};

use crate::phone::{Told, north};
use crate::world::World;

#[tokio::test(start_paused = true)]
async fn a_friendship_made_and_ended_while_both_are_connected() {
    for nodes in [1, 3] {
        let world = World::new(nodes).await;
        let (mut alice, mut bob) = (world.person(0).await, world.person(1).await);
        alice.connect_at(north(0.0)).await;
        bob.connect_at(north(1_000.0)).await;
        world.befriend(&alice, &bob).await;
        world.settle().await;
        assert_eq!((alice.sees(&bob), bob.sees(&alice)), (Some(1_000.0), Some(1_000.0)), "without anybody moving");
        assert_eq!(alice.told, [Told::Added(bob.user)]);
        world.unfriend(&alice, &bob).await;
        bob.at(north(500.0));
        world.settle().await;
        assert_eq!((alice.sees(&bob), bob.sees(&alice)), (None, None));
        assert_eq!(alice.told[1..], [Told::Gone(bob.user, GoneReason::Hidden), Told::Removed(bob.user)]);
        world.befriend(&bob, &alice).await;
        world.settle().await;
        assert_eq!(alice.sees(&bob), Some(500.0));
    }
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_a_viewer_is_not_sent_after_the_revoke() {
    let world = World::new(2).await;
    let (mut alice, mut bob) = world.alice_and_bob().await;
    alice.connect_at(north(0.0)).await;
    bob.connect_at(north(1_000.0)).await;
    world.settle().await;
    alice.read();
    let pushes = alice.pushes;
    bob.at(north(1_100.0));
    world.settle().await;
    world.unfriend(&bob, &alice).await;
    alice.read();
    assert_eq!(alice.pushes, pushes);
}

#[tokio::test(start_paused = true)]
async fn a_revoke_waits_for_what_is_on_its_way_to_the_socket_and_cuts_who_does_not_read() {
    let world = World::new(2).await;
    let (mut alice, mut bob) = world.alice_and_bob().await;
    alice.connect_at(north(0.0)).await;
    bob.connect_at(north(1_000.0)).await;
    world.settle().await;
    assert!(alice.read_without_flush() > 0, "bob's position is between the engine and alice's socket");
    let began = Instant::now();
    let path = format!("/v1/users/{}/friends/{}", bob.user, alice.user);
    let revoke = world.ask(Method::DELETE, &path);
    tokio::pin!(revoke);
    assert!(timeout(Duration::from_millis(300), &mut revoke).await.is_err(), "the revoke waits");
    // A gateway drops the socket, and with it what is buffered, when it is told to.
    tokio::select! {
        _ = &mut revoke => panic!("acknowledged with a position under way"),
        () = alice.is_cut() => alice.vanish(),
    }
    assert_eq!(revoke.await, StatusCode::NO_CONTENT);
    assert!(began.elapsed() < Duration::from_secs(2));
}

#[tokio::test(start_paused = true)]
async fn a_revoke_while_a_viewer_connects_is_seen_by_it() {
    let world = World::new(2).await;
    let (mut alice, mut bob) = world.alice_and_bob().await;
    bob.connect_at(north(1_000.0)).await;
    world.settle().await;
    // Registered, and not yet read.
    alice.open();
    world.unfriend(&alice, &bob).await;
    assert_eq!(alice.connect_at(north(0.0)).await.friends.len(), 0);
    bob.at(north(900.0));
    world.settle().await;
    assert_eq!(alice.sees(&bob), None);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_does_not_confirm_delays_a_revoke_by_ten_seconds_and_sends_nothing_after() {
    let world = World::new(1).await;
    let (mut alice, mut bob) = world.alice_and_bob().await;
    alice.connect_at(north(0.0)).await;
    bob.connect_at(north(1_000.0)).await;
    world.settle().await;
    // A sender that is a member and never confirms, as a frozen process is.
    ports::Discovery::join(&*world.discovery, model::NodeId(99)).await.unwrap();
    let began = Instant::now();
    world.unfriend(&alice, &bob).await;
    let took = began.elapsed();
    assert!((Duration::from_secs(9)..Duration::from_secs(12)).contains(&took), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_person_who_is_deleted_is_gone_everywhere() {
    for nodes in [1, 2] {
        let world = World::new(nodes).await;
        let (mut alice, mut bob) = world.alice_and_bob().await;
        alice.connect_at(north(0.0)).await;
        bob.connect_at(north(1_000.0)).await;
        world.wait(2).await;
        assert_eq!(alice.sees(&bob), Some(1_000.0));
        assert!(!world.recorded(&bob).await.is_empty());
        bob.at(north(1_001.0));
        world.delete(&bob).await;
        assert_eq!(alice.sees(&bob), None);
        assert_eq!(alice.told, [Told::Gone(bob.user, GoneReason::Hidden), Told::Removed(bob.user)]);
        assert_eq!(bob.closing(), Some(CloseCode::Forbidden));
        let late = bob.report(north(1_002.0));
        assert!(bob.send(&late).is_err(), "nothing more is taken in");
        world.wait(2).await;
        assert!(world.recorded(&bob).await.is_empty());
        let cached = ports::LocationCache::get_many(&*world.cache, &[bob.user]).await.unwrap();
        assert_eq!(cached, [None]);
        assert_eq!(world.ask(Method::GET, &format!("/v1/users/{}", bob.user)).await, StatusCode::NOT_FOUND);
        // A call that began before the deletion was applied.
        let began = world.clock.monotonic();
        assert!(world.nodes[0].record(bob.user, &[late], model::MonotonicMs(began.0 - 3_000)).await.is_err());
        assert!(world.recorded(&bob).await.is_empty());
    }
}
