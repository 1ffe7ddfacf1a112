//! Reports that come again, late, or by a clock that is wrong.

use std::time::Duration;

use model::{Position, TimestampMs};
use node::Settings;
use protocol::client::{Init, NoticeCode, Report};
use tokio::time::sleep;

use crate::foundation::SILENCE;
use crate::phone::{Phone, north};
use crate::world::{World, settings};

scenarios! {
    a_phone_that_rests_is_seen_as_long_as_it_repeats_its_report on [1, 2], with until_silent();
    a_phone_that_rests_and_only_posts_is_seen_as_long_as_it_repeats_its_report on [1, 2], with until_silent();
    a_phone_whose_clock_was_set_back_is_seen_once_its_old_position_has_expired on [1, 2], with until_silent();
    a_queue_of_last_months_points_is_remembered_and_moves_nobody on [1, 2];
    a_phone_whose_clock_is_an_hour_slow_is_seen_if_it_says_so on [1, 2];
    a_phone_that_connects_with_an_old_position_shares_from_its_next_one_on on [1, 2];
    of_several_reports_of_one_time_the_last_is_shown_and_remembered on [1, 2];
}

/// Ten minutes, or what stands for them.
fn until_silent() -> Settings {
    Settings { ttl: SILENCE, ..settings() }
}

const DAY_MS: u64 = 86_400_000;

fn init(report: Report) -> Init {
    Init { report: Some(report), radius: None, limit: None }
}

/// What the history holds of somebody at this time.
async fn remembered(world: &World, person: &Phone, ts: TimestampMs) -> Option<Position> {
    let history = &world.backends[0].history;
    let points = history.range(person.user, ts, TimestampMs(ts.0 + 1), 1).await.unwrap();
    points.first().map(|point| point.position)
}

async fn a_phone_that_rests_is_seen_as_long_as_it_repeats_its_report(world: &World) {
    let (mut alice, mut bob) = world.alice_and_bob().await;
    let mut carol = world.person(1).await;
    world.befriend(&alice, &carol).await;
    bob.connect_at(north(0.0)).await;
    let resting = alice.report(north(1_000.0));
    alice.init(&init(resting)).await;
    bob.comes_to_see(&alice, 1_000.0).await;
    // Three times as long as a position lives.
    for turn in 0..12 {
        sleep(SILENCE / 4).await;
        if turn == 6 {
            // The phone changes networks, and a viewer comes who knows her from the cache only.
            alice = alice.on(world.last_node());
            alice.init(&init(resting)).await;
            carol.connect_at(north(0.0)).await;
        }
        alice.send(&resting).unwrap();
        world.settle().await;
        assert_eq!((bob.sees(&alice), bob.pushes), (Some(1_000.0), 1), "turn {turn}: {:?}", bob.told);
    }
    assert_eq!(bob.near[&alice.user].1, resting.ts.0, "the time is that of the position");
    carol.comes_to_see(&alice, 1_000.0).await;
    assert_eq!(alice.notice(), None);
    // And then the phone is switched off.
    alice.disconnect().await;
    bob.reads_until(SILENCE + Duration::from_secs(5), |bob| bob.near.is_empty()).await;
}

async fn a_phone_that_rests_and_only_posts_is_seen_as_long_as_it_repeats_its_report(world: &World) {
    let (alice, mut bob) = world.alice_and_bob().await;
    bob.connect_at(north(0.0)).await;
    let resting = alice.report(north(1_000.0));
    for turn in 0..12 {
        let node = &world.nodes[turn % world.nodes.len()];
        assert_eq!(node.record(alice.user, &[resting], world.clock.monotonic()).await.unwrap(), [], "turn {turn}");
        bob.comes_to_see(&alice, 1_000.0).await;
        assert_eq!(bob.pushes, 1, "turn {turn}: {:?}", bob.told);
        sleep(SILENCE / 4).await;
    }
}

