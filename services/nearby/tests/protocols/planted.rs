//! What was planted is found.

use node::Break;

use crate::backends::Mistake;
use crate::fleet::Planted;
use crate::play::Play;
use crate::seeds::{BEGINNING, CHANGES, CONNECT, ORDER, REVOKE};

const ENOUGH: u64 = 1_000;

#[track_caller]
fn found(play: Play, planted: Planted) {
    let mut seeds = 0..ENOUGH;
    let violation = seeds.find_map(|seed| Some((seed, play.run(seed, planted).violation?)));
    let Some((seed, violation)) = violation else { panic!("{planted:?} was not found within {ENOUGH} seeds") };
    println!("{planted:?} was found after {} seeds: {violation}", seed + 1);
}

macro_rules! breaks {
    ($($name:ident: $planted:expr, in $play:expr;)+) => {
        $(
            #[test]
            fn $name() {
                found($play, $planted.into());
            }
        )+
    };
}

impl From<Break> for Planted {
    fn from(planted: Break) -> Planted {
        Planted { in_nodes: Some(planted), in_backends: None }
    }
}

impl From<Mistake> for Planted {
    fn from(planted: Mistake) -> Planted {
        Planted { in_nodes: None, in_backends: Some(planted) }
    }
}

breaks! {
    friends_read_before_registering: Break::ReadBeforeRegistering, in CONNECT;
    entries_ignored_while_connecting: Break::IgnoreEntries, in CONNECT;
    published_before_the_cache: Break::PublishBeforeCache, in ORDER;
    cache_read_before_subscribed: Break::ReadBeforeSubscribed, in BEGINNING;
    no_read_after_a_gap: Break::NoReadAfterGap, in ORDER;
    ordered_by_wall_clock: Break::OrderByWallClock, in ORDER;
    anybodys_entry_released: Mistake::ReleaseAnybodys, in ORDER;
    confirmed_before_applied: Break::ConfirmBeforeApplying, in REVOKE;
    confirmed_with_frames_under_way: Break::ConfirmUnderWay, in REVOKE;
    kept_after_compaction: Break::KeepAfterCompaction, in REVOKE;
    entries_obeyed_as_they_come: Break::ObeyEntries, in CHANGES;
    read_despite_another_entry: Break::ReadDespiteEntry, in CHANGES;
    no_read_after_an_end: Break::EndWithoutRead, in CHANGES;
    nothing_left_behind_is_announced: Mistake::ForgetNotes, in CHANGES;
    counted_from_the_answer: Break::CountFromAnswer, in REVOKE;
    lease_answered_during_the_poll: Break::LeaseDuringPoll, in REVOKE;
    no_lease: Break::NoLease, in REVOKE;
    right_never_asked_for: Break::NeverAsk, in REVOKE;
    right_not_asked_for_when_writing: Break::WriteWithoutAsking, in REVOKE;
    settled_at_once: Mistake::SettleAtOnce, in REVOKE;
    settled_before_the_right_ends: Mistake::SettleBeforeTheEnd, in REVOKE;
}
