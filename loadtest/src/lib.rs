//! Replays recorded movement against a running server, as phones would, and judges every frame that comes back.
//!
//! It is a separate process and an independent judge: it reads the wire with its own types, and knows from what it sent
//! itself what every person may be shown. [`oracle`] holds the rules; the rest carries people to the server and counts.

pub mod access;
pub mod address;
pub mod churn;
pub mod clock;
pub mod connect;
mod crowd;
pub mod engine;
pub mod faults;
pub mod fleet;
pub mod floor;
pub mod friends;
pub mod graph;
pub mod idle;
pub mod oracle;
pub mod people;
pub mod person;
pub mod plan;
pub mod process;
pub mod replay;
pub mod report;
pub mod rest;
pub mod saturate;
pub mod scene;
pub mod socket;
pub mod tally;
pub mod token;
pub mod tracks;
pub mod whereabouts;
pub mod wire;

mod lines;
mod raw;
