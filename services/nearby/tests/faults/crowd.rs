//! The location cache freezes while thousands share: what it missed is made up for, once, and then all is as before.

use std::fs;
use std::thread;

use clap::Parser;
use loadtest::saturate;
use servers::fleet::Fleet;
use servers::nearby::NearbyServer;

use crate::pairs::Pairs;
use crate::shared_fleet::{connected, fresh_users, metric, with_fleet};
use crate::times::{pass, until, wall_ms};

/// People beside the pairs who share, evenly from all gateways, and are nobody's friends.
const PEOPLE: u64 = 3_000;
/// Positions that these send in a second, all together.
const RATE: u64 = 300;
/// How long the cache is frozen, and how long it has afterwards until all is as before.
const FROZEN_S: f64 = 9.0;
const HEALED_S: f64 = 10.0;
/// How long is measured before and after.
const LOOK_S: f64 = 6.0;

#[derive(Parser)]
struct Saturate {
    #[command(flatten)]
    options: saturate::Options,
}

/// What gateways have counted.
#[derive(Clone, Copy, Debug)]
struct Counts {
    at: u64,
    updates: u64,
    published: u64,
}

impl Counts {
    fn of(fleet: &Fleet) -> Counts {
        let sum = |name: &str| fleet.gateways.iter().map(|gateway| metric(gateway, name)).sum();
        let (updates, published) = (r#"nearby_updates_total{kind="newest"}"#, "nearby_pubsub_published_total");
        Counts { at: wall_ms(), updates: sum(updates), published: sum(published) }
    }

    /// Updates since then, and publications for each.
    fn since(self, then: Counts) -> (u64, f64) {
        let updates = self.updates - then.updates;
        (updates, (self.published - then.published) as f64 / updates as f64)
    }
}

/// For as long as the cache is away, and 10 s after it is back, positions arrive as young as ever; by then it holds
/// everybody's newest, and each update is published once. That many people's positions were once published again for
/// good: 15 times for each update, and their age half a second.
#[test]
#[ignore = "takes 60 s; ./test faults"]
fn it_is_frozen_while_thousands_share() {
    with_fleet(|fleet| {
        let pairs = Pairs::start(fleet);
        let there = connected(fleet);
        thread::scope(|scope| {
            let crowd = scope.spawn(|| crowd(fleet));
            until("everybody connected", 120.0, || {
                assert!(!crowd.is_finished(), "the crowd could not be connected");
                connected(fleet) >= there + PEOPLE
            });
            pass(4.0);
            let before = Counts::of(fleet);
            pass(LOOK_S);
            let frozen = Counts::of(fleet);
            fleet.cache.freeze();
            pass(FROZEN_S);
            let woken = Counts::of(fleet);
            fleet.cache.thaw();
            pass(HEALED_S);
            let healed = Counts::of(fleet);
            pass(LOOK_S);
            let after = Counts::of(fleet);
            let tell = |what: &str, from: Counts, to: Counts| {
                let (updates, each) = to.since(from);
                let window = pairs.window(from.at, to.at);
                println!(
                    "cache frozen among {PEOPLE}: {what} {updates} updates, {each:.2} publications each; {window}"
                );
                (each, window)
            };
            let (_, age_before) = tell("before", before, frozen);
            let (each_during, age_during) = tell("frozen", frozen, woken);
            tell("healing", woken, healed);
            let (each_after, age_after) = tell("after", healed, after);
            let made_up = healed.published - woken.published - (healed.updates - woken.updates);
            println!("cache frozen among {PEOPLE}: {made_up} publications to make up for it");

            assert!((0.97..=1.03).contains(&each_after), "{each_after} publications an update");
            assert!(each_during <= 1.03, "{each_during} publications an update while the cache is away");
            assert!(made_up <= PEOPLE + 40 + healed.updates / 50, "{made_up} publications to make up for it");
            let usual = 2 * age_before.p99 + 20;
            assert!(
                age_after.p99 <= usual && age_during.silence_ms <= 1_000,
                "{age_before}, {age_during}, {age_after}"
            );
            let owed = |gateway: &NearbyServer| metric(gateway, "nearby_outgoing_owed");
            assert!(fleet.gateways.iter().all(|gateway| owed(gateway) == 0));
            crowd.join().unwrap();
        });
        pairs.rest();
    });
}

/// They move until all is measured.
fn crowd(fleet: &Fleet) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("fleet.json");
    fs::write(&file, fleet.description().to_string()).unwrap();
    let window = 4.0 + LOOK_S + FROZEN_S + HEALED_S + LOOK_S + 4.0;
    let numbers = [
        ("--connections", PEOPLE.to_string()),
        ("--rate", RATE.to_string()),
        ("--window", window.to_string()),
        ("--user-base", fresh_users().to_string()),
        ("--fleet", file.display().to_string()),
        ("--friends", "2".to_owned()),
        ("--near-share", "0".to_owned()),
    ];
    let mut arguments = vec!["saturate", "--direct"];
    arguments.extend(numbers.iter().flat_map(|(name, value)| [*name, value.as_str()]));
    let line = Saturate::try_parse_from(arguments).unwrap();
    let found = saturate::run(&line.options).unwrap();
    assert!(found.is_sound(), "{found}");
}
