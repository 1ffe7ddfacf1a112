//! The contract of [`Discovery`], as tests.

#![expect(clippy::unwrap_used, reason = "a suite panics when a sentence does not hold")]

use std::sync::Arc;
use std::time::Duration;

use model::NodeId;
use tokio::task::JoinSet;

use super::{Discovery, Document, LEASE};
use crate::conformance::{Harness, fresh_name, fresh_node};

/// Makes a test of every sentence: `discovery_conformance!([tokio::test] harness)`.
#[macro_export]
macro_rules! discovery_conformance {
    ($attribute:tt $harness:expr) => {
        $crate::conformance_tests! { $attribute $harness, discovery:
            a_member_that_says_nothing_stays_one_for_the_lease,
            keepalive_prolongs_the_lease,
            joining_again_prolongs_the_lease,
            keepalive_of_no_member_is_an_error,
            members_are_listed_ascending_by_every_node,
            leave_ends_the_lease_at_once,
            a_document_that_does_not_exist_has_version_0,
            swap_replaces_only_the_version_given,
            of_swaps_at_the_same_time_exactly_one_succeeds,
        }
    };
}

type Directory = Arc<dyn Discovery>;

/// How long after its end a lease may still be counted: stores look now and then.
const LATE: Duration = Duration::from_secs(4);

/// How long before the end it must still be counted: the calls take time.
const EARLY: Duration = Duration::from_secs(2);

async fn is_member(discovery: &Directory, node: NodeId) -> bool {
    discovery.members().await.unwrap().contains(&node)
}

/// Sentences 1 and 2.
pub async fn a_member_that_says_nothing_stays_one_for_the_lease(harness: &impl Harness<Node = Directory>) {
    let [first, second] = [harness.node().await, harness.node().await];
    let node = fresh_node();
    assert!(!is_member(&second, node).await);
    first.join(node).await.unwrap();
    assert!(is_member(&second, node).await);
    tokio::time::sleep(LEASE - EARLY).await;
    assert!(is_member(&second, node).await, "ended too early");
    tokio::time::sleep(EARLY + LATE).await;
    assert!(!is_member(&second, node).await, "ended too late");
}

/// Sentence 1.
pub async fn keepalive_prolongs_the_lease(harness: &impl Harness<Node = Directory>) {
    let [first, second] = [harness.node().await, harness.node().await];
    let node = fresh_node();
    first.join(node).await.unwrap();
    for _ in 0..3 {
        tokio::time::sleep(LEASE / 2).await;
        first.keepalive(node).await.unwrap();
    }
    tokio::time::sleep(LEASE - EARLY).await;
    assert!(is_member(&second, node).await);
    tokio::time::sleep(EARLY + LATE).await;
    assert!(!is_member(&second, node).await);
}

/// Sentence 1: a node whose connection was lost may join anew.
pub async fn joining_again_prolongs_the_lease(harness: &impl Harness<Node = Directory>) {
    let [first, second] = [harness.node().await, harness.node().await];
    let node = fresh_node();
    first.join(node).await.unwrap();
    tokio::time::sleep(LEASE / 2).await;
    second.join(node).await.unwrap();
    tokio::time::sleep(LEASE - EARLY).await;
    assert!(is_member(&first, node).await);
    second.keepalive(node).await.unwrap();
}

/// Sentence 1.
pub async fn keepalive_of_no_member_is_an_error(harness: &impl Harness<Node = Directory>) {
    let discovery = harness.node().await;
    let [never, left, late] = [(); 3].map(|()| fresh_node());
    discovery.join(left).await.unwrap();
    discovery.leave(left).await.unwrap();
    discovery.join(late).await.unwrap();
    tokio::time::sleep(LEASE + LATE).await;
    for node in [never, left, late] {
        discovery.keepalive(node).await.unwrap_err();
        assert!(!is_member(&discovery, node).await, "a refused keepalive makes no member");
    }
    discovery.join(late).await.unwrap();
    discovery.keepalive(late).await.unwrap();
}

/// Sentence 2.
pub async fn members_are_listed_ascending_by_every_node(harness: &impl Harness<Node = Directory>) {
    let nodes = [harness.node().await, harness.node().await];
    let mut ids = [(); 6].map(|()| fresh_node());
    for (turn, id) in ids.iter().rev().enumerate() {
        nodes[turn % 2].join(*id).await.unwrap();
    }
    ids.sort();
    for node in &nodes {
        assert_eq!(node.members().await.unwrap(), ids);
    }
}

/// Sentence 2.
pub async fn leave_ends_the_lease_at_once(harness: &impl Harness<Node = Directory>) {
    let [first, second] = [harness.node().await, harness.node().await];
    let [leaves, stays] = [(); 2].map(|()| fresh_node());
    first.join(leaves).await.unwrap();
    second.join(stays).await.unwrap();
    for _ in 0..2 {
        first.leave(leaves).await.unwrap();
        assert_eq!(second.members().await.unwrap(), [stays]);
    }
}

/// Sentence 3.
pub async fn a_document_that_does_not_exist_has_version_0(harness: &impl Harness<Node = Directory>) {
    let discovery = harness.node().await;
    let nothing = Document { version: 0, text: String::new() };
    assert_eq!(discovery.document(&fresh_name("ring")).await, Ok(nothing));
}

/// Sentences 3 and 4.
pub async fn swap_replaces_only_the_version_given(harness: &impl Harness<Node = Directory>) {
    let [first, second] = [harness.node().await, harness.node().await];
    let [name, other] = ["ring", "pins"].map(fresh_name);
    assert_eq!(first.swap(&name, 7, "early").await, Ok(false), "there is no version 7");
    assert_eq!(first.swap(&name, 0, "one").await, Ok(true));
    let one = second.document(&name).await.unwrap();
    assert_eq!(one.text, "one");
    assert!(one.version > 0);
    assert_eq!(second.swap(&name, 0, "again").await, Ok(false));
    assert_eq!(second.swap(&name, one.version, "two").await, Ok(true));
    assert_eq!(first.swap(&name, one.version, "late").await, Ok(false));
    let two = first.document(&name).await.unwrap();
    assert_eq!(two.text, "two");
    assert!(two.version > one.version);
    assert_eq!(first.document(&other).await.unwrap().version, 0);
}

/// Sentence 4.
pub async fn of_swaps_at_the_same_time_exactly_one_succeeds(harness: &impl Harness<Node = Directory>) {
    let nodes = [harness.node().await, harness.node().await];
    let name = fresh_name("ring");
    for round in 0..10 {
        let version = nodes[0].document(&name).await.unwrap().version;
        let mut racers = JoinSet::new();
        for racer in 0..8 {
            let (node, name) = (nodes[racer % 2].clone(), name.clone());
            let text = format!("{round} {racer}");
            racers.spawn(async move { node.swap(&name, version, &text).await.unwrap().then_some(text) });
        }
        let winners: Vec<String> = racers.join_all().await.into_iter().flatten().collect();
        assert_eq!(winners, [nodes[1].document(&name).await.unwrap().text], "round {round}");
    }
}
