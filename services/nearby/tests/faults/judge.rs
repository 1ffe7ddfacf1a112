//! The load tester's judge: people who move, on their phones, through HAProxy; every frame is judged, and at the end
//! every view.

use std::thread;

use clap::Parser;
use loadtest::faults::Fault;
use loadtest::replay::{self, Options};
use loadtest::report::Report;
use servers::fleet::Fleet;

use crate::arrivals::alone;
use crate::people;
use crate::shared_fleet::{TTL_S, connected, fresh_users};
use crate::times::{pass, until};

/// People of the made-up recording who take part.
const PEOPLE: usize = 40;
/// What was recorded of them.
const RECORDED_S: f64 = 60.0 * 30.0;

#[derive(Parser)]
struct Replay {
    #[command(flatten)]
    options: Options,
}

/// What is asked of a run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    /// How long people move.
    pub(crate) seconds: f64,
    /// For how long a view may be behind on the way: the outage that is allowed, and what a view takes anyway.
    pub(crate) late_ms: u64,
    /// Whether friendships and connections come and go meanwhile.
    pub(crate) churn: bool,
    /// What the fault is bound to show: torn connections when a gateway dies.
    pub(crate) allowed: &'static [Fault],
}

impl Terms {
    /// With friendships and connections that come and go, and nothing allowed.
    pub(crate) fn strict(seconds: f64, late_ms: u64) -> Terms {
        Terms { seconds, late_ms, churn: true, allowed: &[] }
    }
}

/// Lets people live while `meanwhile` happens, which begins once everybody has come and moves. Panics if the judge
/// finds anything but what is allowed.
pub(crate) fn judged<T: Send>(fleet: &Fleet, terms: Terms, meanwhile: impl FnOnce() -> T + Send) -> (Report, T) {
    let base = fresh_users();
    let before = connected(fleet);
    let (report, happened) = thread::scope(|scope| {
        let judge = scope.spawn(|| replay(fleet, terms, base));
        // Some are always on their way back.
        until("everybody connected", 60.0, || {
            judge.is_finished() || connected(fleet) >= before + PEOPLE as u64 * 9 / 10
        });
        pass(2.0);
        let happened = meanwhile();
        (judge.join().unwrap(), happened)
    });
    println!(
        "judge: {} updates, {} friend frames, age p50 {:.1} ms, p99 {:.1} ms, {} reconnects, {} changes of friendships",
        report.updates,
        report.frames.friend,
        report.age_ms.p50,
        report.age_ms.p99,
        report.reconnects,
        report.friendship_changes
    );
    assert!(report.faults.iter().all(|found| terms.allowed.contains(&found.fault)), "seed {base}\n{report}");
    assert!(report.updates > 1_000 && report.frames.friend > 1_000, "{report}");
    (report, happened)
}

fn replay(fleet: &Fleet, terms: Terms, base: u64) -> Report {
    let dir = tempfile::tempdir().unwrap();
    let (tracks, friends) = people::write(dir.path(), base);
    let (url, secret_dir) = (format!("ws://{}/v1/ws", fleet.address()), fleet.secret_dir().display().to_string());
    let numbers = [
        ("--user-base", base.to_string()),
        ("--seed", base.to_string()),
        ("--people", PEOPLE.to_string()),
        ("--speedup", (RECORDED_S / terms.seconds).to_string()),
        ("--late-ms", terms.late_ms.to_string()),
        ("--ttl-s", TTL_S.to_string()),
    ];
    let mut arguments =
        vec!["replay", "--tracks", &tracks, "--friends", &friends, "--data-dir", &secret_dir, "--url", &url];
    arguments.extend(numbers.iter().flat_map(|(name, value)| [*name, value.as_str()]));
    if terms.churn {
        arguments.extend(["--churn", "--churn-per-s", "10"]);
    }
    let options = Replay::try_parse_from(arguments).unwrap().options;
    // An error says that people and friendships could not be made: nobody has moved yet. It is no finding of the judge.
    for _ in 0..2 {
        match alone(replay::run(options.clone())) {
            Ok(report) => return report,
            Err(error) => println!("once more: {error:#}"),
        }
    }
    alone(replay::run(options)).unwrap()
}
