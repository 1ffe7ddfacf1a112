//! One process with its embedded backends, and clients that send it requests.

use std::sync::Arc;
use std::time::Duration;

use api::{ApiLimits, ApiState, Changes};
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Request, StatusCode};
use model::{PolicyVersion, TimestampMs, UserId};
use ports::control::LogRead;
use ports::embedded::{
    EmbeddedCache, EmbeddedControlLog, EmbeddedDiscovery, FjallFriendships, FjallHistory, FjallUsers, Store,
};
use ports::{Clock, ControlEntry, ControlLog, Friendships, Users};
use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use tower::ServiceExt;
use web::tokens::issue;
use web::{Authenticator, Readiness, Scope, Scopes, TokenKeys};

const SECRET: &[u8] = b"a secret of at least thirty-two bytes";

pub(crate) struct World {
    pub(crate) state: ApiState,
    pub(crate) router: Router,
    pub(crate) cache: Arc<EmbeddedCache>,
    pub(crate) control: Arc<EmbeddedControlLog>,
    pub(crate) discovery: Arc<EmbeddedDiscovery>,
    _dir: tempfile::TempDir,
}

/// An answer, whole, so that two can be compared.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Asserts that this is a problem of that status, in full, and returns its detail.
    pub(crate) fn problem(&self, status: u16) -> String {
        assert_eq!(self.status.as_u16(), status, "{self:?}");
        assert_eq!(self.headers["content-type"], "application/problem+json", "{self:?}");
        let body = self.json();
        assert_eq!(body["status"], json!(status));
        assert!(body["type"].as_str().unwrap().starts_with("urn:nearby:problem:"), "{body}");
        assert!(body["title"].is_string(), "{body}");
        body["detail"].as_str().unwrap().to_owned()
    }

    /// The same, and the part of the request that is wrong.
    pub(crate) fn wrong(&self, status: u16) -> String {
        self.problem(status);
        self.json()["field"].as_str().unwrap_or_else(|| panic!("no field: {self:?}")).to_owned()
    }
}

impl World {
    pub(crate) fn new() -> World {
        World::with(|_, friendships| friendships)
    }

    /// With something between the handlers and the friendships.
    pub(crate) fn with(wrap: impl FnOnce(Arc<dyn Users>, Arc<dyn Friendships>) -> Arc<dyn Friendships>) -> World {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let clock = Clock::virtual_from_now();
        let users: Arc<dyn Users> = Arc::new(FjallUsers::new(store.clone()));
        let cache = Arc::new(EmbeddedCache::new(clock));
        let discovery = Arc::new(EmbeddedDiscovery::new(clock));
        let control = Arc::new(EmbeddedControlLog::new(clock, discovery.clone()));
        let keys = TokenKeys::new().with_hs256(SECRET).unwrap();
        let state = ApiState {
            friendships: wrap(users.clone(), Arc::new(FjallFriendships::new(store.clone()))),
            history: Arc::new(FjallHistory::new(store)),
            cache: cache.clone(),
            control: control.clone(),
            authenticator: Arc::new(Authenticator::new(keys, users.clone(), clock)),
            users,
            clock,
            registry: Arc::new(Registry::default()),
            readiness: Readiness::new(),
            changes: Changes::new(),
            limits: ApiLimits::default(),
        };
        let router = web::with_problem_fallbacks(api::router(state.clone(), None));
        World { state, router, cache, control, discovery, _dir: dir }
    }

    /// With these users, each named by its number.
    pub(crate) async fn of(users: &[u64]) -> World {
        let world = World::new();
        world.know(users).await;
        world
    }

    pub(crate) async fn know(&self, users: &[u64]) {
        for user in users {
            self.state.users.put(UserId(*user), &format!("user {user}")).await.unwrap();
        }
    }

    pub(crate) async fn befriend(&self, user: u64, friend: u64) {
        self.state.friendships.add(UserId(user), UserId(friend)).await.unwrap();
    }

    /// A token of an hour.
    pub(crate) fn token(&self, subject: &str, scopes: &[Scope]) -> String {
        self.token_until(subject, scopes, self.state.clock.wall().after(Duration::from_secs(3_600)))
    }

    pub(crate) fn token_until(&self, subject: &str, scopes: &[Scope], expires: TimestampMs) -> String {
        issue(SECRET, subject, Scopes::of(scopes), expires).unwrap()
    }

    pub(crate) fn user_token(&self, user: u64) -> String {
        self.token(&user.to_string(), &[Scope::User])
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = to_bytes(body, 10_000_000).await.unwrap();
        Answer { status: parts.status, headers: parts.headers, text: String::from_utf8(bytes.to_vec()).unwrap() }
    }

    pub(crate) async fn ask(&self, token: Option<&str>, method: &str, path: &str, body: Option<Value>) -> Answer {
        self.send(request(token, method, path, body)).await
    }

    /// As the application's backend.
    pub(crate) async fn backend(&self, method: &str, path: &str, body: Option<Value>) -> Answer {
        self.ask(Some(&self.token("shop", &[Scope::Backend])), method, path, body).await
    }

    /// As a user.
    pub(crate) async fn user(&self, user: u64, method: &str, path: &str) -> Answer {
        self.ask(Some(&self.user_token(user)), method, path, None).await
    }

    /// Reads a list to its end, asking for `limit` at a time, and returns its items and the number of pages.
    pub(crate) async fn walk(&self, token: &str, path: &str, limit: usize) -> (Vec<Value>, usize) {
        let (mut items, mut pages, mut next) = (vec![], 0, String::new());
        loop {
            let query = if path.contains('?') { "&" } else { "?" };
            let answer = self.ask(Some(token), "GET", &format!("{path}{query}limit={limit}{next}"), None).await;
            assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
            let mut page = answer.json();
            items.append(page["items"].as_array_mut().unwrap());
            pages += 1;
            assert!(pages <= 1_000, "the list does not end");
            match page["next_cursor"].as_str() {
                Some(cursor) => next = format!("&cursor={cursor}"),
                None => return (items, pages),
            }
        }
    }

    pub(crate) async fn log(&self) -> Vec<ControlEntry> {
        match self.control.read_after(PolicyVersion(0)).await.unwrap() {
            LogRead::Entries { records, .. } => records.into_iter().map(|record| record.entry).collect(),
            LogRead::Compacted { .. } => panic!("nothing is compacted here"),
        }
    }
}

pub(crate) fn request(token: Option<&str>, method: &str, path: &str, body: Option<Value>) -> Request<Body> {
    let mut request = Request::builder().method(method).uri(path);
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    match body {
        Some(body) => request.header("content-type", "application/json").body(Body::from(body.to_string())),
        None => request.body(Body::empty()),
    }
    .unwrap()
}
