//! The protocols that are easy to get wrong, against the real code: connect, write order, revoke and the right to send.
//!
//! A run is a few people on two or three nodes for some seconds of virtual time. Its seed decides everything: who does
//! what when, how long each call takes, what fails, who is cut off or stopped, how slowly sockets take what is written.
//! A judge looks on where frames are handed to a socket; when all is quiet everybody has to hold the truth.
//!
//! ```text
//! cargo test -p nearby --test protocols                             as many seeds as an ordinary test run has time for
//! SEED=17 cargo test -p nearby --test protocols revoke              one seed, and everything that happens
//! SEEDS=100000 cargo test --release -p nearby --test protocols holds    so many seeds of each; SEEDS=5000..9000 these
//! ```
//!
//! A search that finds nothing shows something only if it finds what was planted: `planted` takes away, one at a time,
//! what each protocol rests on, and each time a violation has to turn up within 1,000 seeds.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "the helpers of tests are tests too")]

#[path = "../world/application.rs"]
mod application;
mod chaos;
mod connection;
mod faults;
mod fleet;
mod judge;
mod play;
mod planted;
mod backends;
mod records;
mod regressions;
mod seeds;

use std::sync::LazyLock;

/// One seed is replayed: everything that happens is told.
pub(crate) static LOUD: LazyLock<bool> = LazyLock::new(|| seeds::one().is_some());
