//! Gateways die, or stop.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use loadtest::address::Address;
use loadtest::faults::Fault;
use loadtest::socket::{Incoming, Socket};
use loadtest::wire::{self, Frame, Reason};
use model::UserId;
use servers::fleet::Fleet;

use crate::acquaint::acquaint;
use crate::arrivals::alone;
use crate::judge::{Terms, judged};
use crate::pairs::{Return, place};
use crate::shared_fleet::{TTL_S, fresh_users, tokens, with_fleet};
use crate::times::{pass, percentile, until, wall_ms};
use crate::watch::Watch;

/// How long each was without a connection, from the end of the old one to the first page of the new.
fn gaps(returns: &[Return]) -> Vec<u64> {
    returns.iter().map(|one| one.back - one.lost).collect()
}

fn tell(what: &str, gaps: &[u64]) -> u64 {
    let [p50, p99] = [50.0, 99.0].map(|part| percentile(gaps, part));
    println!("{what}: {} clients back after p50 {p50} ms, p99 {p99} ms", gaps.len());
    p99
}

/// The clients of a gateway that is killed are back within 5 s (p99) on the others, no last value is lost, and what it
/// had acknowledged is in the history, from its disk if need be. Who does not come back is gone for their friends by the
/// time to live of the last position (here 20 s, +5 s at most): no ghost.
#[test]
#[ignore = "takes 50 s; ./test faults"]
fn one_is_killed() {
    with_fleet(|fleet| {
        let watch = Watch::start(fleet);
        let is_seen = AtomicBool::new(false);
        let gone = thread::scope(|scope| {
            let terms = Terms { allowed: &[Fault::ConnectionLost], ..Terms::strict(20.0, 8_000) };
            let (_, (killed, gone)) = judged(fleet, terms, || {
                let friend_of_nobody_soon = scope.spawn(|| ghost(fleet, &is_seen));
                until("the ghost seen", 15.0, || is_seen.load(Ordering::Relaxed));
                let killed = wall_ms();
                fleet.gateways[0].kill();
                pass(8.0);
                fleet.gateways[0].restart();
                (killed, friend_of_nobody_soon)
            });
            watch.tell("gateway killed", killed);
            let gaps = gaps(&watch.pairs.returns_after(killed));
            let p99 = tell("gateway killed", &gaps);
            assert!(!gaps.is_empty() && p99 <= 5_000, "{gaps:?}");
            gone.join().unwrap()
        });
        println!("gateway killed: a friend who never came back was gone {gone} ms after the last position");
        let ttl = TTL_S * 1_000;
        assert!((ttl..=ttl + 5_000).contains(&gone), "{gone} ms");
        // One of each may have come within the time that points wait for company.
        watch.rest_but_for(1, fleet);
    });
}

/// Somebody on the first gateway whose phone dies with it, seen by a friend on the second: how long after their last
/// position the friend was told that they are gone, in ms.
fn ghost(fleet: &Fleet, is_seen: &AtomicBool) -> u64 {
    let base = fresh_users();
    let [ghost, friend] = [UserId(base), UserId(base + 1)];
    let tokens = tokens(fleet);
    let direct = |at: usize| -> Address { format!("ws://{}/v1/ws", fleet.gateways[at].address()).parse().unwrap() };
    alone(async {
        acquaint(fleet, &[ghost, friend], &[(ghost, friend)]).await;
        let mut dying = Socket::open(&direct(0), &tokens.user(ghost).unwrap()).await.unwrap();
        let mut looking = Socket::open(&direct(1), &tokens.user(friend).unwrap()).await.unwrap();
        let sent = wall_ms();
        dying.init(place(0, 0), sent, None).await.unwrap();
        looking.init(place(0, 0), sent, None).await.unwrap();
        loop {
            let Incoming::Text(text) = looking.next().await else { panic!("the friend's connection ended") };
            match wire::read(&text) {
                Some(Frame::Nearby(page)) if page.friends.is_empty() => {}
                Some(Frame::Nearby(_) | Frame::Friend(_)) => is_seen.store(true, Ordering::Relaxed),
                Some(Frame::Gone(who, Reason::Inactive)) if who == ghost => break,
                other => panic!("{other:?}"),
            }
        }
        let gone = wall_ms() - sent;
        // Nor is the ghost there for who comes now.
        looking.close().await;
        let mut looking = Socket::open(&direct(2), &tokens.user(friend).unwrap()).await.unwrap();
        looking.init(place(0, 0), wall_ms(), None).await.unwrap();
        let Incoming::Text(text) = looking.next().await else { panic!("no page") };
        assert!(matches!(wire::read(&text), Some(Frame::Nearby(page)) if page.friends.is_empty()), "{text}");
        gone
    })
}

/// A rolling restart: each gateway is asked to stop and started again, in turn. Its clients are without a connection
/// for 2 s at most (p99), it ends well, and nothing is lost.
#[test]
#[ignore = "takes 60 s; ./test faults"]
fn each_is_restarted_in_turn() {
    with_fleet(|fleet| {
        let watch = Watch::start(fleet);
        let (_, begun) = judged(fleet, Terms::strict(35.0, 8_000), || {
            let begun = wall_ms();
            for gateway in &fleet.gateways {
                let at = wall_ms();
                gateway.terminate();
                let unready = until("not ready", 5.0, || !gateway.is_ready());
                let ended = gateway.await_end(Duration::from_secs(30)).expect("an end");
                println!("{}: not ready after {unready} ms, {ended} after {} ms", gateway.name(), wall_ms() - at);
                assert!(ended.success(), "{}", gateway.log_tail());
                gateway.restart();
                until("sent to", 10.0, || fleet.haproxy.sends_to(gateway.name()));
            }
            begun
        });
        watch.tell("rolling restart", begun);
        let returns = watch.pairs.returns_after(begun);
        assert!(returns.iter().all(|one| one.code == Some(1012)), "{returns:?}");
        let gaps = gaps(&returns);
        let p99 = tell("rolling restart", &gaps);
        assert!(gaps.len() >= 20 && p99 <= 2_000, "{gaps:?}");
        watch.rest(fleet);
    });
}
