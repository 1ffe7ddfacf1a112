//! One update, from phone to phone.

use model::{Meters, TimestampMs};
use node::Settings;
use protocol::client::{ErrorCode, GoneReason, Init, Report};

use crate::phone::{Told, north, page_of};
use crate::world::World;

#[tokio::test(start_paused = true)]
async fn friends_see_each_other_come_move_and_leave_on_one_node_and_on_three() {
    for nodes in [1, 3] {
        let world = World::new(nodes).await;
        let (mut alice, mut bob) = world.alice_and_bob().await;
        alice.connect_at(north(0.0)).await;
        world.settle().await;
        let page = bob.connect_at(north(1_000.0)).await;
        assert_eq!(page.friends.len(), 1, "bob's first page has alice, {nodes} nodes");
        world.settle().await;
        assert_eq!(alice.sees(&bob), Some(1_000.0));
        bob.at(north(2_000.0));
        world.settle().await;
        assert_eq!(alice.sees(&bob), Some(2_000.0));
        // Five miles are 8,046.72 m.
        bob.at(north(8_046.0));
        world.settle().await;
        assert_eq!(alice.sees(&bob), Some(8_046.0));
        world.wait(1).await;
        bob.at(north(8_047.0));
        world.settle().await;
        assert_eq!(alice.sees(&bob), None);
        assert_eq!(alice.told, [Told::Gone(bob.user, GoneReason::OutOfRange)]);
        assert_eq!(bob.sees(&alice), None, "and bob, who left, sees alice gone");
    }
}

#[tokio::test(start_paused = true)]
async fn strangers_and_friends_of_friends_see_nothing() {
    let world = World::new(2).await;
    let (mut alice, mut bob) = world.alice_and_bob().await;
    let mut carol = world.person(1).await;
    world.befriend(&bob, &carol).await;
    alice.connect_at(north(0.0)).await;
    bob.connect_at(north(10.0)).await;
    carol.connect_at(north(20.0)).await;
    world.settle().await;
    assert_eq!((alice.sees(&bob), alice.sees(&carol)), (Some(10.0), None));
    assert_eq!((carol.sees(&bob), carol.sees(&alice)), (Some(10.0), None));
    assert_eq!((bob.sees(&alice), bob.sees(&carol)), (Some(10.0), Some(10.0)));
}

#[tokio::test(start_paused = true)]
async fn twenty_one_near_friends_are_a_page_of_twenty_more_and_pushes_beyond_it() {
    let world = World::new(2).await;
    let mut alice = world.person(0).await;
    let mut friends = Vec::new();
    for place in 1..=21 {
        let mut friend = world.person(place).await;
        world.befriend(&alice, &friend).await;
        friend.connect_at(north(place as f64 * 100.0)).await;
        friends.push(friend);
    }
    world.settle().await;
    let page = alice.connect_at(north(0.0)).await;
    let distances: Vec<f64> = page.friends.iter().map(|friend| friend.distance_m()).collect();
    assert_eq!(distances, (1..=20).map(|place| f64::from(place) * 100.0).collect::<Vec<_>>());
    world.settle().await;
    alice.read();
    assert_eq!(alice.near.len(), 20, "who is beyond the page and stands still is not pushed");
    friends[20].at(north(2_110.0));
    world.settle().await;
    assert_eq!(alice.sees(&friends[20]), Some(2_110.0), "who is beyond the page and moves is");
    let rest = alice.more(&page.next_cursor.unwrap());
    assert_eq!((rest.friends.len(), rest.next_cursor), (1, None));
    assert_eq!(rest.friends[0].id(), friends[20].user);
}

#[tokio::test(start_paused = true)]
async fn pages_have_the_length_that_was_asked_for_and_miss_nobody() {
    let world = World::new(1).await;
    let mut alice = world.person(0).await;
    for place in 0..7 {
        let mut friend = world.person(0).await;
        world.befriend(&alice, &friend).await;
        // Some at the very same spot: the id decides.
        friend.connect_at(north(f64::from(place / 3) * 50.0)).await;
    }
    world.settle().await;
    let report = alice.report(north(0.0));
    let mut page = alice.init(&Init { report: Some(report), radius: None, limit: page_of(2) }).await;
    let mut pages = 1;
    while let Some(cursor) = page.next_cursor {
        page = alice.more(&cursor);
        pages += 1;
    }
    assert_eq!((pages, alice.near.len()), (4, 7));
}

