//! History, users and friendships on Cassandra or Scylla. The only crate that names the driver.
//!
//! What the backends have in common: statements are prepared once; reads and writes are acknowledged by a quorum of the
//! local datacenter, so that a reader sees what returned before; what can be repeated carries its own timestamp and is
//! also tried on a second node when the first is silent; what cannot is a lightweight transaction.

mod error;
mod friendships;
mod history;
mod migrate;
mod options;
mod session;
mod spool;
mod time;
mod users;
mod value;

pub use friendships::{CassandraFriendships, FriendshipLimits};
pub use history::CassandraHistory;
pub use migrate::{Migrated, Migrator};
pub use options::{CassandraOptions, Replication};
pub use session::CassandraSession;
pub use spool::{OpenSegment, SpoolSettings, SpooledHistory};
pub use users::CassandraUsers;
