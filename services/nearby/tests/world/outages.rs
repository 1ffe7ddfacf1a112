//! After an outage everything is as before: what was missed is made up for once, and not for ever.

use std::time::Duration;

use axum::http::Method;
use model::{Fix, Generation, MonotonicMs, Motion, Order, Place, PolicyVersion, SessionId, TimestampMs, UserId};
use node::Settings;
use ports::embedded::Health;
use ports::{LocationCache, SessionKey, Sessions};
use tokio::time::{Instant, sleep};

use crate::phone::{LOOK_EVERY, Phone, north};
use crate::world::World;

/// So many strangers, all sharing from the first node.
async fn crowd(world: &World, people: usize) -> Vec<Phone> {
    let mut crowd = Vec::new();
    for user in 0..people as u64 {
        let mut phone = Phone::of(UserId(1_000_000 + user), world.nodes[0].clone(), world.clock);
        phone.connect_at(north(user as f64)).await;
        crowd.push(phone);
    }
    crowd
}

/// A seventh of them moves each second.
async fn move_on(world: &World, crowd: &mut [Phone], seconds: usize, meters: f64) -> u64 {
    let mut updates = 0;
    for second in 0..seconds {
        for phone in crowd.iter_mut().skip(second % 7).step_by(7) {
            phone.at(north(meters + second as f64));
            updates += 1;
        }
        world.wait(1).await;
    }
    updates
}

/// More people share from one gateway than any queue of positions held, and the cache is away for 9 s. Everybody was
/// published again and again, 15 times for each update, for the rest of the run.
#[tokio::test(start_paused = true)]
async fn after_an_outage_of_the_cache_each_update_is_published_once() {
    // A few, and as many as a large gateway has; the first two shards are more than full with them.
    for (people, sick) in [(10, Health::Frozen), (200, Health::Mute), (17_500, Health::Frozen), (17_500, Health::Down)]
    {
        let world = World::with(1, Settings { updates_per_second: 1e6, ..Settings::default() }).await;
        let mut crowd = crowd(&world, people).await;
        world.wait(5).await;
        let published = || world.foundation.brokers[0].published();
        let before = published();
        let updates = move_on(&world, &mut crowd, 7, 1_000.0).await;
        assert_eq!(published() - before, updates, "{people} people before the outage");

        world.foundation.cache.set_health(sick);
        let before = published();
        let updates = move_on(&world, &mut crowd, 9, 2_000.0).await;
        assert_eq!(published() - before, updates, "{people} people, {sick:?}: live pushes go on");
        world.foundation.cache.set_health(Health::Up);
        world.wait(10).await;
        assert!(published() - before <= updates + people as u64, "{people} people, {sick:?}: once more each");

        let users: Vec<UserId> = crowd.iter().map(|phone| phone.user).collect();
        let cached = world.foundation.cache.get_many(&users).await.unwrap();
        for (phone, fix) in crowd.iter().zip(cached) {
            assert_eq!(fix.map(|fix| fix.order.ts), Some(TimestampMs(phone.sent_at)), "the cache was given the newest");
        }
        let (sent, queued, owed) = world.nodes[0].outgoing();
        assert_eq!((queued, owed), (0, 0), "{people} people, {sick:?}: {sent:?}");
        let before = published();
        let updates = move_on(&world, &mut crowd, 7, 3_000.0).await;
        world.wait(5).await;
        assert_eq!(published() - before, updates, "{people} people, {sick:?}: ten seconds after the outage");
    }
}

/// A change of the ring asks for everybody's last position at once.
#[tokio::test(start_paused = true)]
async fn after_a_change_of_routing_everybody_is_published_once_more() {
    for people in [5, 17_500] {
        let world = World::with(1, Settings { updates_per_second: 1e6, ..Settings::default() }).await;
        let mut crowd = crowd(&world, people).await;
        world.wait(5).await;
        let published = || world.foundation.brokers[0].published();
        let before = published();
        for _ in 0..3 {
            world.foundation.bus.change_routing();
        }
        world.wait(5).await;
        let again = published() - before;
        assert!((people as u64..=3 * people as u64).contains(&again), "{again} of {people}");
        let before = published();
        let updates = move_on(&world, &mut crowd, 7, 1_000.0).await;
        assert_eq!(published() - before, updates);
    }
}

