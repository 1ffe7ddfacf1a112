//! What the handlers share.

use std::fmt;
use std::sync::Arc;

use axum::extract::FromRef;
use model::UserId;
use ports::{Clock, ControlLog, Friendships, LocationCache, LocationHistory, User, Users};
use prometheus_client::registry::Registry;
use web::{Authenticator, PageSize, Problem, Readiness};

use crate::Changes;

/// Everything the handlers need, each part shared with the rest of the process. A copy is the same state.
#[derive(Clone)]
pub struct ApiState {
    /// Who there is.
    pub users: Arc<dyn Users>,
    /// Who may see whom.
    pub friendships: Arc<dyn Friendships>,
    /// Where people were.
    pub history: Arc<dyn LocationHistory>,
    /// Where people are; only to forget the deleted.
    pub cache: Arc<dyn LocationCache>,
    /// Tells the nodes what changed.
    pub control: Arc<dyn ControlLog>,
    /// Who is calling.
    pub authenticator: Arc<Authenticator>,
    /// What time it is.
    pub clock: Clock,
    /// What is measured.
    pub registry: Arc<Registry>,
    /// Whether this process should be sent work.
    pub readiness: Readiness,
    /// The changes under way.
    pub changes: Changes,
    /// How much of what.
    pub limits: ApiLimits,
}

/// How much of what.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ApiLimits {
    /// The largest body, in bytes.
    pub body_bytes: usize,
    /// The longest name of a user, in characters.
    pub name_chars: usize,
    /// Friends to a page.
    pub friends: PageSize,
    /// Positions to a page.
    pub history: PageSize,
}

impl Default for ApiLimits {
    fn default() -> ApiLimits {
        ApiLimits {
            body_bytes: 64 * 1024,
            name_chars: 100,
            friends: PageSize { default: 100, max: 1_000 },
            history: PageSize { default: 100, max: 1_000 },
        }
    }
}

impl ApiState {
    /// The user, if there is one. Who is being deleted is gone already.
    pub(crate) async fn user(&self, id: UserId) -> Result<Option<User>, Problem> {
        let found = self.users.get_many(&[id]).await?.pop().flatten();
        Ok(found.filter(|user| !user.deleting))
    }

    /// The caller's own user.
    pub(crate) async fn own(&self, id: UserId) -> Result<User, Problem> {
        self.user(id).await?.ok_or_else(|| Problem::unknown_self(id))
    }
}

impl FromRef<ApiState> for Arc<Authenticator> {
    fn from_ref(state: &ApiState) -> Arc<Authenticator> {
        state.authenticator.clone()
    }
}

impl fmt::Debug for ApiState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiState").field("limits", &self.limits).finish_non_exhaustive()
    }
}
