//! Two processes of the application change one pair at the same moment: whatever comes of it, people see each other if
//! the directory says that they are friends, and only then.
//!
//! `PAIRS=300 ROUNDS=400 cargo test --release -p nearby --test world_on_servers two_who_change` plays so many rounds of
//! so many pairs.

use std::time::Duration;

use axum::http::{Method, StatusCode};
use futures_util::future::join_all;
use rand::RngExt;
use tokio::time::{Instant, sleep};

use crate::foundation::{PATIENCE, RACE};
use crate::phone::{LOOK_EVERY, Phone, north};
use crate::world::World;

scenarios! {
    two_who_change_a_pair_at_once_leave_what_the_directory_says on [1, 3];
}

/// How long a test searches is given to it.
#[expect(clippy::disallowed_methods, reason = "it is not configured")]
fn given(name: &str, ordinary: usize) -> usize {
    std::env::var(name).map_or(ordinary, |number| number.parse().unwrap())
}

async fn two_who_change_a_pair_at_once_leave_what_the_directory_says(world: &World) {
    let (pairs, rounds) = (given("PAIRS", RACE.0), given("ROUNDS", RACE.1));
    let (mut alices, mut bobs) = (Vec::new(), Vec::new());
    for pair in 0..pairs {
        let (mut alice, mut bob) = (world.person(pair).await, world.person(pair + 1).await);
        alice.connect_at(north(0.0)).await;
        bob.connect_at(north(10.0)).await;
        alices.push(alice);
        bobs.push(bob);
    }
    let (mut wrong, mut ended) = (0, 0);
    for round in 0..rounds {
        let changes = alices.iter().zip(&bobs).map(|(alice, bob)| change_from_two_sides(world, alice, bob));
        join_all(changes).await;
        let pairs: Vec<_> = alices.iter().zip(&bobs).map(|(alice, bob)| (alice.user, bob.user)).collect();
        let friends = world.backends[0].friendships.levels(&pairs).await.unwrap();
        // Positions alternate, so that what was shown in the round before is told from what is shown now.
        let meters = 10.0 + (round % 2) as f64;
        bobs.iter_mut().for_each(|bob| bob.at(north(meters)));
        world.settle().await;
        for ((alice, bob), level) in alices.iter_mut().zip(&bobs).zip(friends) {
            let is_right = match level {
                Some(_) => comes_to_see(alice, bob, meters).await,
                None => alice.sees(bob).is_none(),
            };
            ended += usize::from(level.is_none());
            wrong += usize::from(!is_right);
        }
    }
    let played = pairs * rounds;
    eprintln!("{played} rounds, {ended} of which ended the friendship: {wrong} wrong");
    assert_eq!(wrong, 0, "of {played} rounds");
}

async fn change_from_two_sides(world: &World, alice: &Phone, bob: &Phone) {
    let path = format!("/v1/users/{}/friends/{}", alice.user, bob.user);
    let ask = async |method| {
        sleep(Duration::from_millis(rand::rng().random_range(0..3))).await;
        world.ask(method, &path).await
    };
    let (made, ended) = tokio::join!(ask(Method::PUT), ask(Method::DELETE));
    assert!(made.is_success(), "{made}");
    assert_eq!(ended, StatusCode::NO_CONTENT);
}

/// Whether a friend comes to be seen that far away.
async fn comes_to_see(alice: &mut Phone, bob: &Phone, meters: f64) -> bool {
    let begun = Instant::now();
    while alice.sees(bob) != Some(meters) {
        if begun.elapsed() > PATIENCE {
            return false;
        }
        sleep(LOOK_EVERY).await;
    }
    true
}