#[tokio::test(start_paused = true)]
async fn i_move_and_they_stand_still() {
    let world = World::new(2).await;
    let (mut alice, mut bob) = world.alice_and_bob().await;
    alice.connect_at(north(0.0)).await;
    bob.connect_at(north(9_000.0)).await;
    world.settle().await;
    assert_eq!(bob.sees(&alice), None);
    bob.at(north(5_000.0));
    world.settle().await;
    assert_eq!(bob.sees(&alice), Some(5_000.0), "alice did not move, and bob came near her");
    let pushes = bob.pushes;
    for step in 1..10 {
        world.wait(1).await;
        bob.at(north(5_000.0 - f64::from(step) * 100.0));
    }
    world.settle().await;
    bob.read();
    assert_eq!(bob.pushes, pushes, "the phone computes the distance of who stands still");
    bob.at(north(9_000.0));
    world.settle().await;
    assert_eq!(bob.sees(&alice), None);
    assert_eq!(bob.told, [Told::Gone(alice.user, GoneReason::OutOfRange)]);
}

#[tokio::test(start_paused = true)]
async fn another_radius() {
    let world = World::new(1).await;
    let (mut alice, mut bob) = world.alice_and_bob().await;
    alice.connect_at(north(0.0)).await;
    bob.connect_at(north(1_000.0)).await;
    world.settle().await;
    assert_eq!(alice.radius(999.9).friends.len(), 0);
    assert_eq!(alice.radius(1_000.1).friends.len(), 1);
    let report = alice.report(north(0.0));
    let mut again = alice.second();
    let near = again.init(&Init { report: Some(report), radius: Some(Meters(500.0)), limit: None }).await;
    assert_eq!((near.friends.len(), near.radius_m), (0, 500.0));
}

#[tokio::test(start_paused = true)]
async fn a_slow_phone_gets_the_newest_of_each_and_not_all() {
    let world = World::new(2).await;
    let (mut alice, mut bob) = world.alice_and_bob().await;
    alice.connect_at(north(0.0)).await;
    bob.connect_at(north(1_000.0)).await;
    world.settle().await;
    alice.read();
    let pushes = alice.pushes;
    for step in 1..=50 {
        world.wait(1).await;
        bob.at(north(1_000.0 + f64::from(step)));
    }
    world.settle().await;
    assert_eq!(alice.sees(&bob), Some(1_050.0));
    assert_eq!(alice.pushes, pushes + 1);
}

#[tokio::test(start_paused = true)]
async fn the_same_point_twice_and_an_old_one_move_nobody_and_are_remembered() {
    let world = World::new(2).await;
    let (mut alice, mut bob) = world.alice_and_bob().await;
    alice.connect_at(north(0.0)).await;
    bob.connect_at(north(1_000.0)).await;
    world.wait(60).await;
    let report = bob.report(north(2_000.0));
    bob.send(&report).unwrap();
    world.settle().await;
    assert_eq!(alice.sees(&bob), Some(2_000.0));
    let pushes = alice.pushes;
    bob.send(&report).unwrap();
    let old = Report { ts: TimestampMs(report.ts.0 - 30_000), ..bob.report(north(3_000.0)) };
    bob.send(&old).unwrap();
    world.settle().await;
    assert_eq!((alice.sees(&bob), alice.pushes), (Some(2_000.0), pushes));
    world.wait(1).await;
    assert!(world.recorded(&bob).await.contains(&old.ts.0), "what a phone kept while offline is history");
    assert_eq!(world.recorded(&bob).await.iter().filter(|ts| **ts == report.ts.0).count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_point_from_the_future_or_from_long_ago_is_refused_and_changes_nothing() {
    let world = World::new(1).await;
    let (mut alice, mut bob) = world.alice_and_bob().await;
    alice.connect_at(north(0.0)).await;
    bob.connect_at(north(1_000.0)).await;
    world.settle().await;
    let now = world.clock.wall();
    for ts in [now.0 + 121_000, now.0 - 31 * 86_400_000, now.0 / 1_000] {
        let wrong = Report { ts: TimestampMs(ts), ..bob.report(north(5.0)) };
        assert_eq!(bob.refused(&wrong), ErrorCode::BadValue, "{ts}");
    }
    world.settle().await;
    assert_eq!(alice.sees(&bob), Some(1_000.0));
    let ahead = Report { ts: TimestampMs(now.0 + 119_000), ..bob.report(north(1_100.0)) };
    bob.send(&ahead).unwrap();
    world.settle().await;
    assert_eq!(alice.sees(&bob), Some(1_100.0), "a clock that is a little ahead is a phone's");
}

#[tokio::test(start_paused = true)]
async fn above_the_rate_a_position_is_dropped_with_an_error() {
    let settings = Settings { updates_per_second: 2.0, update_burst: 3, ..Settings::default() };
    let world = World::with(1, settings).await;
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
    world.settle().await;
    assert_eq!(alice.sees(&bob), Some(1_003.0));
    world.wait(1).await;
    bob.at(north(1_200.0));
    world.settle().await;
    assert_eq!(alice.sees(&bob), Some(1_200.0));
}