async fn a_phone_whose_clock_was_set_back_is_seen_once_its_old_position_has_expired(world: &World) {
    let (mut bob, mut carol) = world.alice_and_bob().await;
    carol.connect_at(north(0.0)).await;
    let ahead = Report { ts: world.clock.wall().after(Duration::from_secs(100)), ..bob.report(north(1_000.0)) };
    bob.init(&init(ahead)).await;
    carol.comes_to_see(&bob, 1_000.0).await;
    // The clock is set right: earlier than the position before, which still lives.
    let right = bob.report(north(1_100.0));
    assert!(right.ts < ahead.ts);
    bob.send(&right).unwrap();
    world.settle().await;
    assert_eq!(carol.sees(&bob), Some(1_000.0));
    carol.reads_until(SILENCE + Duration::from_secs(5), |carol| carol.near.is_empty()).await;
    // Set back by five minutes more, as the phone itself says.
    let clock = TimestampMs(ahead.ts.0 - 300_000);
    let back = Report { ts: clock, sent_at: Some(clock), ..bob.report(north(1_200.0)) };
    bob.send(&back).unwrap();
    carol.comes_to_see(&bob, 1_200.0).await;
    assert_eq!(carol.near[&bob.user].1, back.ts.0);
    let next = Report { ts: TimestampMs(clock.0 + 1), sent_at: Some(clock), ..bob.report(north(1_300.0)) };
    bob.send(&next).unwrap();
    carol.comes_to_see(&bob, 1_300.0).await;
    assert_eq!(bob.notice(), None);
}

async fn a_queue_of_last_months_points_is_remembered_and_moves_nobody(world: &World) {
    let (mut alice, mut bob) = world.alice_and_bob().await;
    let dave = world.person(1).await;
    world.befriend(&alice, &dave).await;
    alice.connect_at(north(0.0)).await;
    bob.connect_at(north(1_000.0)).await;
    alice.comes_to_see(&bob, 1_000.0).await;
    let begun = world.clock.wall().0 - 20 * DAY_MS;
    let queue: Vec<Report> = (0..100u32)
        .map(|nth| Report {
            ts: TimestampMs(begun + u64::from(nth) * 1_000),
            ..bob.report(north(500.0 + f64::from(nth)))
        })
        .collect();
    let (by_socket, by_post) = queue.split_at(40);
    for report in by_socket {
        bob.send(report).unwrap();
    }
    assert_eq!(bob.notice(), Some(NoticeCode::TooOld));
    bob.send(&by_socket[0]).unwrap();
    assert_eq!(bob.notice(), None, "told once a connection");
    // Beside the connection; and by somebody who has none, of whom nothing is held.
    for person in [&bob, &dave] {
        let notices = world.last_node().record(person.user, by_post, world.clock.monotonic()).await.unwrap();
        let indexes: Vec<usize> = notices.iter().map(|(index, _)| *index).collect();
        assert_eq!(indexes, (0..by_post.len()).collect::<Vec<_>>());
    }
    world.until("everything is remembered", async || world.recorded(&bob).await.len() == 101).await;
    assert_eq!(world.recorded(&dave).await.len(), by_post.len());
    world.settle().await;
    assert_eq!((alice.sees(&bob), alice.sees(&dave), alice.pushes), (Some(1_000.0), None, 1));
    // A queue that ends in the present does move its user.
    let now = dave.report(north(700.0));
    let notices = world.last_node().record(dave.user, &[by_post[0], now], world.clock.monotonic()).await.unwrap();
    assert_eq!(notices.iter().map(|(index, _)| *index).collect::<Vec<_>>(), [0]);
    alice.comes_to_see(&dave, 700.0).await;
}

