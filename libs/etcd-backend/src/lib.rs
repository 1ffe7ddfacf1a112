//! `Discovery` and `ControlLog` on etcd; the only crate that knows etcd.
//!
//! It speaks to etcd's JSON gateway (`/v3/...` over HTTP/1.1), which needs neither `protoc` nor a driver. What lies
//! where, below a prefix that is `/nearby` unless configured:
//!
//! | key | value | lives |
//! |---|---|---|
//! | `nodes/{node}`, `senders/{node}` | nothing: being there says it | the node's lease, [`ports::discovery::LEASE`] |
//! | `confirmed/{node}` | how far the node has applied the control log | the node's lease |
//! | `erased/{node}` | up to which deletion the node holds nothing of the deleted any more | the node's lease |
//! | `doc/{name}` | a document; its version is the revision of its last change | until replaced |
//! | `control-end` | the index of the newest entry | for ever |
//! | `control/{index}` | an entry, and the index of the one before it | until newer ones have pushed it out |
//!
//! Every change of the control log and every confirmation leaves an old revision behind, which only etcd itself can
//! clear away: run it with `--auto-compaction-retention` (5 minutes is plenty; nothing here reads old revisions).

mod client;
mod control;
mod discovery;
mod keys;
mod kv;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use ports::PortError;

pub use control::{EtcdControlLog, Kept};
pub use discovery::EtcdDiscovery;

use client::Client;
use keys::Keys;

/// The backend's name in errors.
const BACKEND: &str = "etcd";

/// How long a call of either port may take; `settled` and `changed` wait for others and are no such calls. Shorter
/// than a node's patience with its control log, so that a node hears why there was no answer.
pub const DEADLINE: Duration = Duration::from_millis(2_500);

/// One cluster's place in one etcd. A copy shares its connections.
#[derive(Clone)]
pub struct Etcd {
    client: Arc<Client>,
    keys: Arc<Keys>,
}

impl Etcd {
    /// Talks to any of the endpoints (`http://host:port`, at least one), and keeps everything below `prefix`. Connects
    /// when it is first asked something.
    pub fn new(endpoints: &[String], prefix: &str) -> Result<Etcd, PortError> {
        Ok(Etcd { client: Arc::new(Client::new(endpoints)?), keys: Arc::new(Keys::below(prefix)) })
    }
}

/// What trying again will not change.
fn refused(reason: impl Into<String>) -> PortError {
    PortError::Refused { backend: BACKEND, reason: reason.into() }
}

fn unavailable(reason: impl Into<String>) -> PortError {
    PortError::Unavailable { backend: BACKEND, reason: reason.into() }
}

/// However many requests a call needs, it has one deadline.
async fn in_time<T>(call: impl Future<Output = Result<T, PortError>>) -> Result<T, PortError> {
    let answer = tokio::time::timeout(DEADLINE, call).await;
    answer.unwrap_or_else(|_| Err(unavailable(format!("no answer within {DEADLINE:?}"))))
}
