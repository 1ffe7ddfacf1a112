//! Friends who fall silent.

use std::time::Duration;

use node::Settings;
use protocol::client::GoneReason;
use tokio::time::{Instant, sleep};

use crate::foundation::SILENCE;
use crate::phone::{Told, north};
use crate::world::{World, settings};

scenarios! {
    a_friend_silent_for_ten_minutes_is_gone_and_comes_back_with_a_word on [1, 2], with until_silent();
    a_friend_whose_phone_went_away_stays_for_the_rest_of_the_ten_minutes on [2], with until_silent();
}

/// Ten minutes, or what stands for them.
fn until_silent() -> Settings {
    Settings { ttl: SILENCE, ..settings() }
}

/// Whoever is silent is gone so long after, at the latest.
const LATE: Duration = Duration::from_secs(5);

async fn a_friend_silent_for_ten_minutes_is_gone_and_comes_back_with_a_word(world: &World) {
    let (mut alice, mut bob) = world.alice_and_bob().await;
    alice.connect_at(north(0.0)).await;
    let last_word = Instant::now();
    bob.connect_at(north(1_000.0)).await;
    alice.comes_to_see(&bob, 1_000.0).await;
    alice.reads_until(SILENCE + LATE, |alice| alice.near.is_empty()).await;
    assert!(last_word.elapsed() >= SILENCE, "gone after {:?}", last_word.elapsed());
    assert_eq!(alice.told, [Told::Gone(bob.user, GoneReason::Inactive)]);
    bob.at(north(900.0));
    alice.comes_to_see(&bob, 900.0).await;
}

async fn a_friend_whose_phone_went_away_stays_for_the_rest_of_the_ten_minutes(world: &World) {
    let (mut alice, mut bob) = world.alice_and_bob().await;
    let last_word = Instant::now();
    bob.connect_at(north(1_000.0)).await;
    sleep(SILENCE * 3 / 4).await;
    bob.disconnect().await;
    alice.connect_at(north(0.0)).await;
    // From the cache, for bob says nothing any more.
    alice.comes_to_see(&bob, 1_000.0).await;
    // The time left counts, not the time since alice came.
    let latest = (SILENCE + LATE).saturating_sub(last_word.elapsed());
    alice.reads_until(latest, |alice| alice.near.is_empty()).await;
    assert!(last_word.elapsed() >= SILENCE, "gone after {:?}", last_word.elapsed());
}
