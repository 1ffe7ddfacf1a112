//! The contract of [`ControlLog`], as tests.

#![expect(clippy::unwrap_used, reason = "a suite panics when a sentence does not hold")]

use std::sync::Arc;
use std::time::Duration;

use model::{NodeId, PolicyVersion};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::{ControlEntry, ControlLog, ControlRecord, LogRead, RIGHT_TO_SEND};
use crate::Discovery;
use crate::conformance::{Harness, fresh_node, fresh_user, soon};

/// Makes a test of every sentence: `control_conformance!([tokio::test] harness)`. A node is its control log and its
/// discovery.
#[macro_export]
macro_rules! control_conformance {
    ($attribute:tt $harness:expr) => {
        $crate::conformance_tests! { $attribute $harness, control:
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
        }
    };
}

type Node = (Arc<dyn ControlLog>, Arc<dyn Discovery>);

/// Long enough for anything that wrongly returns to return.
const A_WHILE: Duration = Duration::from_millis(500);

fn entry() -> ControlEntry {
    ControlEntry::Unfriended(fresh_user(), fresh_user())
}

async fn read(log: &Arc<dyn ControlLog>, index: PolicyVersion) -> (Vec<ControlRecord>, PolicyVersion) {
    match log.read_after(index).await.unwrap() {
        LogRead::Entries { records, end } => (records, end),
        LogRead::Compacted { .. } => panic!("entries of this test were compacted"),
    }
}

/// The end of the log before the test, for backends that do not begin at 0.
async fn end(log: &Arc<dyn ControlLog>) -> PolicyVersion {
    log.end().await.unwrap()
}

/// Sentence 2.
pub async fn the_end_is_the_index_of_the_last_entry(harness: &impl Harness<Node = Node>) {
    let [(one, _), (other, _)] = [harness.node().await, harness.node().await];
    for _ in 0..3 {
        let index = one.append(entry()).await.unwrap();
        assert!(other.end().await.unwrap() >= index);
        let end = other.end().await.unwrap();
        assert_eq!(read(&one, end).await.0, [], "nothing is after the end");
    }
}

/// [`LogRead::Compacted`]: who has applied what the log does not know any more has to begin anew.
pub async fn an_index_that_the_log_never_gave_is_told_from_the_end(harness: &impl Harness<Node = Node>) {
    let (log, _) = harness.node().await;
    let given = log.append(entry()).await.unwrap();
    let never = PolicyVersion(given.0 + 1_000_000_000_000);
    let read = log.read_after(never).await.unwrap();
    assert!(matches!(read, LogRead::Compacted { end } if end >= given && end < never), "{read:?}");
}

/// Sentences 1 and 2.
pub async fn what_was_appended_is_there_for_every_later_read(harness: &impl Harness<Node = Node>) {
    let [(writer, _), (reader, _)] = [harness.node().await, harness.node().await];
    let mut index = end(&reader).await;
    let (one, other) = (fresh_user(), fresh_user());
    let kinds = [
        ControlEntry::Befriended(one, other),
        ControlEntry::Unfriended(other, one),
        ControlEntry::UserDeleted(one),
        ControlEntry::UserForgotten(one),
    ];
    for entry in kinds.into_iter().cycle().take(60) {
        let appended = ControlRecord { index: writer.append(entry).await.unwrap(), entry };
        let (records, end) = read(&reader, index).await;
        assert_eq!(records, [appended]);
        index = end;
    }
}

/// Sentences 1 and 2.
pub async fn indexes_ascend_and_a_read_continues_where_the_last_ended(harness: &impl Harness<Node = Node>) {
    let (log, _) = harness.node().await;
    let start = end(&log).await;
    let mut appended = Vec::new();
    for _ in 0..10 {
        let entry = entry();
        appended.push(ControlRecord { index: log.append(entry).await.unwrap(), entry });
    }
    assert!(start < appended[0].index && appended.is_sorted_by(|a, b| a.index < b.index));
    for already_read in 0..10 {
        let (records, end) = read(&log, appended[already_read].index).await;
        assert_eq!(records, appended[already_read + 1..]);
        assert!(end >= appended[9].index);
        let (nothing, same) = read(&log, end).await;
        assert_eq!((nothing, same), (vec![], end), "after the end there is nothing");
    }
}

