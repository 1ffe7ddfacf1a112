//! The location cache dies, or freezes: what is live needs it only for who comes.

use servers::fleet::Fleet;

use crate::arrivals::{Visitors, spread};
use crate::judge::{Terms, judged};
use crate::shared_fleet::with_fleet;
use crate::times::wall_ms;
use crate::watch::Watch;

/// Live pushes go on while the cache is dead: nobody sees nothing for 1 s. Who connects is answered: people who share are
/// told to try later (1013), for the registry of who shares is in the same place; who only asks is shown what is known.
/// It comes back empty, and no last value of those who move is lost.
#[test]
#[ignore = "takes 30 s; ./test faults"]
fn it_is_killed() {
    with_fleet(|fleet| outage(fleet, "cache killed", || fleet.cache.kill(), || fleet.cache.restart()));
}

/// The same while it is frozen: it takes connections and says nothing.
#[test]
#[ignore = "takes 30 s; ./test faults"]
fn it_is_frozen_and_woken() {
    with_fleet(|fleet| outage(fleet, "cache frozen", || fleet.cache.freeze(), || fleet.cache.thaw()));
}

fn outage(fleet: &Fleet, what: &str, begin: impl FnOnce() + Send, end: impl FnOnce() + Send) {
    let watch = Watch::start(fleet);
    let visitors = Visitors::of(fleet, watch.pairs.senders());
    let before = visitors.arrive_for(2.0);
    // Who reconnects to an empty cache cannot be shown those who fell silent before: the judge is not asked about that.
    let terms = Terms { churn: false, ..Terms::strict(14.0, 5_000) };
    let (_, (begun, ended, knocks, calls, after)) = judged(fleet, terms, || {
        let begun = wall_ms();
        begin();
        let knocks = visitors.knock_for(3.0);
        let calls = visitors.call_for(3.0);
        let ended = wall_ms();
        end();
        (begun, ended, knocks, calls, visitors.arrive_for(3.0))
    });
    watch.tell(what, begun);
    let window = watch.pairs.window(begun, ended + 2_000);
    let took: Vec<u64> = knocks.iter().map(|knock| knock.took).collect();
    let let_in = knocks.iter().filter(|knock| knock.is_let_in).count();
    println!("{what}: arrivals before {}; during, {let_in} let in, answered {}", spread(&before), spread(&took));
    println!("{what}: arrivals afterwards {}", spread(&after));
    let refused = calls.iter().filter(|(status, _)| *status != 200).count();
    let took_calls: Vec<u64> = calls.iter().map(|(_, took)| *took).collect();
    println!("{what}: GET /v1/nearby {}, {refused} not answered 200", spread(&took_calls));
    println!("{what}: posts (acknowledged, refused, slowest tenth) {:?}", watch.poster.between(begun, ended));
    assert!(window.silence_ms <= 1_000, "{window}");
    assert!(took.iter().chain(&took_calls).all(|took| *took <= 3_000), "{took:?} {took_calls:?}");
    assert!(!after.is_empty(), "nobody is let in");
    watch.rest(fleet);
}
