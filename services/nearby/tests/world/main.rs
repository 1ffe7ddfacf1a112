//! The engine as its users meet it: N nodes in one process, on the embedded backends and virtual time.

#![expect(clippy::unwrap_used, reason = "the helpers of tests are tests too")]

mod phone;
mod world;

mod connecting;
mod faults;
mod friendships;
mod moving;
mod sharing;
mod silence;
mod simulation;
