//! Several devices of one user, viewers without a position, posted positions.

use std::time::Duration;

use model::TimestampMs;
use protocol::client::{ErrorCode, Init, Report};

use crate::phone::north;
use crate::world::World;

scenarios! {
    a_viewer_without_a_position_uses_its_users_own_newest on [1, 2];
    of_two_devices_the_last_to_connect_shares_and_both_watch on [1, 2];
    a_phone_whose_clock_is_behind_the_one_before_it_is_still_followed on [2];
    posted_positions_move_their_user_and_are_durable on [1, 2];
    a_position_posted_elsewhere_moves_the_phone_that_shares on [2];
    a_phone_is_told_that_another_one_shares_before_it_moves on [2];
}

async fn a_viewer_without_a_position_uses_its_users_own_newest(world: &World) {
    let (mut alice, mut bob) = world.alice_and_bob().await;
    bob.connect_at(north(1_000.0)).await;
    world.cached([&bob]).await;
    let mut tablet = alice.on(world.last_node());
    assert_eq!(tablet.watch().await.friends.len(), 0, "alice is nowhere yet");
    world.settle().await;
    assert_eq!(tablet.sees(&bob), None);
    alice.connect_at(north(0.0)).await;
    // Alice's phone shares, her tablet watches.
    tablet.comes_to_see(&bob, 1_000.0).await;
    bob.at(north(1_500.0));
    tablet.comes_to_see(&bob, 1_500.0).await;
    alice.comes_to_see(&bob, 1_500.0).await;
    alice.at(north(20_000.0));
    tablet.loses(&bob).await;
    let mut later = alice.on(&world.nodes[0]);
    alice.at(north(1_400.0));
    tablet.comes_to_see(&bob, 100.0).await;
    // What the cache knows of alice places her next device.
    later.watch().await;
    later.comes_to_see(&bob, 100.0).await;
}

async fn of_two_devices_the_last_to_connect_shares_and_both_watch(world: &World) {
    let (mut alice, mut bob) = world.alice_and_bob().await;
    bob.connect_at(north(0.0)).await;
    alice.connect_at(north(1_000.0)).await;
    bob.comes_to_see(&alice, 1_000.0).await;
    let mut second = alice.on(world.last_node());
    second.connect_at(north(2_000.0)).await;
    bob.comes_to_see(&alice, 2_000.0).await;
    // The first may not know yet; at the latest the cache tells it.
    let first = alice.report(north(3_000.0));
    let _ = alice.send(&first);
    world.until("the first is told", async || alice.send(&alice.report(north(3_000.0))).is_err()).await;
    world.settle().await;
    assert_eq!(bob.sees(&alice), Some(2_000.0));
    let again = alice.report(north(3_000.0));
    assert_eq!(alice.refused(&again), ErrorCode::NotSharing);
    second.at(north(2_100.0));
    bob.comes_to_see(&alice, 2_100.0).await;
    bob.at(north(100.0));
    alice.comes_to_see(&bob, 2_000.0).await;
    second.comes_to_see(&bob, 2_000.0).await;
}

async fn a_phone_whose_clock_is_behind_the_one_before_it_is_still_followed(world: &World) {
    let (mut alice, mut bob) = world.alice_and_bob().await;
    bob.connect_at(north(0.0)).await;
    let ahead = world.clock.wall().after(Duration::from_secs(100));
    let ahead = Report { ts: ahead, ..alice.report(north(1_000.0)) };
    alice.init(&Init { report: Some(ahead), radius: None, limit: None }).await;
    bob.comes_to_see(&alice, 1_000.0).await;
    alice.disconnect().await;
    // A phone knows no generations: it would take an earlier time for a step back.
    bob.near.clear();
    let mut next = alice.on(world.last_node());
    next.connect_at(north(2_000.0)).await;
    // The next device's time is earlier, its generation is newer.
    bob.comes_to_see(&alice, 2_000.0).await;
}

async fn posted_positions_move_their_user_and_are_durable(world: &World) {
    let (mut alice, mut bob) = world.alice_and_bob().await;
    alice.connect_at(north(0.0)).await;
    let reports = [1_000.0, 1_100.0, 1_200.0].map(|meters| bob.report(north(meters)));
    let reports: Vec<Report> = reports
        .into_iter()
        .enumerate()
        .map(|(at, report)| Report { ts: TimestampMs(report.ts.0 + at as u64), ..report })
        .collect();
    let node = world.last_node();
    node.record(bob.user, &reports, world.clock.monotonic()).await.unwrap();
    assert_eq!(world.recorded(&bob).await.len(), 3);
    alice.comes_to_see(&bob, 1_200.0).await;
    world.settle().await;
    // Then bob opens the app.
    bob.connect_at(north(500.0)).await;
    alice.comes_to_see(&bob, 500.0).await;
    world.settle().await;
    let later = bob.report(north(600.0));
    node.record(bob.user, &[later], world.clock.monotonic()).await.unwrap();
    // Posted by the same phone, beside its connection.
    alice.comes_to_see(&bob, 600.0).await;
}

async fn a_position_posted_elsewhere_moves_the_phone_that_shares(world: &World) {
    let (mut alice, mut bob) = world.alice_and_bob().await;
    bob.connect_at(north(20_000.0)).await;
    alice.connect_at(north(0.0)).await;
    world.cached([&alice, &bob]).await;
    assert_eq!(alice.sees(&bob), None, "too far");
    let posted = alice.report(north(19_000.0));
    let later = Report { ts: TimestampMs(posted.ts.0 + 1_000), ..posted };
    world.last_node().record(alice.user, &[later], world.clock.monotonic()).await.unwrap();
    alice.comes_to_see(&bob, 1_000.0).await;
}

async fn a_phone_is_told_that_another_one_shares_before_it_moves(world: &World) {
    let (mut alice, _bob) = world.alice_and_bob().await;
    alice.connect_at(north(0.0)).await;
    let mut second = alice.on(world.last_node());
    second.connect_at(north(1_000.0)).await;
    world.settle().await;
    // Its first word since; nothing that it sent has told it.
    let report = alice.report(north(0.0));
    assert_eq!(alice.refused(&report), ErrorCode::NotSharing);
}
