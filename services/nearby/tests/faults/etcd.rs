//! etcd dies and comes back.

use servers::fleet::Fleet;

use crate::http::ask;
use crate::judge::{Terms, judged};
use crate::shared_fleet::{fresh_users, tokens, with_fleet};
use crate::times::{pass, wall_ms};
use crate::watch::Watch;

/// For so long a revoke may take, and a gateway may send that cannot read the control log.
const T_MS: u64 = 10_000;
/// How often the log is read when nothing is heard of it: the right to send counts from the last reading.
const POLL_MS: u64 = 2_000;

/// Without churn: the changes of friendships would be refused.
fn calm(seconds: f64, late_ms: u64) -> Terms {
    Terms { churn: false, ..Terms::strict(seconds, late_ms) }
}

/// An outage shorter than T is not noticed by who looks and moves: nobody sees nothing for 1 s.
#[test]
#[ignore = "takes 30 s; ./test faults"]
fn it_is_away_for_five_seconds() {
    with_fleet(|fleet| {
        let watch = Watch::start(fleet);
        let (_, killed) = judged(fleet, calm(14.0, 5_000), || {
            let killed = wall_ms();
            fleet.etcd.kill();
            pass(5.0);
            fleet.etcd.restart();
            pass(3.0);
            killed
        });
        watch.tell("etcd away for 5 s", killed);
        let window = watch.pairs.window(killed, killed + 9_000);
        assert!(window.silence_ms <= 1_000, "{window}");
        watch.rest(fleet);
    });
}

/// In a longer one positions stop T after the control log was last read, for a revoke could not be heard of; they are
/// all back within 2 s after etcd is. Changes of friends are answered 503 meanwhile. The gateways' leases end, and no
/// connection does.
#[test]
#[ignore = "takes 60 s; ./test faults"]
fn it_is_away_for_thirty_seconds() {
    with_fleet(|fleet| {
        let watch = Watch::start(fleet);
        let (report, (killed, healed, refused)) = judged(fleet, calm(42.0, 40_000), || {
            let killed = wall_ms();
            fleet.etcd.kill();
            pass(1.0);
            let mut refused = vec![refusal(fleet)];
            pass(15.0);
            refused.push(refusal(fleet));
            pass(30.0 - (wall_ms() - killed) as f64 / 1_000.0);
            fleet.etcd.restart();
            let healed = wall_ms();
            pass(4.0);
            (killed, healed, refused)
        });
        watch.tell("etcd away for 30 s", killed);
        let last = watch.pairs.last_before(healed - 1_000).unwrap() - killed;
        let restored = watch.pairs.restored_after(healed);
        println!("etcd away for 30 s: positions stopped after {last} ms, all back {restored:?} ms after it answered");
        println!("etcd away for 30 s: a new friendship was answered (status, ms) {refused:?}");
        assert!(last <= T_MS + 200, "{last} ms");
        assert!(last >= T_MS - POLL_MS - 500, "{last} ms");
        assert!(restored.is_some_and(|restored| restored <= 2_000), "{restored:?}");
        assert!(refused.iter().all(|(status, _)| *status == 503), "{refused:?}");
        let returns = watch.pairs.returns_after(killed);
        assert!(returns.is_empty() && report.reconnects == 0, "{returns:?}, {} reconnects", report.reconnects);
        watch.rest(fleet);
    });
}

/// What somebody is told who wants to change their friends, and after how many ms.
fn refusal(fleet: &Fleet) -> (u16, u64) {
    let (user, begun) = (fresh_users(), wall_ms());
    let token = tokens(fleet).backend().unwrap();
    let users = [user, user + 1].map(|user| format!("/v1/users/{user}"));
    for path in &users {
        ask(&fleet.address(), "PUT", path, &token, r#"{"name":"Friend"}"#).unwrap();
    }
    let path = format!("/v1/users/{user}/friends/{}", user + 1);
    let answer = ask(&fleet.address(), "PUT", &path, &token, "").unwrap();
    (answer.status, wall_ms() - begun)
}
