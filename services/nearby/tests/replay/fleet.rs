//! A whole fleet: three gateways and an API behind HAProxy, on Redis, etcd and Cassandra.

use std::thread;
use std::time::Duration;

use loadtest::report::Report;
use parking_lot::Mutex;
use servers::fleet::{Fleet, FleetOptions};

use crate::people::PEOPLE;
use crate::{TTL_S, judge};

/// One fleet at a time: with three Cassandras starting on few cores, writes run into their deadlines.
static ALONE: Mutex<()> = Mutex::new(());

fn fleet() -> Fleet {
    let options = FleetOptions::new(env!("CARGO_BIN_EXE_nearby"))
        .with("NEARBY_LOCATION__TTL_S", TTL_S)
        .with("NEARBY_LIMITS__UPDATES_PER_SECOND", "100");
    Fleet::start(options).unwrap_or_else(|failure| panic!("{failure}"))
}

/// Everybody moves, befriends, unfriends, leaves and returns, while `meanwhile` happens to the fleet.
fn judged(fleet: &mut Fleet, seed: u64, meanwhile: impl FnOnce(&mut Fleet) + Send) -> Report {
    let (address, secret_dir) = (fleet.address(), fleet.secret_dir().to_owned());
    let seeded = seed.to_string();
    let report = thread::scope(|scope| {
        let happening = scope.spawn(move || meanwhile(fleet));
        // Friendships queue for one place in the control log: 64 at once pass their deadline on a machine that is busy.
        let gently = ["--at-once", "16", "--churn", "--churn-per-s", "20", "--seed", &seeded];
        let report = judge(&address, &secret_dir, seed, &gently);
        happening.join().unwrap();
        report
    });
    assert!(report.updates > 2_000 && report.frames.friend > 5_000 && report.reconnects > 5, "{report}");
    report
}

/// How many people are connected.
fn connected(fleet: &Fleet) -> usize {
    let viewers = |metrics: String| -> usize {
        let value = metrics.lines().find_map(|line| line.strip_prefix("nearby_viewers "));
        value.unwrap().parse().unwrap()
    };
    fleet.gateways.iter().filter_map(|gateway| gateway.metrics()).map(viewers).sum()
}

/// Makes something happen once everybody has come and moves, and sees that they still do when it has happened.
fn in_the_middle(fleet: &mut Fleet, happens: impl FnOnce(&mut Fleet)) {
    // Some are always on their way back.
    let all = || connected(fleet) >= PEOPLE * 9 / 10;
    fleet.haproxy.process().wait_until("with everybody connected", Duration::from_secs(60), all);
    thread::sleep(Duration::from_secs(2));
    happens(fleet);
    assert!(connected(fleet) > 0, "all was over before it had happened");
}

#[test]
fn a_fleet_satisfies_the_judge_while_everything_changes() {
    let _alone = ALONE.lock();
    let mut fleet = fleet();
    assert!(fleet.run(&["migrate"]).unwrap().contains("nothing to do"));
    let status = fleet.run(&["ring", "status"]).unwrap();
    assert!(status.starts_with("epoch 3\n") && status.matches("\npubsub-").count() == 3, "{status}");
    for gateway in &fleet.gateways {
        assert!(fleet.haproxy.sends_to(gateway.name()), "{}", gateway.log_tail());
    }
    judged(&mut fleet, 3, |_| {});
    fleet.stop().unwrap();
}

/// The judge allows nothing for it: a channel that moves loses no last value.
#[test]
fn a_pub_sub_server_joins_and_another_leaves_meanwhile() {
    let _alone = ALONE.lock();
    let mut fleet = fleet();
    let change = |fleet: &mut Fleet| {
        assert_eq!(fleet.add_pubsub().unwrap(), "pubsub-4");
        thread::sleep(Duration::from_secs(2));
        fleet.run(&["ring", "remove", "pubsub-2"]).unwrap();
    };
    judged(&mut fleet, 4, |fleet| in_the_middle(fleet, change));
    let status = fleet.run(&["ring", "status"]).unwrap();
    assert!(status.starts_with("epoch 5\n") && !status.contains("pubsub-2"), "{status}");
}

/// Readiness goes off before anything is closed: HAProxy sends nobody there, and those who were come back elsewhere.
#[test]
fn a_gateway_stops_and_comes_back_meanwhile() {
    let _alone = ALONE.lock();
    let mut fleet = fleet();
    let change = |fleet: &mut Fleet| {
        let leaving = &fleet.gateways[0];
        leaving.terminate();
        let ended = leaving.await_end(Duration::from_secs(30)).expect("an end");
        assert!(ended.success(), "{}", leaving.log_tail());
        let (haproxy, patience) = (&fleet.haproxy, Duration::from_secs(5));
        haproxy.process().wait_until("without who left", patience, || !haproxy.sends_to(leaving.name()));
        leaving.restart();
        haproxy.process().wait_until("sending to who came back", patience, || haproxy.sends_to(leaving.name()));
    };
    judged(&mut fleet, 5, |fleet| in_the_middle(fleet, change));
    fleet.stop().unwrap();
}
