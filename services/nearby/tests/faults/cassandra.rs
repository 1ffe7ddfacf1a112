//! The database dies and comes back.

use crate::judge::{Terms, judged};
use crate::shared_fleet::{spooled, with_fleet};
use crate::times::{pass, until, wall_ms};
use crate::watch::Watch;

/// While the database is dead for 30 s and as long as it takes to start, pushes go on as before, positions that are
/// posted are acknowledged as durable, and all of them are in the history afterwards, from the gateways' disks. What
/// waited there is written at least five times as fast as it came.
#[test]
#[ignore = "takes 80 s; ./test faults"]
fn it_is_away_for_thirty_seconds() {
    with_fleet(|fleet| {
        let watch = Watch::start(fleet);
        pass(4.0);
        let before = watch.pairs.window(wall_ms() - 5_000, wall_ms());
        // Nobody can come or change their friends meanwhile.
        let terms = Terms { churn: false, ..Terms::strict(40.0, 5_000) };
        let (_, (killed, healed, waiting, drained_ms)) = judged(fleet, terms, || {
            let killed = wall_ms();
            fleet.cassandra.kill();
            pass(30.0);
            let waiting = spooled(fleet);
            fleet.cassandra.restart();
            let healed = wall_ms();
            (killed, healed, waiting, until("the spools empty", 60.0, || spooled(fleet) == 0))
        });
        let during = watch.pairs.window(killed, healed);
        println!("cassandra away: {before} before; {during} during");
        println!(
            "cassandra away: posts (acknowledged, refused, slowest tenth) {:?}",
            watch.poster.between(killed, healed)
        );
        println!(
            "cassandra away for {:.1} s: {waiting} points waited after 30 s; the spools were empty {drained_ms} ms after \
             it answered",
            (healed - killed) as f64 / 1_000.0
        );
        assert!(waiting > 3_000, "{waiting}");
        assert!(5 * drained_ms <= healed - killed, "not five times as fast as it came");
        assert!(during.silence_ms <= 1_000, "{during}");
        let (acknowledged, refused, _) = watch.poster.between(killed, healed);
        assert!(acknowledged > 100 && refused == 0, "{acknowledged} acknowledged, {refused} refused");
        watch.rest(fleet);
    });
}
