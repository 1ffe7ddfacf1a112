//! What leaves the process, as small contracts: each in prose above its trait, with an embedded backend beside it and
//! one conformance suite that every backend passes.
//!
//! `broker/ cache/ history/ users/ friendships/ sessions/ control/ discovery/`, each `{mod, embedded, conformance}.rs`.
//! A conformance suite is ordinary code that panics when a sentence of the contract does not hold, so that the tests
//! of any backend's crate can run it.

pub mod clock;
pub mod error;
pub mod broker;
pub mod cache;
pub mod history;
pub mod users;
pub mod friendships;
pub mod sessions;
pub mod control;
pub mod discovery;
pub mod store;
pub mod health;
pub mod conformance;

/// The embedded backends: memory, and one directory on local disk.
pub mod embedded {
    pub use crate::broker::embedded::{EmbeddedBroker, EmbeddedBus};
    pub use crate::cache::embedded::EmbeddedCache;
    pub use crate::control::embedded::EmbeddedControlLog;
    pub use crate::discovery::embedded::EmbeddedDiscovery;
    pub use crate::friendships::embedded::FjallFriendships;
    pub use crate::health::Health;
    pub use crate::history::embedded::FjallHistory;
    pub use crate::sessions::embedded::EmbeddedSessions;
    pub use crate::store::Store;
    pub use crate::users::embedded::FjallUsers;
}

pub use broker::{Affected, Arrival, Broker, Channel, Inbox, Publication};
pub use cache::{LocationCache, Put};
pub use clock::Clock;
pub use control::{ControlEntry, ControlLog, ControlRecord};
pub use discovery::Discovery;
pub use error::PortError;
pub use friendships::{ChangeNote, Changed, Friendship, Friendships};
pub use history::{HistoryPoint, LocationHistory};
pub use sessions::{Claimed, SessionKey, Sessions, Sharing};
pub use users::{User, Users};
