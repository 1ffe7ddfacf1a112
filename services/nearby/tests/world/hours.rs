//! What takes hours, which only virtual time has.

use ports::Channel;

use crate::phone::north;
use crate::world::World;

/// Whom the first node is subscribed to.
fn watched(world: &World) -> Vec<Channel> {
    let all = world.foundation.brokers[0].subscriptions().into_iter();
    all.filter(|channel| matches!(channel, Channel::User(_))).collect()
}

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
    assert_eq!(watched(&world).len(), 3, "alice and carol watch bob, bob watches both");
    alice.disconnect().await;
    carol.disconnect().await;
    bob.disconnect().await;
    world.wait(30).await;
    assert_eq!(watched(&world).len(), 3, "a reconnect would find them");
    world.wait(120).await;
    assert_eq!(watched(&world), [], "subscriptions drain to none");
}

#[tokio::test(start_paused = true)]
async fn the_wheel_turns_many_times_over_a_long_day() {
    let world = World::new(1).await;
    let (mut alice, mut bob) = world.alice_and_bob().await;
    alice.connect_at(north(0.0)).await;
    bob.connect_at(north(1_000.0)).await;
    for minute in 0..60 {
        world.wait(180).await;
        alice.at(north(0.0));
        bob.at(north(1_000.0 + f64::from(minute)));
        world.settle().await;
        assert_eq!(alice.sees(&bob), Some(1_000.0 + f64::from(minute)));
    }
    assert_eq!(alice.told, []);
    world.wait(605).await;
    assert_eq!(alice.sees(&bob), None);
}
