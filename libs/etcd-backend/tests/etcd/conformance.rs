//! Every sentence of both contracts.
//!
//! Most wait for leases and none needs the processor, so they all run at the same time: the test runner by itself
//! starts only as many as there are cores.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;

use crate::{Cluster, Discoveries, Logs};

/// A test that runs these sentences side by side, and one that sees that no sentence of the suite is missing.
macro_rules! side_by_side {
    ($harness:expr, $port:ident: $($sentence:ident),+ $(,)?) => {
        mod $port {
            use super::*;

            #[test]
            fn every_sentence_holds() {
                let sentences: [(&str, fn()); _] = [$((stringify!($sentence), || {
                    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                    runtime.block_on(ports::$port::conformance::$sentence(&$harness));
                })),+];
                run(&sentences);
            }

            #[test]
            fn no_sentence_is_left_out() {
                let suite = include_str!(concat!("../../../ports/src/", stringify!($port), "/conformance.rs"));
                let functions = suite.split("pub async fn ").skip(1).map(|function| function.split_once('(').unwrap().0);
                assert_eq!(functions.collect::<Vec<&str>>(), [$(stringify!($sentence)),+]);
            }
        }
    };
}

fn run(sentences: &[(&'static str, fn())]) {
    let held: Vec<(&str, bool)> = thread::scope(|scope| {
        let started = sentences.iter().map(|(name, sentence)| {
            let thread = thread::Builder::new().name((*name).to_owned());
            (*name, thread.spawn_scoped(scope, move || catch_unwind(AssertUnwindSafe(sentence)).is_ok()).unwrap())
        });
        let started: Vec<_> = started.collect();
        started.into_iter().map(|(name, thread)| (name, thread.join().unwrap())).collect()
    });
    let broken: Vec<&str> = held.into_iter().filter(|(_, held)| !held).map(|(name, _)| name).collect();
    assert!(broken.is_empty(), "these do not hold: {broken:?}");
}

side_by_side!(Discoveries(Cluster::in_shared()), discovery:
    a_member_that_says_nothing_stays_one_for_the_lease,
    keepalive_prolongs_the_lease,
    joining_again_prolongs_the_lease,
    keepalive_of_no_member_is_an_error,
    members_are_listed_ascending_by_every_node,
    leave_ends_the_lease_at_once,
    a_document_that_does_not_exist_has_version_0,
    swap_replaces_only_the_version_given,
    of_swaps_at_the_same_time_exactly_one_succeeds,
);

side_by_side!(Logs(Cluster::in_shared()), control:
    the_end_is_the_index_of_the_last_entry,
    an_index_that_the_log_never_gave_is_told_from_the_end,
    what_was_appended_is_there_for_every_later_read,
    indexes_ascend_and_a_read_continues_where_the_last_ended,
    every_node_reads_the_entries_in_one_order,
    without_senders_everything_is_settled,
    settled_waits_until_each_sender_has_confirmed,
    who_confirmed_later_entries_has_confirmed_earlier_ones,
    settled_does_not_wait_for_who_leaves,
    settled_gives_up_on_a_sender_when_its_right_to_send_is_over,
    erased_waits_until_each_member_has_erased,
    erased_waits_for_nobody_who_leaves,
    erased_is_an_error_when_a_member_does_not_erase,
    changed_returns_when_there_is_something,
    changed_returns_at_once_when_there_has_been_something,
    changed_may_be_cancelled,
);
