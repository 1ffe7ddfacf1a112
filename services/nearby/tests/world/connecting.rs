//! Connecting, leaving, and what is kept for whom.

use std::time::Duration;

use protocol::close::CloseCode;

use crate::phone::{Phone, north};
use crate::world::World;

scenarios! {
    a_ninth_connection_replaces_the_first on [1];
    a_node_stops_with_everything_written on [2];
}

async fn a_ninth_connection_replaces_the_first(world: &World) {
    let alice = world.person(0).await;
    let mut devices: Vec<Phone> = (0..9).map(|_| alice.second()).collect();
    devices.iter_mut().for_each(Phone::open);
    assert_eq!(devices[0].closing(), Some(CloseCode::Replaced));
    assert!(devices[1..].iter().all(|device| device.closing().is_none()));
}

async fn a_node_stops_with_everything_written(world: &World) {
    let (mut alice, mut bob) = world.alice_and_bob().await;
    alice.connect_at(north(0.0)).await;
    bob.connect_at(north(1_000.0)).await;
    alice.comes_to_see(&bob, 1_000.0).await;
    bob.at(north(1_500.0));
    bob.disconnect().await;
    world.nodes[1].stop(Duration::from_secs(5)).await.unwrap();
    alice.comes_to_see(&bob, 1_500.0).await;
    assert_eq!(world.recorded(&bob).await.len(), 2);
}