/// Sentence 3.
pub async fn every_node_reads_the_entries_in_one_order(harness: &impl Harness<Node = Node>) {
    let nodes = [harness.node().await, harness.node().await];
    let start = end(&nodes[0].0).await;
    let mut writers = JoinSet::new();
    for writer in 0..8 {
        let log = nodes[writer % 2].0.clone();
        writers.spawn(async move {
            for _ in 0..10 {
                log.append(entry()).await.unwrap();
            }
        });
    }
    writers.join_all().await;
    let (records, _) = read(&nodes[0].0, start).await;
    assert_eq!(records.len(), 80);
    assert!(records.is_sorted_by(|a, b| a.index < b.index));
    assert_eq!(read(&nodes[1].0, start).await.0, records);
}

/// Sentence 5.
pub async fn without_senders_everything_is_settled(harness: &impl Harness<Node = Node>) {
    let (log, _) = harness.node().await;
    let index = log.append(entry()).await.unwrap();
    timeout(RIGHT_TO_SEND / 2, log.settled(index)).await.expect("waited for nobody").unwrap();
}

/// Joins senders, and appends an entry for them to confirm.
async fn with_senders(nodes: &[Node; 2]) -> ([NodeId; 2], PolicyVersion) {
    let senders = [fresh_node(), fresh_node()];
    for (sender, (_, discovery)) in senders.iter().zip(nodes) {
        discovery.join(*sender).await.unwrap();
    }
    (senders, nodes[0].0.append(entry()).await.unwrap())
}

/// Sentences 4 and 5.
pub async fn settled_waits_until_each_sender_has_confirmed(harness: &impl Harness<Node = Node>) {
    let nodes = [harness.node().await, harness.node().await];
    let [(first, _), (second, _)] = &nodes;
    let early = first.append(entry()).await.unwrap();
    let (senders, index) = with_senders(&nodes).await;
    let mut settled = std::pin::pin!(first.settled(index));
    assert!(timeout(A_WHILE, &mut settled).await.is_err(), "nobody has confirmed");
    first.confirm(senders[0], index).await.unwrap();
    assert!(timeout(A_WHILE, &mut settled).await.is_err(), "one of two has confirmed");
    second.confirm(senders[1], early).await.unwrap();
    assert!(timeout(A_WHILE, &mut settled).await.is_err(), "one has confirmed only what was before");
    second.confirm(senders[1], index).await.unwrap();
    timeout(RIGHT_TO_SEND / 4, settled).await.expect("all have confirmed").unwrap();
}

/// Sentences 4 and 5.
pub async fn who_confirmed_later_entries_has_confirmed_earlier_ones(harness: &impl Harness<Node = Node>) {
    let nodes = [harness.node().await, harness.node().await];
    let (senders, index) = with_senders(&nodes).await;
    let later = nodes[1].0.append(entry()).await.unwrap();
    for (sender, (log, _)) in senders.iter().zip(&nodes) {
        log.confirm(*sender, later).await.unwrap();
        // Said late, and changes nothing.
        log.confirm(*sender, index).await.unwrap();
    }
    for index in [index, later] {
        timeout(RIGHT_TO_SEND / 4, nodes[0].0.settled(index)).await.expect("all have confirmed").unwrap();
    }
}

/// Sentence 5.
pub async fn settled_does_not_wait_for_who_leaves(harness: &impl Harness<Node = Node>) {
    let nodes = [harness.node().await, harness.node().await];
    let (senders, index) = with_senders(&nodes).await;
    let mut settled = std::pin::pin!(nodes[0].0.settled(index));
    nodes[1].1.leave(senders[0]).await.unwrap();
    assert!(timeout(A_WHILE, &mut settled).await.is_err(), "the other has neither left nor confirmed");
    nodes[1].1.leave(senders[1]).await.unwrap();
    timeout(RIGHT_TO_SEND / 4, settled).await.expect("both have left").unwrap();
}

/// Sentence 5.
pub async fn settled_gives_up_on_a_sender_when_its_right_to_send_is_over(harness: &impl Harness<Node = Node>) {
    let nodes = [harness.node().await, harness.node().await];
    let (senders, index) = with_senders(&nodes).await;
    nodes[0].0.confirm(senders[0], index).await.unwrap();
    let began = harness.clock().monotonic();
    timeout(RIGHT_TO_SEND * 2, nodes[0].0.settled(index)).await.expect("waited for ever").unwrap();
    let took = harness.clock().monotonic().since(began);
    assert!(took >= RIGHT_TO_SEND, "the silent sender may still send after {took:?}");
    assert!(took < RIGHT_TO_SEND + Duration::from_secs(3), "took {took:?}");
}

