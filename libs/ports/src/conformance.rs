//! What all conformance suites share.
//!
//! The suite of a port is `<port>::conformance`: one async function for each sentence of the contract, or several, each
//! panicking when the sentence does not hold. A backend's crate supplies a [`Harness`] and makes tests of them all:
//!
//! ```text
//! ports::cache_conformance!([tokio::test] MyHarness::new().await);
//! ```
//!
//! A suite assumes nothing about the backend: users are fresh in every test, waits are short real ones (or virtual, when
//! the test runs on paused time), and every test talks to the backend as two nodes.

use std::future::Future;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use model::{NodeId, UserId};

use crate::Clock;

/// A backend under test.
///
/// The tests of one backend run side by side and may share its servers, but not what has no user in its name: members,
/// documents and the control log of one harness are its own.
#[async_trait]
pub trait Harness: Send + Sync {
    /// One node's connection: `Arc<dyn Port>`, or what the suite says.
    type Node: Send;

    /// Connects another node to the same backend.
    async fn node(&self) -> Self::Node;

    /// The clock that the nodes were given.
    fn clock(&self) -> Clock {
        Clock::System
    }
}

/// Longer than any backend needs for anything that it does at once.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Waits, and panics when it takes longer than [`PATIENCE`].
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    let outcome = tokio::time::timeout(PATIENCE, future).await;
    outcome.unwrap_or_else(|_| panic!("{what}: nothing within {PATIENCE:?}"))
}

/// A user whom nobody has used: not in this process, nor in an earlier run against the same servers.
pub fn fresh_user() -> UserId {
    UserId(fresh())
}

/// So many fresh users, ascending.
pub fn fresh_users<const N: usize>() -> [UserId; N] {
    let mut users = [(); N].map(|()| fresh_user());
    users.sort();
    users
}

/// A node that nobody has used.
pub fn fresh_node() -> NodeId {
    NodeId(fresh())
}

/// A name that nobody has used.
pub fn fresh_name(what: &str) -> String {
    format!("{what}-{:x}", fresh())
}

/// Below 2^62, so that ids stay in the half that applications choose from.
fn fresh() -> u64 {
    static RUN: LazyLock<u64> = LazyLock::new(|| RandomState::new().build_hasher().finish() >> 2 & !0xFF_FFFF);
    static NEXT: AtomicU64 = AtomicU64::new(1);
    *RUN + NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Makes a test of each function of a suite; see the macros of the ports.
#[doc(hidden)]
#[macro_export]
macro_rules! conformance_tests {
    ($attribute:tt $harness:expr, $port:ident: $($sentence:ident),+ $(,)?) => {
        $(
            #$attribute
            async fn $sentence() {
                $crate::$port::conformance::$sentence(&$harness).await;
            }
        )+
    };
}

#[cfg(test)]
mod tests {
    /// A function that its suite's macro does not name would never run.
    #[test]
    fn every_sentence_is_run() {
        let suites = [
            include_str!("broker/conformance.rs"),
            include_str!("cache/conformance.rs"),
            include_str!("control/conformance.rs"),
            include_str!("discovery/conformance.rs"),
            include_str!("friendships/conformance.rs"),
            include_str!("history/conformance.rs"),
            include_str!("sessions/conformance.rs"),
            include_str!("users/conformance.rs"),
        ];
        for suite in suites {
            let (list, functions) = suite.split_once("pub async fn ").unwrap();
            for function in functions.split("pub async fn ") {
                let (name, _) = function.split_once(['(', '<']).unwrap();
                assert!(list.contains(&format!(" {name},")), "{name} is not in its suite's list");
            }
        }
    }
}