#[tokio::test(start_paused = true)]
async fn who_only_posts_is_published_again_too() {
    let world = World::new(2).await;
    let (mut alice, bob) = world.alice_and_bob().await;
    alice.connect_at(north(0.0)).await;
    let post = async |meters| {
        world.nodes[1].record(bob.user, &[bob.report(north(meters))], world.clock.monotonic()).await.unwrap();
        world.settle().await;
    };
    post(100.0).await;
    assert_eq!(alice.sees(&bob), Some(100.0));
    // Taken by a server that others have left: only publishing again helps.
    world.foundation.brokers[1].misdirect_next(1);
    world.wait(1).await;
    post(200.0).await;
    assert_eq!(alice.sees(&bob), Some(200.0));

    world.foundation.cache.set_health(Health::Down);
    post(300.0).await;
    world.foundation.cache.set_health(Health::Up);
    world.wait(3).await;
    let cached = world.foundation.cache.get_many(&[bob.user]).await.unwrap();
    assert_eq!(cached[0].map(|fix| fix.place.position()), Some(north(300.0)));
}

/// A phone that is gone by the time the cache is back.
#[tokio::test(start_paused = true)]
async fn the_last_position_of_who_left_during_an_outage_is_found_by_who_connects_later() {
    let world = World::new(2).await;
    let (mut alice, mut bob) = world.alice_and_bob().await;
    bob.connect_at(north(1_000.0)).await;
    world.foundation.cache.set_health(Health::Down);
    bob.at(north(1_500.0));
    world.settle().await;
    bob.disconnect().await;
    world.wait(5).await;
    world.foundation.cache.set_health(Health::Up);
    world.wait(3).await;
    alice.connect_at(north(0.0)).await;
    assert_eq!(alice.sees(&bob), Some(1_500.0));
}

/// Only the newest is sent; all of them were somewhere.
#[tokio::test(start_paused = true)]
async fn positions_that_are_replaced_before_they_are_sent_are_in_the_history() {
    let world = World::new(1).await;
    let (_alice, mut bob) = world.alice_and_bob().await;
    bob.connect_at(north(0.0)).await;
    world.settle().await;
    world.foundation.brokers[0].set_health(Health::Frozen);
    let mut sent = vec![bob.sent_at];
    for step in 1..=15 {
        bob.at(north(f64::from(step)));
        sent.push(bob.sent_at);
        world.settle().await;
    }
    world.foundation.brokers[0].set_health(Health::Up);
    world.wait(3).await;
    assert_eq!(world.recorded(&bob).await, sent);
}

/// The registry does not answer, and many people's positions turn out to be old: their devices share from elsewhere.
#[tokio::test(start_paused = true)]
async fn a_registry_that_hangs_does_not_hold_up_the_pump() {
    let world = World::with(1, Settings { updates_per_second: 1e6, ..Settings::default() }).await;
    let (mut alice, mut bob) = world.alice_and_bob().await;
    let mut crowd = crowd(&world, 500).await;
    alice.connect_at(north(0.0)).await;
    bob.connect_at(north(1_000.0)).await;
    world.settle().await;
    let elsewhere = |phone: &Phone| Fix {
        user: phone.user,
        place: Place::new(north(0.0)),
        order: Order { generation: Generation(u64::MAX), ts: TimestampMs(1), ..Order::default() },
        expires: MonotonicMs(u64::MAX),
        policy: PolicyVersion(0),
        motion: Motion::UNKNOWN,
    };
    let fixes: Vec<Fix> = crowd.iter().map(elsewhere).collect();
    world.foundation.cache.put_many(&fixes).await.unwrap();
    world.foundation.sessions.set_health(Health::Frozen);
    for step in 1..=5 {
        // Stale ones in the batch before his and in his own.
        crowd.iter_mut().for_each(|phone| phone.at(north(5.0)));
        world.wait(0).await;
        let meters = 1_000.0 + 100.0 * f64::from(step);
        crowd.iter_mut().for_each(|phone| phone.at(north(6.0)));
        bob.at(north(meters));
        let begun = Instant::now();
        alice.comes_to_see(&bob, meters).await;
        assert!(begun.elapsed() <= LOOK_EVERY, "step {step}: {:?}", begun.elapsed());
    }
    world.foundation.sessions.set_health(Health::Up);
    // Another device of each shares by now, on a node that is not here.
    for phone in &crowd {
        let key = SessionKey { node: world.nodes[0].id(), session: SessionId(u64::MAX) };
        world.foundation.sessions.claim(phone.user, key).await.unwrap();
    }
    crowd.iter_mut().for_each(|phone| phone.at(north(7.0)));
    world.settle().await;
    for phone in &mut crowd {
        let report = phone.report(north(8.0));
        assert!(phone.session().location(&report).is_err(), "{} learned that another device shares", phone.user);
    }
}