/// Sentence 6.
pub async fn erased_waits_until_each_member_has_erased(harness: &impl Harness<Node = Node>) {
    let nodes = [harness.node().await, harness.node().await];
    let [(first, _), (second, _)] = &nodes;
    let (members, index) = with_senders(&nodes).await;
    let mut erased = std::pin::pin!(first.erased(index));
    for (member, (log, _)) in members.iter().zip(&nodes) {
        log.confirm(*member, index).await.unwrap();
    }
    assert!(timeout(A_WHILE, &mut erased).await.is_err(), "having applied the entry is not having erased");
    first.confirm_erased(members[0], index).await.unwrap();
    assert!(timeout(A_WHILE, &mut erased).await.is_err(), "one of two has erased");
    second.confirm_erased(members[1], index).await.unwrap();
    timeout(RIGHT_TO_SEND / 4, erased).await.expect("both have erased").unwrap();
    // Said late, and changes nothing.
    second.confirm_erased(members[1], PolicyVersion(0)).await.unwrap();
    timeout(RIGHT_TO_SEND / 4, second.erased(index)).await.expect("both have erased").unwrap();
}

/// Sentence 6.
pub async fn erased_waits_for_nobody_who_leaves(harness: &impl Harness<Node = Node>) {
    let nodes = [harness.node().await, harness.node().await];
    let (members, index) = with_senders(&nodes).await;
    let mut erased = std::pin::pin!(nodes[0].0.erased(index));
    nodes[1].1.leave(members[0]).await.unwrap();
    assert!(timeout(A_WHILE, &mut erased).await.is_err(), "the other has neither left nor erased");
    nodes[1].1.leave(members[1]).await.unwrap();
    timeout(RIGHT_TO_SEND / 4, erased).await.expect("both have left").unwrap();
}

/// Sentence 6.
pub async fn erased_is_an_error_when_a_member_does_not_erase(harness: &impl Harness<Node = Node>) {
    let (log, discovery) = harness.node().await;
    let member = fresh_node();
    discovery.join(member).await.unwrap();
    let index = log.append(entry()).await.unwrap();
    let lives = async {
        loop {
            tokio::time::sleep(Duration::from_secs(3)).await;
            discovery.keepalive(member).await.unwrap();
        }
    };
    let error = tokio::select! {
        erased = log.erased(index) => erased.unwrap_err(),
        () = lives => unreachable!("it lives for ever"),
    };
    assert!(error.is_transient());
    discovery.leave(member).await.unwrap();
}

/// Sentence 8.
pub async fn changed_returns_when_there_is_something(harness: &impl Harness<Node = Node>) {
    let [(writer, _), (reader, _)] = [harness.node().await, harness.node().await];
    let mut index = end(&reader).await;
    for _ in 0..5 {
        let append = async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            writer.append(entry()).await.unwrap()
        };
        let poll = async {
            // It may return too early: then one asks again.
            loop {
                reader.changed(index).await;
                let (records, end) = read(&reader, index).await;
                if let [record] = records[..] {
                    return (record.index, end);
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let (appended, (polled, end)) = soon("changed", async { tokio::join!(append, poll) }).await;
        assert_eq!(appended, polled);
        index = end;
    }
}

/// Sentence 8.
pub async fn changed_returns_at_once_when_there_has_been_something(harness: &impl Harness<Node = Node>) {
    let [(writer, _), (reader, _)] = [harness.node().await, harness.node().await];
    let index = end(&reader).await;
    writer.append(entry()).await.unwrap();
    soon("changed", reader.changed(index)).await;
}

/// Sentence 8.
pub async fn changed_may_be_cancelled(harness: &impl Harness<Node = Node>) {
    let [(writer, _), (reader, _)] = [harness.node().await, harness.node().await];
    let index = end(&reader).await;
    for _ in 0..3 {
        let _ = timeout(Duration::from_millis(50), reader.changed(index)).await;
    }
    writer.append(entry()).await.unwrap();
    soon("changed", reader.changed(index)).await;
}
