//! An application's backend, and the API that it asks.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use api::{ApiLimits, ApiState, Changes};
use axum::Router;
use axum::body::Body;
use axum::http::{Method, Request, StatusCode};
use node::Backends;
use ports::{Clock, Users};
use prometheus_client::registry::Registry;
use tower::ServiceExt;
use web::tokens::issue;
use web::{Authenticator, Readiness, Scope, Scopes, TokenKeys};

const SECRET: &[u8] = b"a secret of the tests, long enough to be taken";

/// Asks one API after the other.
pub(crate) struct Application {
    apis: Vec<Router>,
    asked: AtomicUsize,
    authorization: String,
}

impl Application {
    /// With a token that outlives any test.
    pub(crate) fn new(apis: Vec<Router>, clock: Clock) -> Application {
        let expires = clock.wall().after(Duration::from_secs(30 * 86_400));
        let token = issue(SECRET, "0", Scopes::of(&[Scope::Backend]), expires).unwrap();
        Application { apis, asked: AtomicUsize::new(0), authorization: format!("Bearer {token}") }
    }

    /// A request without a body.
    pub(crate) async fn ask(&self, method: Method, path: &str) -> StatusCode {
        let request = Request::builder().method(method).uri(path).header("authorization", &self.authorization);
        let api = &self.apis[self.asked.fetch_add(1, Ordering::Relaxed) % self.apis.len()];
        api.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap().status()
    }
}

/// What the API of the process that this node would be works with.
pub(crate) fn state_beside(node: &Backends, users: Arc<dyn Users>, clock: Clock) -> ApiState {
    let keys = TokenKeys::new().with_hs256(SECRET).unwrap();
    ApiState {
        users: users.clone(),
        friendships: node.friendships.clone(),
        history: node.history.clone(),
        cache: node.cache.clone(),
        control: node.control.clone(),
        authenticator: Arc::new(Authenticator::new(keys, users, clock)),
        clock,
        registry: Arc::new(Registry::default()),
        readiness: Readiness::new(),
        changes: Changes::new(),
        limits: ApiLimits::default(),
    }
}