/// What failed once and was published with a newer position meanwhile is not published a third time.
#[tokio::test(start_paused = true)]
async fn a_publication_that_failed_is_not_repeated_after_a_newer_one_succeeded() {
    let world = World::new(1).await;
    let (mut alice, mut bob) = world.alice_and_bob().await;
    alice.connect_at(north(0.0)).await;
    bob.connect_at(north(1_000.0)).await;
    world.settle().await;
    let published = || world.foundation.brokers[0].published();
    let before = published();
    world.foundation.brokers[0].set_health(Health::Down);
    bob.at(north(1_100.0));
    tokio::time::sleep(node::limits::RETRY / 2).await;
    world.foundation.brokers[0].set_health(Health::Up);
    bob.at(north(1_200.0));
    world.wait(5).await;
    assert_eq!(alice.sees(&bob), Some(1_200.0));
    assert_eq!(published() - before, 2, "one that failed, one that did not");
    let (sent, queued, owed) = world.nodes[0].outgoing();
    assert_eq!((queued, owed), (0, 0), "{sent:?}");
}

/// Posts come and go during an outage of many times the time to live. What is owed to the cache is the positions of those
/// who are still here, and not of everybody who ever was.
#[tokio::test(start_paused = true)]
async fn what_is_owed_to_the_cache_does_not_grow_with_who_comes_and_goes() {
    let settings = Settings { ttl: Duration::from_secs(5), updates_per_second: 1e6, ..Settings::default() };
    let world = World::with(1, settings).await;
    world.foundation.cache.set_health(Health::Down);
    let node = &world.nodes[0];
    let phone = world.person(0).await;
    let mut most = 0;
    for second in 0..100 {
        for user in 0..100 {
            let user = UserId(1_000_000 + 100 * second + user);
            node.record(user, &[phone.report(north(0.0))], world.clock.monotonic()).await.unwrap();
        }
        world.wait(1).await;
        most = most.max(node.outgoing().2);
    }
    // Two shards, each of which may hold a batch of names before it looks.
    assert!((500..=2 * 1_024).contains(&most), "{most} of 10,000");
    world.foundation.cache.set_health(Health::Up);
    world.wait(5).await;
    let (sent, queued, owed) = node.outgoing();
    assert_eq!((queued, owed), (0, 0), "{sent:?}");
    assert_eq!(sent.queued, sent.replaced + sent.taken + sent.dropped);
}

/// Whatever is sick, and however late in it the user is deleted: once that is acknowledged, no cache is given the position
/// and nobody is sent it, neither by what was under way nor by what was owed.
#[tokio::test(start_paused = true)]
async fn who_is_deleted_during_an_outage_is_neither_cached_nor_published_afterwards() {
    for (cache, broker, after_ms) in [
        (Health::Frozen, Health::Up, 0),
        (Health::Frozen, Health::Up, 100),
        (Health::Frozen, Health::Up, 3_000),
        (Health::Mute, Health::Up, 100),
        (Health::Down, Health::Down, 100),
        (Health::Up, Health::Down, 300),
        (Health::Up, Health::Frozen, 100),
        (Health::Up, Health::Mute, 2_100),
        (Health::Frozen, Health::Frozen, 700),
    ] {
        let case = format!("cache {cache:?}, broker {broker:?}, deleted after {after_ms} ms");
        let world = World::new(2).await;
        let (mut alice, mut bob) = world.alice_and_bob().await;
        alice.connect_at(north(0.0)).await;
        bob.connect_at(north(1_000.0)).await;
        world.settle().await;
        world.foundation.cache.set_health(cache);
        world.foundation.brokers[1].set_health(broker);
        // One over his connection, and one without: both are owed by the time he goes.
        bob.at(north(1_100.0));
        let post = bob.report(north(1_200.0));
        world.nodes[1].record(bob.user, &[post], world.clock.monotonic()).await.unwrap();
        sleep(Duration::from_millis(after_ms)).await;
        let deleted = async {
            let path = format!("/v1/users/{}", bob.user);
            while !world.ask(Method::DELETE, &path).await.is_success() {
                sleep(Duration::from_millis(50)).await;
            }
            world.foundation.brokers[1].published()
        };
        let healed = async {
            sleep(Duration::from_secs(4)).await;
            world.foundation.heal();
        };
        let (published, ()) = tokio::join!(deleted, healed);
        world.wait(10).await;
        assert_eq!(world.foundation.brokers[1].published(), published, "{case}");
        assert_eq!(world.foundation.cache.get_many(&[bob.user]).await.unwrap(), [None], "{case}");
        assert_eq!(alice.sees(&bob), None, "{case}");
        assert_eq!(world.recorded(&bob).await, [0; 0], "{case}");
        let (sent, queued, owed) = world.nodes[1].outgoing();
        assert_eq!((queued, owed), (0, 0), "{case}: {sent:?}");
    }
}
