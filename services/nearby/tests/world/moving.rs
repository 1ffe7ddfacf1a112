//! One update, from phone to phone.

use model::{Meters, TimestampMs};
use node::Settings;
use protocol::client::{ErrorCode, GoneReason, Init, Report};

use crate::phone::{Told, north, page_of};
use crate::world::{World, settings};

scenarios! {
    friends_see_each_other_come_move_and_leave on [1, 3];
    strangers_and_friends_of_friends_see_nothing on [2];
    twenty_one_near_friends_are_a_page_of_twenty_more_and_pushes_beyond_it on [2];
    pages_have_the_length_that_was_asked_for_and_miss_nobody on [1];
    i_move_and_they_stand_still on [2];
    another_radius on [1];
    a_slow_phone_gets_the_newest_of_each_and_not_all on [2];
    the_same_point_twice_and_an_old_one_move_nobody_and_are_remembered on [2];
    a_point_from_the_future_or_from_long_ago_is_refused_and_changes_nothing on [1];
    above_the_rate_a_position_is_dropped_with_an_error on [1], with two_a_second();
}

async fn friends_see_each_other_come_move_and_leave(world: &World) {
    let (mut alice, mut bob) = world.alice_and_bob().await;
    alice.connect_at(north(0.0)).await;
    world.cached([&alice]).await;
    // Bob's first page has her.
    bob.connect_to_see(north(1_000.0), None, 1).await;
    alice.comes_to_see(&bob, 1_000.0).await;
    bob.at(north(2_000.0));
    alice.comes_to_see(&bob, 2_000.0).await;
    // Five miles are 8,046.72 m.
    bob.at(north(8_046.0));
    alice.comes_to_see(&bob, 8_046.0).await;
    assert_eq!(alice.told, []);
    bob.at(north(8_047.0));
    alice.loses(&bob).await;
    assert_eq!(alice.told, [Told::Gone(bob.user, GoneReason::OutOfRange)]);
    assert_eq!(bob.sees(&alice), None, "and bob, who left, sees alice gone");
}

async fn strangers_and_friends_of_friends_see_nothing(world: &World) {
    let (mut alice, mut bob) = world.alice_and_bob().await;
    let mut carol = world.person(1).await;
    world.befriend(&bob, &carol).await;
    alice.connect_at(north(0.0)).await;
    bob.connect_at(north(10.0)).await;
    carol.connect_at(north(20.0)).await;
    alice.comes_to_see(&bob, 10.0).await;
    carol.comes_to_see(&bob, 10.0).await;
    bob.comes_to_see(&alice, 10.0).await;
    bob.comes_to_see(&carol, 10.0).await;
    world.settle().await;
    assert_eq!((alice.sees(&carol), carol.sees(&alice)), (None, None));
    assert_eq!((alice.near.len(), carol.near.len(), bob.near.len()), (1, 1, 2));
}

async fn twenty_one_near_friends_are_a_page_of_twenty_more_and_pushes_beyond_it(world: &World) {
    let mut alice = world.person(0).await;
    let mut friends = Vec::new();
    for place in 1..=21 {
        let mut friend = world.person(place).await;
        world.befriend(&alice, &friend).await;
        friend.connect_at(north(place as f64 * 100.0)).await;
        friends.push(friend);
    }
    world.cached(&friends).await;
    let page = alice.connect_to_see(north(0.0), None, 20).await;
    let distances: Vec<f64> = page.friends.iter().map(|friend| friend.distance_m()).collect();
    assert_eq!(distances, (1..=20).map(|place| f64::from(place) * 100.0).collect::<Vec<_>>());
    world.settle().await;
    alice.read();
    assert_eq!(alice.near.len(), 20, "who is beyond the page and stands still is not pushed");
    friends[20].at(north(2_110.0));
    // Who is beyond the page and moves is.
    alice.comes_to_see(&friends[20], 2_110.0).await;
    let rest = alice.more(&page.next_cursor.unwrap());
    assert_eq!((rest.friends.len(), rest.next_cursor), (1, None));
    assert_eq!(rest.friends[0].id(), friends[20].user);
}

async fn pages_have_the_length_that_was_asked_for_and_miss_nobody(world: &World) {
    let mut alice = world.person(0).await;
    let mut friends = Vec::new();
    for place in 0..7 {
        let mut friend = world.person(0).await;
        world.befriend(&alice, &friend).await;
        // Some at the very same spot: the id decides.
        friend.connect_at(north(f64::from(place / 3) * 50.0)).await;
        friends.push(friend);
    }
    world.cached(&friends).await;
    // A first time, so that the node knows them all.
    alice.connect_to_see(north(0.0), None, 7).await;
    let mut page = alice.connect_to_see(north(0.0), page_of(2), 2).await;
    let mut pages = 1;
    while let Some(cursor) = page.next_cursor {
        page = alice.more(&cursor);
        pages += 1;
    }
    assert_eq!((pages, alice.near.len()), (4, 7));
}

