//! What the handlers share.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::FromRef;
use model::UserId;
use node::Node;
use ports::Users;
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::task::TaskTracker;
use web::{Authenticator, Problem, Readiness};

use crate::admission::Admission;

/// Every bound of the gateway, with its unit; the engine's are in `node::limits`.
#[derive(Clone, Copy, Debug)]
pub struct GatewayLimits {
    /// The largest WebSocket message, in bytes.
    pub message_bytes: usize,
    /// The largest body of a request, in bytes.
    pub body_bytes: usize,
    /// Positions in one `POST /v1/locations`.
    pub batch: usize,
    /// How long a connection may take to send `init`.
    pub init_patience: Duration,
    /// Connections that are being authenticated or read at the same time.
    pub connecting: usize,
    /// How long a connection waits for its turn to be read.
    pub connecting_patience: Duration,
    /// A client that took nothing for so long is closed.
    pub stall: Duration,
    /// How much longer it may take for the close itself.
    pub stall_close: Duration,
    /// A connection without a word for so long is asked for one.
    pub ping_after: Duration,
    /// A connection without a word for so long is taken for dead.
    pub dead_after: Duration,
    /// Frames that were not taken, in a row, before a connection is closed.
    pub refused_in_a_row: u32,
    /// Over how long the closes of a stopping node are spread.
    pub drain: Duration,
    /// How long a client may take to answer a close.
    pub close_patience: Duration,
    /// After news were written to a viewer the next are written no sooner than this; 0 for at once.
    pub push_interval: Duration,
}

impl Default for GatewayLimits {
    fn default() -> GatewayLimits {
        GatewayLimits {
            message_bytes: 16 * 1024,
            body_bytes: 64 * 1024,
            batch: 100,
            init_patience: Duration::from_secs(10),
            connecting: 256,
            connecting_patience: Duration::from_secs(5),
            stall: Duration::from_secs(10),
            stall_close: Duration::from_secs(4),
            ping_after: Duration::from_secs(30),
            dead_after: Duration::from_secs(75),
            refused_in_a_row: 100,
            drain: Duration::from_secs(2),
            close_patience: Duration::from_secs(1),
            push_interval: Duration::ZERO,
        }
    }
}

/// What the handlers share; a copy is the same, and as small as a connection needs it.
#[derive(Clone, Debug)]
pub struct GatewayState(Arc<Gateway>);

/// The parts of a gateway.
pub struct Gateway {
    /// The engine.
    pub node: Arc<Node>,
    /// Who is calling.
    pub authenticator: Arc<Authenticator>,
    /// Who there is.
    pub users: Arc<dyn Users>,
    /// Origins that a browser may connect from, as browsers write them (`https://app.example.com`).
    pub origins: Arc<[String]>,
    /// Whether this process should be sent work.
    pub readiness: Readiness,
    /// Who may begin.
    pub admission: Admission,
    /// The connections, to be waited for when the process stops.
    pub connections: TaskTracker,
    /// The bounds.
    pub limits: GatewayLimits,
}

impl From<Gateway> for GatewayState {
    fn from(gateway: Gateway) -> GatewayState {
        GatewayState(Arc::new(gateway))
    }
}

impl Deref for GatewayState {
    type Target = Gateway;

    fn deref(&self) -> &Gateway {
        &self.0
    }
}

impl Gateway {
    /// A place for one call of this user, who must exist and keep to the rate.
    pub(crate) async fn admit_call(&self, user: UserId) -> Result<OwnedSemaphorePermit, Problem> {
        if !self.node.may_call(user) {
            return Err(Problem::too_many(Duration::from_secs(1)));
        }
        let place = self.admission.enter()?;
        self.must_exist(user).await?;
        Ok(place)
    }

    /// A problem unless there is such a user, who is not being deleted.
    pub(crate) async fn must_exist(&self, user: UserId) -> Result<(), Problem> {
        match self.users.get_many(&[user]).await?.first() {
            Some(Some(found)) if !found.deleting => Ok(()),
            _ => Err(Problem::unknown_self(user)),
        }
    }
}

impl FromRef<GatewayState> for Arc<Authenticator> {
    fn from_ref(state: &GatewayState) -> Arc<Authenticator> {
        state.authenticator.clone()
    }
}

impl fmt::Debug for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gateway").field("limits", &self.limits).finish_non_exhaustive()
    }
}
