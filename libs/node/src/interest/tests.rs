use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rustc_hash::FxHashSet;

use super::*;

/// How many users are looked at in one go, at the most.
const BATCH: usize = 4;

const START: MonotonicMs = MonotonicMs(1_000);
/// When the grace period of those that were left at the start is over.
const OVER: MonotonicMs = MonotonicMs(1_000 + limits::LINGER.as_millis() as u64);

impl Interest {
    /// Everything that must hold whenever no call is in the table.
    fn check(&self) {
        let due = self.due.lock();
        let queued: FxHashSet<UserId> = due.iter().map(|Reverse((_, user))| *user).collect();
        assert_eq!(queued.len(), due.len(), "each user at most once");
        let (mut entries, mut counts) = (0, (0, 0));
        for stripe in &self.stripes {
            for (user, entry) in &stripe.lock().entries {
                assert_eq!(entry.queued, queued.contains(user));
                let under_way = matches!(entry.held, Held::Asking | Held::Leaving);
                assert!(entry.wanted != 0 || entry.queued || under_way, "a leak: {entry:?}");
                entries += usize::from(entry.queued);
                counts = (counts.0 + entry.counts().0, counts.1 + entry.counts().1);
            }
        }
        assert_eq!(entries, due.len(), "only who is in the table");
        drop(due);
        assert_eq!(self.counts(), counts);
    }

    fn subscribed(&self, users: impl IntoIterator<Item = u64>) {
        for user in users.into_iter().map(UserId) {
            self.begin(0, user);
            let work = self.take_on(user).unwrap();
            assert!(!self.report(user, work, true, true));
        }
    }

    fn ended(&self, users: impl IntoIterator<Item = u64>, now: MonotonicMs) {
        users.into_iter().for_each(|user| self.end(0, UserId(user), now));
    }
}

#[test]
fn all_whose_grace_period_is_over_go_and_nobody_else_is_looked_at() {
    let interest = Interest::new();
    interest.subscribed(0..100_000);
    interest.ended(0..10, START);
    interest.ended(10..20, MonotonicMs(START.0 + 1));
    assert_eq!(interest.take_due(MonotonicMs(OVER.0 - 1), BATCH), None);
    let mut left = Vec::new();
    let mut batches = Vec::new();
    while let Some(batch) = interest.take_due(OVER, BATCH) {
        batches.push(batch.len());
        left.extend(batch);
    }
    assert_eq!(batches, [4, 4, 2]);
    left.sort();
    assert_eq!(left, (0..10).map(UserId).collect::<Vec<_>>());
    left.iter().for_each(|&user| assert!(!interest.left(user, true, OVER)));
    interest.check();
    assert_eq!(interest.counts(), (99_990, 0));
}

#[test]
fn who_is_watched_again_stays_and_waits_anew_when_left_again() {
    let interest = Interest::new();
    interest.subscribed(0..3);
    interest.ended(0..3, START);
    interest.begin(0, UserId(1));
    interest.begin(0, UserId(2));
    let later = MonotonicMs(START.0 + 5_000);
    interest.ended([2], later);
    interest.check();
    assert_eq!(interest.take_due(OVER, BATCH), Some(vec![UserId(0)]));
    assert_eq!(interest.take_due(OVER, BATCH), None, "each was looked at once");
    interest.check();
    assert_eq!(interest.take_due(later.after(limits::LINGER), BATCH), Some(vec![UserId(2)]));
}

/// A call that failed may have taken effect.
#[test]
fn what_a_failed_call_did_is_not_guessed() {
    let interest = Interest::new();
    interest.subscribed([1, 2]);
    interest.ended([1, 2], START);
    assert_eq!(interest.take_due(OVER, BATCH).unwrap().len(), 2);
    interest.begin(0, UserId(1));
    assert_eq!(interest.take_on(UserId(1)), None, "a call is under way");
    assert!(interest.left(UserId(1), false, OVER), "it is wanted again");
    assert!(!interest.left(UserId(2), false, OVER));
    assert!(interest.take_on(UserId(1)).unwrap().subscribe, "again: it may have been unsubscribed");
    assert_eq!(interest.take_due(OVER, BATCH), None);
    assert_eq!(interest.take_due(OVER.after(limits::RETRY), BATCH), Some(vec![UserId(2)]), "tried again");

    // One that was given up before it was known whether it is subscribed.
    interest.begin(0, UserId(3));
    let work = interest.take_on(UserId(3)).unwrap();
    interest.ended([3], OVER);
    assert!(!interest.report(UserId(3), work, false, false));
    interest.check();
    assert_eq!(interest.take_due(OVER.after(limits::LINGER), BATCH), Some(vec![UserId(3)]), "it may be subscribed");
}