async fn i_move_and_they_stand_still(world: &World) {
    let (mut alice, mut bob) = world.alice_and_bob().await;
    alice.connect_at(north(0.0)).await;
    world.cached([&alice]).await;
    bob.connect_at(north(9_000.0)).await;
    world.settle().await;
    assert_eq!(bob.sees(&alice), None);
    bob.at(north(5_000.0));
    // She did not move, and he came near her.
    bob.comes_to_see(&alice, 5_000.0).await;
    let pushes = bob.pushes;
    for step in 1..10 {
        bob.at(north(5_000.0 - f64::from(step) * 100.0));
        alice.comes_to_see(&bob, 5_000.0 - f64::from(step) * 100.0).await;
    }
    bob.read();
    assert_eq!(bob.pushes, pushes, "the phone computes the distance of who stands still");
    bob.at(north(9_000.0));
    bob.loses(&alice).await;
    assert_eq!(bob.told, [Told::Gone(alice.user, GoneReason::OutOfRange)]);
}

async fn another_radius(world: &World) {
    let (mut alice, mut bob) = world.alice_and_bob().await;
    alice.connect_at(north(0.0)).await;
    bob.connect_at(north(1_000.0)).await;
    alice.comes_to_see(&bob, 1_000.0).await;
    assert_eq!(alice.radius(999.9).friends.len(), 0);
    assert_eq!(alice.radius(1_000.1).friends.len(), 1);
    let report = alice.report(north(0.0));
    let mut again = alice.second();
    let near = again.init(&Init { report: Some(report), radius: Some(Meters(500.0)), limit: None }).await;
    assert_eq!((near.friends.len(), near.radius_m), (0, 500.0));
}

async fn a_slow_phone_gets_the_newest_of_each_and_not_all(world: &World) {
    let (mut alice, mut bob) = world.alice_and_bob().await;
    let mut witness = world.witness(0, &bob).await;
    alice.connect_at(north(0.0)).await;
    bob.connect_at(north(1_000.0)).await;
    alice.comes_to_see(&bob, 1_000.0).await;
    let pushes = alice.pushes;
    for step in 1..=50 {
        bob.at(north(1_000.0 + f64::from(step)));
        // Who reads each of them; alice reads none.
        witness.comes_to_see(&bob, 1_000.0 + f64::from(step)).await;
    }
    alice.comes_to_see(&bob, 1_050.0).await;
    world.settle().await;
    alice.read();
    assert_eq!(alice.pushes, pushes + 1);
}

async fn the_same_point_twice_and_an_old_one_move_nobody_and_are_remembered(world: &World) {
    let (mut alice, mut bob) = world.alice_and_bob().await;
    alice.connect_at(north(0.0)).await;
    bob.connect_at(north(1_000.0)).await;
    alice.comes_to_see(&bob, 1_000.0).await;
    let report = bob.report(north(2_000.0));
    bob.send(&report).unwrap();
    alice.comes_to_see(&bob, 2_000.0).await;
    let pushes = alice.pushes;
    bob.send(&report).unwrap();
    let old = Report { ts: TimestampMs(report.ts.0 - 30_000), ..bob.report(north(3_000.0)) };
    bob.send(&old).unwrap();
    // What a phone kept while it was offline is history.
    world.until("the old one is recorded", async || world.recorded(&bob).await.contains(&old.ts.0)).await;
    world.settle().await;
    assert_eq!((alice.sees(&bob), alice.pushes), (Some(2_000.0), pushes));
    assert_eq!(world.recorded(&bob).await.iter().filter(|ts| **ts == report.ts.0).count(), 1);
}

async fn a_point_from_the_future_or_from_long_ago_is_refused_and_changes_nothing(world: &World) {
    let (mut alice, mut bob) = world.alice_and_bob().await;
    alice.connect_at(north(0.0)).await;
    bob.connect_at(north(1_000.0)).await;
    alice.comes_to_see(&bob, 1_000.0).await;
    let now = world.clock.wall();
    for ts in [now.0 + 125_000, now.0 - 31 * 86_400_000, now.0 / 1_000] {
        let wrong = Report { ts: TimestampMs(ts), ..bob.report(north(5.0)) };
        assert_eq!(bob.refused(&wrong), ErrorCode::BadValue, "{ts}");
    }
    world.settle().await;
    assert_eq!(alice.sees(&bob), Some(1_000.0));
    // A clock that is a little ahead is a phone's.
    let ahead = Report { ts: TimestampMs(now.0 + 119_000), ..bob.report(north(1_100.0)) };
    bob.send(&ahead).unwrap();
    alice.comes_to_see(&bob, 1_100.0).await;
}

fn two_a_second() -> Settings {
    Settings { updates_per_second: 2.0, update_burst: 3, ..settings() }
}

async fn above_the_rate_a_position_is_dropped_with_an_error(world: &World) {
    let (mut alice, mut bob) = world.alice_and_bob().await;
    alice.connect_at(north(0.0)).await;
    bob.connect_at(north(1_000.0)).await;
    let mut report = bob.report(north(1_000.0));
    for step in 1..=3 {
        report = Report { ts: TimestampMs(report.ts.0 + 1), position: north(1_000.0 + f64::from(step)), ..report };
        bob.send(&report).unwrap();
    }
    let fourth = Report { ts: TimestampMs(report.ts.0 + 1), position: north(5.0), ..report };
    assert_eq!(bob.refused(&fourth), ErrorCode::RateLimited);
    alice.comes_to_see(&bob, 1_003.0).await;
    tokio::time::sleep(std::time::Duration::from_millis(600)).await;
    assert_eq!(alice.sees(&bob), Some(1_003.0));
    bob.at(north(1_200.0));
    alice.comes_to_see(&bob, 1_200.0).await;
}
