//! The protocols, and which seeds are tried.

use std::ops::Range;

use crate::faults::Fault;
use crate::fleet::Planted;
use crate::play::{Outcome, Play};

pub(crate) const CONNECT: Play = Play {
    name: "connect",
    stormy_s: 5,
    healing_s: 5,
    faults: &[Fault::NoWaist, Fault::InboxFull],
    pause_ms: 300,
    stay: 4,
    posts: false,
    processes: 0,
};

pub(crate) const ORDER: Play = Play {
    name: "write order",
    stormy_s: 4,
    healing_s: 5,
    faults: &[Fault::NoWaist, Fault::BrokerLost, Fault::InboxFull, Fault::Moved, Fault::CacheRestart],
    pause_ms: 400,
    stay: 10,
    posts: true,
    processes: 0,
};

/// Write order in the first second, when every node subscribes to everybody for the first time.
pub(crate) const BEGINNING: Play =
    Play { name: "beginning", stormy_s: 1, healing_s: 4, faults: &[Fault::NoWaist], posts: false, ..ORDER };

pub(crate) const REVOKE: Play = Play {
    name: "revoke",
    stormy_s: 30,
    healing_s: 12,
    faults: &[
        Fault::NoControl,
        Fault::NoDiscovery,
        Fault::NoEtcd,
        Fault::Frozen,
        Fault::FrozenInPoll,
        Fault::FrozenInPoll,
    ],
    pause_ms: 700,
    stay: 30,
    posts: false,
    processes: 0,
};

/// Changes of one pair by several processes at once.
pub(crate) const CHANGES: Play = Play {
    name: "changes",
    stormy_s: 10,
    healing_s: 12,
    faults: &[Fault::NoControl, Fault::NoWaist, Fault::Frozen],
    pause_ms: 400,
    stay: 12,
    posts: false,
    processes: 3,
};

#[expect(clippy::disallowed_methods, reason = "a seed is given to a test, not configured")]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// The seed to be replayed.
pub(crate) fn one() -> Option<u64> {
    variable("SEED").map(|seed| seed.parse().unwrap())
}

/// The seeds to be tried.
fn asked_for(ordinary: u64) -> Range<u64> {
    if let Some(seed) = one() {
        return seed..seed + 1;
    }
    match variable("SEEDS").as_deref().map(|seeds| seeds.split_once("..").unwrap_or(("0", seeds))) {
        Some((from, to)) => from.parse().unwrap()..to.parse().unwrap(),
        None => 0..ordinary,
    }
}

/// Tries the unbroken code.
fn holds(play: Play, ordinary: u64) {
    let (mut tried, mut revokes, mut shown) = (0, 0, 0);
    for seed in asked_for(ordinary) {
        let Outcome { violation, tally, .. } = play.run(seed, Planted::default());
        if let Some(violation) = violation {
            panic!("{}, seed {seed}: {violation}", play.name);
        }
        tried += 1;
        revokes += tally.revokes;
        shown += tally.shown;
        if tried % 1_000 == 0 {
            println!("{}: {tried} seeds so far, {revokes} revokes, {shown} positions shown", play.name);
        }
    }
    println!("{}: {tried} seeds, {revokes} revokes, {shown} positions shown, no violation", play.name);
}

#[test]
fn connect_holds() {
    holds(CONNECT, 500);
}

#[test]
fn write_order_holds() {
    holds(ORDER, 500);
}

#[test]
fn a_beginning_holds() {
    holds(BEGINNING, 500);
}

#[test]
fn revoke_and_the_right_to_send_hold() {
    holds(REVOKE, 500);
}

#[test]
fn changes_of_one_pair_hold() {
    holds(CHANGES, 500);
}

#[test]
fn a_seed_is_a_run() {
    for play in [CONNECT, ORDER, REVOKE, CHANGES] {
        for seed in 0..10 {
            let runs = [(); 2].map(|()| play.run(seed, Planted::default()));
            assert_eq!(runs[0], runs[1], "{}, seed {seed}", play.name);
        }
    }
}
