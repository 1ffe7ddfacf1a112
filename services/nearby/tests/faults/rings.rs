//! The ring of pub/sub servers changes all the time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use servers::fleet::{Fleet, PUBSUB_OPTIONS};
use servers::proxy::Way;
use servers::redis::RedisServer;

use crate::arrivals::spread;
use crate::judge::{Terms, judged};
use crate::shared_fleet::with_fleet;
use crate::times::{pass, percentile, wall_ms};

/// How many changes there are.
const CHANGES: usize = 100;
/// From one to the next, if it is done by then.
const PAUSE_MS: u64 = 500;
/// In every twenty-five changes so many in a row with one gateway cut off from etcd: 3 s, less than it may be without.
const CUT_OFF: usize = 6;

/// A hundred changes of the ring in one run, a quarter of them while one gateway is cut off from etcd: no last value is
/// lost. Promised is also that every gateway goes by a new ring 250 ms after it is written down (p99): 100 ms on a quiet
/// machine. What is asserted leaves room for a busy one, and for a gateway that is cut off: it hears of the ring, asks
/// etcd in vain, and then reads it from the pub/sub servers.
#[test]
#[ignore = "takes 80 s; ./test faults"]
fn a_hundred_changes_in_a_row() {
    with_fleet(|fleet| {
        let spares = [(); 2].map(|()| RedisServer::start_with(&PUBSUB_OPTIONS));
        let (_, (cut_off, epochs)) = judged(fleet, Terms::strict(66.0, 8_000), || {
            let (over, before) = (AtomicBool::new(false), epoch_of(&fleet.run(&["ring", "status"]).unwrap()));
            thread::scope(|scope| {
                let learning = scope.spawn(|| watch_them_learn(fleet, before, &over));
                let cut_off = change_all_the_time(fleet, &spares);
                pass(1.0);
                over.store(true, Ordering::Relaxed);
                (cut_off, learning.join().unwrap())
            })
        });
        let took = |with: bool| -> Vec<u64> {
            let of = epochs.iter().filter(|(epoch, _)| cut_off.contains(epoch) == with);
            of.map(|(epoch, learned)| learned.unwrap_or_else(|| panic!("epoch {epoch} was never learned"))).collect()
        };
        let (whole, cut) = (took(false), took(true));
        println!("ring changes: every gateway goes by it after {} (promised: p99 250 ms)", spread(&whole));
        println!("ring changes: with one gateway cut off from etcd after {}", spread(&cut));
        assert_eq!(whole.len() + cut.len(), CHANGES);
        assert!(cut.len() >= CHANGES / 5);
        assert!(percentile(&whole, 99.0) <= 1_000, "{whole:?}");
        assert!(percentile(&cut, 99.0) <= 2_500, "{cut:?}");
    });
}

/// Makes all changes; the epochs of those during which a gateway was cut off from etcd.
fn change_all_the_time(fleet: &Fleet, spares: &[RedisServer; 2]) -> BTreeSet<u64> {
    let [first, second] = [spares[0].address(), spares[1].address()];
    let second_own = fleet.pubsub[1].address();
    let verbs: [&[&str]; 5] = [
        &["add", "pubsub-9", &first],
        &["replace", "pubsub-2", &second],
        &["replace", "pubsub-9", &second_own],
        &["remove", "pubsub-9"],
        &["replace", "pubsub-2", &second_own],
    ];
    let proxy = fleet.etcd_proxy.as_ref().unwrap();
    let (begun, mut cut_off) = (wall_ms(), BTreeSet::new());
    for change in 0..CHANGES {
        let is_cut_off = change % 25 >= 25 - CUT_OFF;
        proxy.set(if is_cut_off { Way::Nothing } else { Way::Open });
        let status = fleet.run(&[&["ring"], verbs[change % verbs.len()]].concat()).unwrap();
        if is_cut_off {
            cut_off.insert(epoch_of(&status));
        }
        let next = begun + PAUSE_MS * (change as u64 + 1);
        pass(next.saturating_sub(wall_ms()) as f64 / 1_000.0);
    }
    proxy.set(Way::Open);
    println!("ring changes: {CHANGES} in {:.0} s", (wall_ms() - begun) as f64 / 1_000.0);
    cut_off
}

/// The epoch that `ring status` begins with.
fn epoch_of(status: &str) -> u64 {
    status.lines().next().and_then(|line| line.strip_prefix("epoch ")).unwrap().parse().unwrap()
}

/// For each epoch after `before`: how long after it was in etcd every gateway went by it, or by a later one, in ms.
fn watch_them_learn(fleet: &Fleet, before: u64, over: &AtomicBool) -> BTreeMap<u64, Option<u64>> {
    let (mut written, mut learned) = (BTreeMap::new(), BTreeMap::new());
    while !over.load(Ordering::Relaxed) {
        let epoch = version(fleet);
        for epoch in before + 1..=epoch {
            written.entry(epoch).or_insert_with(wall_ms);
        }
        let slowest = slowest(fleet);
        for (epoch, at) in written.range(..=slowest) {
            learned.entry(*epoch).or_insert_with(|| wall_ms() - at);
        }
        pass(0.002);
    }
    written.keys().map(|epoch| (*epoch, learned.get(epoch).copied())).collect()
}

/// How often the ring's document `nearby/doc/ring` has been written: its epoch, since each change adds one to both.
fn version(fleet: &Fleet) -> u64 {
    let answer = fleet.etcd.ask("/v3/kv/range", r#"{"key":"bmVhcmJ5L2RvYy9yaW5n"}"#);
    let (_, version) = answer.split_once(r#""version":""#).unwrap_or_else(|| panic!("{answer}"));
    version.split('"').next().unwrap().parse().unwrap()
}

/// The lowest epoch that a gateway goes by, as it says itself at a pub/sub server that is on every ring.
fn slowest(fleet: &Fleet) -> u64 {
    let clients = fleet.pubsub[0].command(&[b"CLIENT", b"LIST"]);
    let clients = String::from_utf8(clients).unwrap();
    let epoch = |name: &str| name.rsplit(':').next().and_then(|epoch| epoch.parse::<u64>().ok());
    let names = clients.split_whitespace().filter(|word| word.starts_with("name=") && word.contains("publisher:"));
    names.filter_map(epoch).min().unwrap_or(0)
}
