//! Friendships made and ended while people are connected, and people who are deleted.

use std::time::Duration;

use axum::http::{Method, StatusCode};
use model::MonotonicMs;
use ports::ControlEntry;
use ports::conformance::fresh_node;
use protocol::client::GoneReason;
use protocol::close::CloseCode;
use tokio::time::{Instant, timeout};

use crate::foundation::PATIENCE;
use crate::phone::{Phone, Told, north};
use crate::world::World;

scenarios! {
    a_friendship_made_and_ended_while_both_are_connected on [1, 3];
    what_waits_for_a_viewer_is_not_sent_after_the_revoke on [2];
    a_revoke_waits_for_what_is_on_its_way_to_the_socket_and_cuts_who_does_not_read on [2];
    a_revoke_while_a_viewer_connects_is_seen_by_it on [2];
    a_node_that_does_not_confirm_delays_a_revoke_by_ten_seconds on [1];
    an_entry_of_the_log_that_comes_late_changes_nothing on [1, 2];
    who_connects_while_a_person_is_deleted_is_not_left_with_them on [2];
    a_person_who_is_deleted_is_gone_everywhere on [1, 2];
}

/// Bob is a kilometre away.
async fn alice_sees_bob(world: &World) -> (Phone, Phone) {
    let (mut alice, mut bob) = world.alice_and_bob().await;
    alice.connect_at(north(0.0)).await;
    bob.connect_at(north(1_000.0)).await;
    alice.comes_to_see(&bob, 1_000.0).await;
    (alice, bob)
}

async fn a_friendship_made_and_ended_while_both_are_connected(world: &World) {
    let (mut alice, mut bob) = (world.person(0).await, world.person(1).await);
    alice.connect_at(north(0.0)).await;
    bob.connect_at(north(1_000.0)).await;
    let mut witness = world.witness(0, &bob).await;
    world.befriend(&alice, &bob).await;
    // Without anybody moving.
    alice.comes_to_see(&bob, 1_000.0).await;
    bob.comes_to_see(&alice, 1_000.0).await;
    assert_eq!(alice.told, [Told::Added(bob.user)]);
    world.unfriend(&alice, &bob).await;
    assert_eq!((alice.sees(&bob), bob.sees(&alice)), (None, None), "as soon as it is acknowledged");
    bob.at(north(500.0));
    witness.comes_to_see(&bob, 500.0).await;
    world.settle().await;
    assert_eq!((alice.sees(&bob), bob.sees(&alice)), (None, None));
    assert_eq!(alice.told[1..], [Told::Gone(bob.user, GoneReason::Hidden), Told::Removed(bob.user)]);
    world.befriend(&bob, &alice).await;
    alice.comes_to_see(&bob, 500.0).await;
}

async fn what_waits_for_a_viewer_is_not_sent_after_the_revoke(world: &World) {
    let (mut alice, mut bob) = alice_sees_bob(world).await;
    let mut witness = world.witness(0, &bob).await;
    let pushes = alice.pushes;
    bob.at(north(1_100.0));
    witness.comes_to_see(&bob, 1_100.0).await;
    world.settle().await;
    world.unfriend(&bob, &alice).await;
    alice.read();
    assert_eq!((alice.pushes, alice.near.len()), (pushes, 0));
}

async fn a_revoke_waits_for_what_is_on_its_way_to_the_socket_and_cuts_who_does_not_read(world: &World) {
    let (mut alice, mut bob) = alice_sees_bob(world).await;
    bob.at(north(1_100.0));
    world
        .until("bob's position is between the engine and alice's socket", async || alice.read_without_flush() > 0)
        .await;
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
    assert!(began.elapsed() < Duration::from_millis(500) + PATIENCE, "{:?}", began.elapsed());
}

async fn a_revoke_while_a_viewer_connects_is_seen_by_it(world: &World) {
    let (mut alice, mut bob) = world.alice_and_bob().await;
    bob.connect_at(north(1_000.0)).await;
    world.cached([&bob]).await;
    let mut witness = world.witness(0, &bob).await;
    // Registered, and not yet read.
    alice.open();
    world.unfriend(&alice, &bob).await;
    assert_eq!(alice.connect_at(north(0.0)).await.friends.len(), 0);
    bob.at(north(900.0));
    witness.comes_to_see(&bob, 900.0).await;
    world.settle().await;
    assert_eq!(alice.sees(&bob), None);
}