#[test]
fn who_was_never_asked_for_leaves_nothing_behind() {
    let interest = Interest::new();
    (0..100).for_each(|user| interest.begin(0, UserId(user)));
    interest.ended(0..100, START);
    interest.check();
    assert!(interest.stripes.iter().all(|stripe| stripe.lock().entries.is_empty()));
    assert_eq!(interest.take_due(MonotonicMs(u64::MAX), BATCH), None);
}

/// Users come and go while calls of both kinds are under way and end well or not. The broker that is beside the table
/// does what it is asked, also where it answers that it failed; at the end it holds who is wanted, and nobody else.
#[test]
fn whatever_happens_the_broker_holds_in_the_end_who_is_wanted() {
    for seed in 0..500 {
        let mut rng = StdRng::seed_from_u64(seed);
        let interest = Interest::new();
        let mut now = START;
        let mut wanted = [0_u32; 6];
        let mut broker: FxHashSet<UserId> = FxHashSet::default();
        let (mut asking, mut leaving): (Vec<(UserId, Work)>, Vec<UserId>) = Default::default();
        for step in 0..400 {
            let healed = step >= 300;
            let user = UserId(rng.random_range(0..6));
            let (at, shard) = (user.0 as usize, rng.random_range(0..2_usize));
            let fails = !healed && rng.random_range(0..3) == 0;
            let takes_effect = !fails || rng.random_bool(0.5);
            match rng.random_range(0..8) {
                0 if !healed => {
                    interest.begin(shard, user);
                    wanted[at] |= 1 << shard;
                }
                1 if !healed => {
                    interest.end(shard, user, now);
                    wanted[at] &= !(1 << shard);
                }
                2 => interest.lost(user),
                3 => asking.extend(interest.take_on(user).map(|work| (user, work))),
                4 if !asking.is_empty() => {
                    let (user, work) = asking.swap_remove(rng.random_range(0..asking.len()));
                    assert!(work.subscribe || broker.contains(&user), "seed {seed}: read without a subscription");
                    if work.subscribe && takes_effect {
                        broker.insert(user);
                    }
                    interest.report(user, work, !fails, !fails);
                }
                5 => leaving.extend(interest.take_due(now, BATCH).unwrap_or_default()),
                6 if !leaving.is_empty() => {
                    let user = leaving.swap_remove(rng.random_range(0..leaving.len()));
                    if takes_effect {
                        broker.remove(&user);
                    }
                    interest.left(user, !fails, now);
                }
                _ => now = now.after(Duration::from_secs(rng.random_range(0..20))),
            }
            interest.check();
        }
        // Calls end, and what is to be done is.
        for _ in 0..4 {
            for (user, work) in asking.drain(..) {
                broker.extend(work.subscribe.then_some(user));
                interest.report(user, work, true, true);
            }
            now = now.after(2 * limits::LINGER);
            while let Some(due) = interest.take_due(now, BATCH) {
                leaving.extend(due);
            }
            for user in leaving.drain(..) {
                broker.remove(&user);
                interest.left(user, true, now);
            }
            asking.extend((0..6).map(UserId).filter_map(|user| Some((user, interest.take_on(user)?))));
        }
        interest.check();
        let expected: FxHashSet<UserId> = (0..6).filter(|&user| wanted[user as usize] != 0).map(UserId).collect();
        assert_eq!(broker, expected, "seed {seed}");
        assert_eq!(interest.counts(), (expected.len(), 0), "seed {seed}");
    }
}
