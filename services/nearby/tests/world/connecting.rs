//! Connecting, leaving, and what is kept for whom.

use std::time::Duration;

use ports::embedded::Health;
use tokio::time::Instant;

use crate::phone::north;
use crate::world::World;

#[tokio::test(start_paused = true)]
async fn a_channel_is_held_while_somebody_watches_and_a_while_longer() {
    let world = World::new(1).await;
    let (mut alice, mut bob) = world.alice_and_bob().await;
    let mut carol = world.person(0).await;
    world.befriend(&carol, &bob).await;
    alice.connect_at(north(0.0)).await;
    carol.connect_at(north(0.0)).await;
    bob.connect_at(north(1_000.0)).await;
    world.settle().await;
    assert_eq!(world.brokers[0].subscriptions().len(), 3, "alice and carol watch bob, bob watches both");
    alice.disconnect().await;
    carol.disconnect().await;
    bob.disconnect().await;
    world.wait(30).await;
    assert_eq!(world.brokers[0].subscriptions().len(), 3, "a reconnect would find them");
    world.wait(120).await;
    assert_eq!(world.brokers[0].subscriptions(), [], "subscriptions drain to none");
}

#[tokio::test(start_paused = true)]
async fn a_frozen_broker_or_cache_delays_a_connect_by_two_hundred_milliseconds_at_most() {
    let world = World::new(2).await;
    let (mut alice, mut bob) = world.alice_and_bob().await;
    bob.connect_at(north(1_000.0)).await;
    world.settle().await;
    world.brokers[0].set_health(Health::Frozen);
    let began = Instant::now();
    assert_eq!(alice.connect_at(north(0.0)).await.friends.len(), 0);
    assert!(began.elapsed() <= Duration::from_millis(205), "{:?}", began.elapsed());
    world.brokers[0].set_health(Health::Up);
    world.wait(3).await;
    assert_eq!(alice.sees(&bob), Some(1_000.0), "what was owed came as a push");

    alice.disconnect().await;
    world.wait(200).await;
    world.cache.set_health(Health::Frozen);
    let began = Instant::now();
    alice.connect_at(north(0.0)).await;
    assert!(began.elapsed() <= Duration::from_millis(205), "{:?}", began.elapsed());
    world.cache.set_health(Health::Up);
    world.wait(3).await;
    assert_eq!(alice.sees(&bob), Some(1_000.0));
}

#[tokio::test(start_paused = true)]
async fn a_node_stops_with_everything_written() {
    let world = World::new(2).await;
    let (mut alice, mut bob) = world.alice_and_bob().await;
    alice.connect_at(north(0.0)).await;
    bob.connect_at(north(1_000.0)).await;
    world.settle().await;
    bob.at(north(1_500.0));
    bob.disconnect().await;
    world.nodes[1].stop(Duration::from_secs(5)).await.unwrap();
    world.settle().await;
    assert_eq!(alice.sees(&bob), Some(1_500.0), "the last position went out");
    assert_eq!(world.recorded(&bob).await.len(), 2);
}