async fn a_phone_whose_clock_is_an_hour_slow_is_seen_if_it_says_so(world: &World) {
    let (mut alice, mut bob) = world.alice_and_bob().await;
    alice.connect_at(north(0.0)).await;
    let slow = |report: Report| Report { ts: TimestampMs(report.ts.0 - 3_600_000), ..report };
    let unsaid = slow(bob.report(north(1_000.0)));
    bob.init(&init(unsaid)).await;
    world.settle().await;
    assert_eq!((alice.sees(&bob), bob.notice()), (None, Some(NoticeCode::TooOld)));
    let said = slow(bob.report(north(1_100.0)));
    bob.send(&Report { sent_at: Some(TimestampMs(said.ts.0 + 5_000)), ..said }).unwrap();
    alice.comes_to_see(&bob, 1_100.0).await;
    let (posted, late) = (slow(bob.report(north(1_200.0))), slow(bob.report(north(1_300.0))));
    let posted = Report { ts: TimestampMs(posted.ts.0 + 1_000), sent_at: Some(posted.ts), ..posted };
    let late = Report { ts: TimestampMs(late.ts.0 + 2_000), sent_at: Some(TimestampMs(late.ts.0 + 1_000_000)), ..late };
    let notices = world.last_node().record(bob.user, &[posted, late], world.clock.monotonic()).await.unwrap();
    assert_eq!(notices.iter().map(|(index, _)| *index).collect::<Vec<_>>(), [1], "it waited for longer than is shown");
    alice.comes_to_see(&bob, 1_200.0).await;
}

async fn a_phone_that_connects_with_an_old_position_shares_from_its_next_one_on(world: &World) {
    let (mut alice, mut bob) = world.alice_and_bob().await;
    alice.connect_at(north(0.0)).await;
    world.cached([&alice]).await;
    let mut tablet = bob.on(&world.nodes[0]);
    tablet.connect_at(north(2_000.0)).await;
    alice.comes_to_see(&tablet, 2_000.0).await;
    let old = bob.report(north(1_000.0));
    let old = Report { ts: TimestampMs(old.ts.0 - DAY_MS), ..old };
    assert_eq!(bob.init(&init(old)).await.friends.len(), 0, "the server does not know where the phone is");
    assert_eq!(bob.notice(), Some(NoticeCode::TooOld));
    world.until("the old one is recorded", async || world.recorded(&bob).await.contains(&old.ts.0)).await;
    world.settle().await;
    assert_eq!(alice.sees(&bob), Some(2_000.0), "where the tablet was last");
    bob.at(north(1_100.0));
    alice.comes_to_see(&bob, 1_100.0).await;
    bob.comes_to_see(&alice, 1_100.0).await;
    assert_eq!(bob.notice(), None);
}

async fn of_several_reports_of_one_time_the_last_is_shown_and_remembered(world: &World) {
    let (mut alice, mut bob) = world.alice_and_bob().await;
    alice.connect_at(north(0.0)).await;
    bob.connect_at(north(1_000.0)).await;
    alice.comes_to_see(&bob, 1_000.0).await;
    let first = Report { ts: TimestampMs(bob.report(north(0.0)).ts.0 + 1), ..bob.report(north(1_100.0)) };
    let at = |meters: f64| Report { position: north(meters), ..first };
    let last_is = async |meters: f64, alice: &mut Phone, bob: &Phone| {
        alice.comes_to_see(bob, meters).await;
        let last = Some(north(meters));
        world.until("the last is remembered", async || remembered(world, bob, first.ts).await == last).await;
        let cached = async || world.backends[0].cache.get_many(&[bob.user]).await.unwrap()[0];
        world.until("the last is cached", async || cached().await.map(|fix| fix.place.position()) == last).await;
    };
    bob.send(&first).unwrap();
    bob.send(&at(1_200.0)).unwrap();
    last_is(1_200.0, &mut alice, &bob).await;
    // Posted, beside the connection.
    let posted = [at(1_250.0), at(1_300.0)];
    world.last_node().record(bob.user, &posted, world.clock.monotonic()).await.unwrap();
    last_is(1_300.0, &mut alice, &bob).await;
    bob.send(&at(1_400.0)).unwrap();
    last_is(1_400.0, &mut alice, &bob).await;
    // Once a later one is shown, what comes of the time before is only remembered: the last of it.
    let later = Report { ts: TimestampMs(first.ts.0 + 1), ..at(1_500.0) };
    bob.send(&later).unwrap();
    for meters in [1_600.0, 1_700.0] {
        bob.send(&at(meters)).unwrap();
    }
    let last = Some(north(1_700.0));
    world.until("the last is remembered", async || remembered(world, &bob, first.ts).await == last).await;
    alice.comes_to_see(&bob, 1_500.0).await;
}
