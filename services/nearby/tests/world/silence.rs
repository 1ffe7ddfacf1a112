//! Friends who fall silent.

use protocol::client::GoneReason;

use crate::phone::{Told, north};
use crate::world::World;

#[tokio::test(start_paused = true)]
async fn a_friend_silent_for_ten_minutes_is_gone_and_comes_back_with_a_word() {
    for nodes in [1, 2] {
        let world = World::new(nodes).await;
        let (mut alice, mut bob) = world.alice_and_bob().await;
        alice.connect_at(north(0.0)).await;
        bob.connect_at(north(1_000.0)).await;
        world.settle().await;
        world.wait(598).await;
        assert_eq!(alice.sees(&bob), Some(1_000.0));
        world.wait(6).await;
        assert_eq!(alice.sees(&bob), None, "600 s after the last word, and at most 5 s later");
        assert_eq!(alice.told, [Told::Gone(bob.user, GoneReason::Inactive)]);
        bob.at(north(900.0));
        world.settle().await;
        assert_eq!(alice.sees(&bob), Some(900.0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_friend_whose_phone_went_away_stays_for_the_rest_of_the_ten_minutes() {
    let world = World::new(2).await;
    let (mut alice, mut bob) = world.alice_and_bob().await;
    bob.connect_at(north(1_000.0)).await;
    world.wait(300).await;
    bob.disconnect().await;
    alice.connect_at(north(0.0)).await;
    assert_eq!(alice.sees(&bob), Some(1_000.0), "from the cache");
    world.wait(297).await;
    assert_eq!(alice.sees(&bob), Some(1_000.0));
    world.wait(8).await;
    assert_eq!(alice.sees(&bob), None, "the time left counts, not the time since alice came");
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
