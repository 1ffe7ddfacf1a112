//! What leaves the process, as small contracts: each in prose above its trait, with an embedded backend beside it and
//! one conformance suite that every backend passes.
//!
//! `broker/ cache/ history/ users/ friendships/ sessions/ control/ discovery/`, each `{mod, embedded, conformance}.rs`.
//! A conformance suite is ordinary code that panics when a sentence of the contract does not hold, so that the tests
//! of any backend's crate can run it.

pub mod broker;
pub mod cache;
pub mod clock;
pub mod control;
pub mod discovery;
pub mod error;
pub mod friendships;
pub mod history;
pub mod sessions;
pub mod users;

pub use broker::{Arrival, Broker, Channel, Inbox, Publication};
pub use cache::{LocationCache, Put};
pub use clock::Clock;
pub use control::{ControlEntry, ControlLog, ControlRecord};
pub use discovery::Discovery;
pub use error::PortError;
pub use friendships::{Friendship, Friendships};
pub use history::{HistoryPoint, LocationHistory};
pub use sessions::{SessionKey, Sessions};
pub use users::{User, Users};
