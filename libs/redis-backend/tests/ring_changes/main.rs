//! The ring changes while gateways, servers and the network between them fail, by seeds and on virtual time: the real
//! steward, publishers and subscribers against simulated servers. When all is quiet, every subscriber holds each
//! publisher's last value, and the subscriptions held are exactly those wanted. What is planted has to be found.
//!
//! `SEED=7` replays one seed, `SEEDS=5000` tries so many, `SEEDS=100..200` these.

#![expect(clippy::print_stdout, reason = "it says after how many seeds a break was found")]

mod directory;
mod gate;
mod gateway;
mod network;
mod resuming;
mod server;
mod story;

use std::ops::Range;

use redis_backend::Break;

use crate::story::{Outcome, run};

/// Seeds of an ordinary test, and those within which a break has to be found.
const SEEDS: u64 = 1_000;

#[expect(clippy::disallowed_methods, reason = "a seed is given to a test, not configured")]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn asked_for() -> Range<u64> {
    let number = |text: &str| text.parse::<u64>().expect("a number");
    if let Some(seed) = variable("SEED") {
        return number(&seed)..number(&seed) + 1;
    }
    match variable("SEEDS").as_deref().map(|seeds| seeds.split_once("..").unwrap_or(("0", seeds))) {
        Some((from, to)) => number(from)..number(to),
        None => 0..SEEDS,
    }
}

fn holds(seeds: Range<u64>) {
    let (mut tried, mut changes, mut published) = (0, 0, 0);
    for seed in seeds {
        let outcome = run(seed, None);
        if let Some(violation) = outcome.violation {
            panic!("seed {seed}: {violation}\n{}", outcome.trace);
        }
        tried += 1;
        changes += outcome.changes;
        published += outcome.published;
    }
    println!("{tried} seeds, {changes} changes of the ring, {published} messages published, no violation");
}

/// In halves, side by side.
#[test]
fn the_ring_change_holds_in_the_first_half_of_the_seeds() {
    let Range { start, end } = asked_for();
    holds(start..start + (end - start).div_ceil(2));
}

#[test]
fn the_ring_change_holds_in_the_second_half_of_the_seeds() {
    let Range { start, end } = asked_for();
    holds(start + (end - start).div_ceil(2)..end);
}

#[test]
fn a_seed_is_a_run() {
    for seed in 0..20 {
        let runs: [Outcome; 2] = [(); 2].map(|()| run(seed, None));
        assert_eq!(runs[0], runs[1], "seed {seed}");
    }
}

#[track_caller]
fn found(planted: Break) {
    let mut seeds = 0..SEEDS;
    let violation = seeds.find_map(|seed| Some((seed, run(seed, Some(planted)).violation?)));
    let Some((seed, violation)) = violation else { panic!("{planted:?} was not found within {SEEDS} seeds") };
    println!("{planted:?} was found after {} seeds: {violation}", seed + 1);
}

macro_rules! breaks {
    ($($name:ident: $planted:ident;)+) => {
        $(
            #[test]
            fn $name() {
                found(Break::$planted);
            }
        )+
    };
}

breaks! {
    dropped_before_subscribed: DropBeforeSubscribing;
    read_before_fenced: ReadBeforeFencing;
    asked_before_published: AskBeforePublishing;
    absent_taken_for_current: AbsentIsCurrent;
    never_published_again: NeverPublishAgain;
    dead_taken_for_fenced: DeadIsFenced;
}
