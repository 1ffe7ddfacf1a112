//! The database dies and comes back.

use servers::fleet::Fleet;

use crate::judge::{Terms, judged};
use crate::shared_fleet::{spooled, with_fleet};
use crate::times::{pass, until, wall_ms};
use crate::watch::Watch;

/// While the database is dead for 30 s and as long as it takes to start, pushes go on as before, and what is sent over
/// connections that are there is in the history afterwards, from the gateways' disks, written at least five times as
/// fast as it came. What is posted without a connection is refused meanwhile, for whether there is such a user is
/// written in the database: nothing is acknowledged that could be lost.
#[test]
#[ignore = "takes 80 s; ./test faults"]
fn it_is_away_for_thirty_seconds() {
    with_fleet(|fleet| {
        let watch = Watch::start(fleet);
        pass(4.0);
        let before = watch.pairs.window(wall_ms() - 5_000, wall_ms());
        // Nobody can come or change their friends meanwhile.
        let terms = Terms { churn: false, ..Terms::strict(40.0, 5_000) };
        let (_, (killed, healed, waiting, drained)) = judged(fleet, terms, || {
            let killed = wall_ms();
            fleet.cassandra.kill();
            pass(30.0);
            let waiting = spooled(fleet);
            fleet.cassandra.restart();
            let healed = wall_ms();
            (killed, healed, waiting, drain(fleet))
        });
        let during = watch.pairs.window(killed, healed);
        println!("cassandra away: {before} before; {during} during");
        println!(
            "cassandra away: posts (acknowledged, refused, slowest tenth) {:?}",
            watch.poster.between(killed, healed)
        );
        let away_ms = healed - killed;
        let Drained { begun_ms, points, took_ms } = drained;
        let (came, left) = (waiting as f64 / 30.0, points as f64 * 1_000.0 / took_ms.max(1) as f64);
        println!(
            "cassandra away for {away_ms} ms: {waiting} points waited after 30 s ({came:.0} a second); the replay began \
             {begun_ms} ms after it answered, and {points} were written in {took_ms} ms ({left:.0} a second)"
        );
        assert!(waiting > 3_000, "{waiting}");
        assert!(left >= 5.0 * came, "not five times as fast as it came");
        assert!(during.silence_ms <= 1_000, "{during}");
        let (acknowledged, refused, _) = watch.poster.between(killed, healed);
        assert!(acknowledged + refused > 50, "{acknowledged} acknowledged, {refused} refused");
        watch.rest(fleet);
    });
}

/// How the spools were emptied.
struct Drained {
    /// From the database's first answer until fewer points waited.
    begun_ms: u64,
    /// How many waited then at most, in all gateways.
    points: u64,
    /// From then until none did.
    took_ms: u64,
}

fn drain(fleet: &Fleet) -> Drained {
    let healed = wall_ms();
    let (mut points, mut begun) = (spooled(fleet), healed);
    until("the spools empty", 60.0, || {
        let now = spooled(fleet);
        if now >= points {
            (points, begun) = (now, wall_ms());
        }
        now == 0
    });
    Drained { begun_ms: begun - healed, points, took_ms: wall_ms() - begun }
}
