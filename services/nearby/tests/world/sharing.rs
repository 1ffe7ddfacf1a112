//! Several devices of one user, viewers without a position, posted positions.

use protocol::client::{ErrorCode, Report};
use protocol::close::CloseCode;

use crate::phone::{Phone, north};
use crate::world::World;

#[tokio::test(start_paused = true)]
async fn a_viewer_without_a_position_uses_its_users_own_newest() {
    for nodes in [1, 2] {
        let world = World::new(nodes).await;
        let (mut alice, mut bob) = world.alice_and_bob().await;
        bob.connect_at(north(1_000.0)).await;
        world.settle().await;
        let mut tablet = alice.on(&world.nodes[nodes - 1]);
        assert_eq!(tablet.watch().await.friends.len(), 0, "alice is nowhere yet");
        world.settle().await;
        assert_eq!(tablet.sees(&bob), None);
        alice.connect_at(north(0.0)).await;
        world.settle().await;
        assert_eq!(tablet.sees(&bob), Some(1_000.0), "alice's phone shares, her tablet watches");
        bob.at(north(1_500.0));
        world.settle().await;
        assert_eq!((tablet.sees(&bob), alice.sees(&bob)), (Some(1_500.0), Some(1_500.0)));
        alice.at(north(20_000.0));
        world.settle().await;
        assert_eq!(tablet.sees(&bob), None);
        let mut later = alice.on(&world.nodes[0]);
        alice.at(north(1_400.0));
        world.settle().await;
        assert_eq!(later.watch().await.friends.len(), 1, "what the cache knows of alice places her next device");
    }
}

#[tokio::test(start_paused = true)]
async fn of_two_devices_the_last_to_connect_shares_and_both_watch() {
    for nodes in [1, 2] {
        let world = World::new(nodes).await;
        let (mut alice, mut bob) = world.alice_and_bob().await;
        bob.connect_at(north(0.0)).await;
        alice.connect_at(north(1_000.0)).await;
        world.settle().await;
        assert_eq!(bob.sees(&alice), Some(1_000.0));
        world.wait(5).await;
        let mut second = alice.on(&world.nodes[nodes - 1]);
        second.connect_at(north(2_000.0)).await;
        world.settle().await;
        assert_eq!(bob.sees(&alice), Some(2_000.0));
        // The first does not know yet; at the latest the cache tells it.
        let first = alice.report(north(3_000.0));
        let _ = alice.send(&first);
        world.settle().await;
        assert_eq!(bob.sees(&alice), Some(2_000.0), "{nodes} nodes");
        world.wait(1).await;
        let again = alice.report(north(3_000.0));
        assert_eq!(alice.refused(&again), ErrorCode::NotSharing);
        second.at(north(2_100.0));
        world.settle().await;
        assert_eq!(bob.sees(&alice), Some(2_100.0));
        bob.at(north(100.0));
        world.settle().await;
        assert_eq!((alice.sees(&bob), second.sees(&bob)), (Some(2_000.0), Some(2_000.0)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_phone_whose_clock_is_behind_the_one_before_it_is_still_followed() {
    let world = World::new(2).await;
    let (mut alice, mut bob) = world.alice_and_bob().await;
    bob.connect_at(north(0.0)).await;
    alice.open();
    let ahead =
        Report { ts: world.clock.wall().after(std::time::Duration::from_secs(100)), ..alice.report(north(1_000.0)) };
    alice.init(&protocol::client::Init { report: Some(ahead), radius: None, limit: None }).await;
    world.settle().await;
    alice.disconnect().await;
    let mut next = alice.on(&world.nodes[1]);
    next.connect_at(north(2_000.0)).await;
    world.settle().await;
    bob.read();
    // The next device's time is earlier, its generation is newer.
    assert_eq!(bob.near[&alice.user].0, 2_000.0);
}

#[tokio::test(start_paused = true)]
async fn a_ninth_connection_replaces_the_first() {
    let world = World::new(1).await;
    let alice = world.person(0).await;
    let mut devices: Vec<Phone> = (0..9).map(|_| alice.second()).collect();
    devices.iter_mut().for_each(Phone::open);
    assert_eq!(devices[0].closing(), Some(CloseCode::Replaced));
    assert!(devices[1..].iter().all(|device| device.closing().is_none()));
}

#[tokio::test(start_paused = true)]
async fn posted_positions_move_their_user_and_are_durable() {
    for nodes in [1, 2] {
        let world = World::new(nodes).await;
        let (mut alice, mut bob) = world.alice_and_bob().await;
        alice.connect_at(north(0.0)).await;
        let reports = [1_000.0, 1_100.0, 1_200.0].map(|meters| bob.report(north(meters)));
        let reports: Vec<Report> = reports
            .into_iter()
            .enumerate()
            .map(|(at, report)| Report { ts: model::TimestampMs(report.ts.0 + at as u64), ..report })
            .collect();
        let node = &world.nodes[nodes - 1];
        node.record(bob.user, &reports, world.clock.monotonic()).await.unwrap();
        assert_eq!(world.recorded(&bob).await.len(), 3);
        world.settle().await;
        assert_eq!(alice.sees(&bob), Some(1_200.0));
        // Then bob opens the app.
        world.wait(10).await;
        bob.connect_at(north(500.0)).await;
        world.settle().await;
        assert_eq!(alice.sees(&bob), Some(500.0));
        world.wait(10).await;
        let later = bob.report(north(600.0));
        node.record(bob.user, &[later], world.clock.monotonic()).await.unwrap();
        world.settle().await;
        assert_eq!(alice.sees(&bob), Some(600.0), "posted by the same phone, beside its connection");
    }
}