async fn a_node_that_does_not_confirm_delays_a_revoke_by_ten_seconds(world: &World) {
    let (alice, bob) = alice_sees_bob(world).await;
    // A sender that is a member and never confirms, as a frozen process is.
    world.backends[0].discovery.join(fresh_node()).await.unwrap();
    let began = Instant::now();
    world.unfriend(&alice, &bob).await;
    let took = began.elapsed();
    assert!((Duration::from_secs(9)..Duration::from_secs(12)).contains(&took), "{took:?}");
}

/// A process hung between its write and its entry, while others wrote the pair again and were answered.
async fn an_entry_of_the_log_that_comes_late_changes_nothing(world: &World) {
    let (mut alice, mut bob) = alice_sees_bob(world).await;
    let control = &world.backends[0].control;
    world.unfriend(&alice, &bob).await;
    let mut witness = world.witness(0, &bob).await;
    control.append(ControlEntry::Befriended(bob.user, alice.user)).await.unwrap();
    bob.at(north(900.0));
    witness.comes_to_see(&bob, 900.0).await;
    world.settle().await;
    assert_eq!((alice.sees(&bob), bob.sees(&alice)), (None, None), "they are no friends");

    world.befriend(&alice, &bob).await;
    alice.comes_to_see(&bob, 900.0).await;
    for _ in 0..3 {
        control.append(ControlEntry::Unfriended(alice.user, bob.user)).await.unwrap();
    }
    world.settle().await;
    alice.comes_to_see(&bob, 900.0).await;
    bob.comes_to_see(&alice, 900.0).await;
    bob.at(north(800.0));
    alice.comes_to_see(&bob, 800.0).await;
}

/// Friendships are forgotten after every node was told of the deletion: whoever connects in between reads them still.
async fn who_connects_while_a_person_is_deleted_is_not_left_with_them(world: &World) {
    let (mut alice, bob) = alice_sees_bob(world).await;
    let mut carol = world.person(0).await;
    world.befriend(&carol, &bob).await;
    world.backends[0].control.append(ControlEntry::UserDeleted(bob.user)).await.unwrap();
    world.until("alice was told", async || alice.sees(&bob).is_none()).await;
    carol.connect_at(north(0.0)).await;
    let began = Instant::now();
    world.delete(&bob).await;
    assert!(began.elapsed() < Duration::from_secs(9), "{:?}", began.elapsed());
    assert_eq!((alice.sees(&bob), carol.sees(&bob)), (None, None));
    assert!(carol.told.contains(&Told::Removed(bob.user)), "she had read the directory before it was written");
}

async fn a_person_who_is_deleted_is_gone_everywhere(world: &World) {
    let (mut alice, mut bob) = alice_sees_bob(world).await;
    world.until("bob's position is recorded", async || !world.recorded(&bob).await.is_empty()).await;
    bob.at(north(1_001.0));
    world.delete(&bob).await;
    assert_eq!(alice.sees(&bob), None);
    assert_eq!(alice.told, [Told::Gone(bob.user, GoneReason::Hidden), Told::Removed(bob.user)]);
    assert_eq!(bob.closing(), Some(CloseCode::Forbidden));
    let late = bob.report(north(1_002.0));
    assert!(bob.send(&late).is_err(), "nothing more is taken in");
    world.settle().await;
    assert!(world.recorded(&bob).await.is_empty());
    assert_eq!(world.backends[0].cache.get_many(&[bob.user]).await.unwrap(), [None]);
    assert_eq!(world.ask(Method::GET, &format!("/v1/users/{}", bob.user)).await, StatusCode::NOT_FOUND);
    // A call that began before the deletion was applied.
    let began = world.clock.monotonic();
    assert!(world.nodes[0].record(bob.user, &[late], MonotonicMs(began.0 - 3_000)).await.is_err());
    assert!(world.recorded(&bob).await.is_empty());
}
