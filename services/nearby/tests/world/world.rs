//! Some nodes, the records that they share, and an application's backend.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use api::{ApiLimits, ApiState, Changes};
use axum::Router;
use axum::body::Body;
use axum::http::{Method, Request, StatusCode};
use model::{NodeId, TimestampMs, UserId};
use node::{Backends, Node, Settings};
use ports::embedded::{
    EmbeddedBroker, EmbeddedBus, EmbeddedCache, EmbeddedControlLog, EmbeddedDiscovery, EmbeddedSessions,
    FjallFriendships, FjallHistory, FjallUsers, Store,
};
use ports::{Clock, LocationHistory, Users};
use prometheus_client::registry::Registry;
use tempfile::TempDir;
use tower::ServiceExt;
use web::tokens::issue;
use web::{Authenticator, Readiness, Scope, Scopes, TokenKeys};

use crate::phone::Phone;

const SECRET: &[u8] = b"a secret of the tests, long enough to be taken";

/// N nodes in one process.
pub(crate) struct World {
    pub(crate) nodes: Vec<Arc<Node>>,
    pub(crate) brokers: Vec<Arc<EmbeddedBroker>>,
    pub(crate) cache: Arc<EmbeddedCache>,
    pub(crate) control: Arc<EmbeddedControlLog>,
    pub(crate) discovery: Arc<EmbeddedDiscovery>,
    pub(crate) history: Arc<dyn LocationHistory>,
    pub(crate) clock: Clock,
    users: Arc<dyn Users>,
    api: Router,
    next_user: AtomicU64,
    _dir: TempDir,
}

impl World {
    /// So many nodes, with the default settings.
    pub(crate) async fn new(nodes: usize) -> World {
        World::with(nodes, Settings::default()).await
    }

    pub(crate) async fn with(nodes: usize, settings: Settings) -> World {
        let clock = Clock::virtual_from_now();
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let bus = EmbeddedBus::new();
        let discovery = Arc::new(EmbeddedDiscovery::new(clock));
        let cache = Arc::new(EmbeddedCache::new(clock));
        let control = Arc::new(EmbeddedControlLog::new(clock, discovery.clone()));
        let history: Arc<dyn LocationHistory> = Arc::new(FjallHistory::new(store.clone()));
        let users: Arc<dyn Users> = Arc::new(FjallUsers::new(store.clone()));
        let sessions = Arc::new(EmbeddedSessions::new(clock));
        let friendships = Arc::new(FjallFriendships::new(store));
        let (mut running, mut brokers) = (Vec::new(), Vec::new());
        for node in 0..nodes {
            let (broker, inbox) = bus.attach(64);
            brokers.push(broker.clone());
            let backends = Backends {
                broker,
                cache: cache.clone(),
                history: history.clone(),
                friendships: friendships.clone(),
                sessions: sessions.clone(),
                control: control.clone(),
                discovery: discovery.clone(),
            };
            let id = NodeId(node as u64 + 1);
            let settings = Settings { shards: 2, ..settings };
            let started = Node::start(id, settings, backends, inbox, clock, &mut Registry::default()).await;
            running.push(Arc::new(started.unwrap()));
        }
        let keys = TokenKeys::new().with_hs256(SECRET).unwrap();
        let api = api::router(
            ApiState {
                users: users.clone(),
                friendships,
                history: history.clone(),
                cache: cache.clone(),
                control: control.clone(),
                authenticator: Arc::new(Authenticator::new(keys, users.clone(), clock)),
                clock,
                registry: Arc::new(Registry::default()),
                readiness: Readiness::new(),
                changes: Changes::new(),
                limits: ApiLimits::default(),
            },
            None,
        );
        let next_user = AtomicU64::new(100);
        World { nodes: running, brokers, cache, control, discovery, history, clock, users, api, next_user, _dir: dir }
    }

    /// Somebody new, whose phone connects to this node (counted round the nodes there are).
    pub(crate) async fn person(&self, node: usize) -> Phone {
        let user = UserId(self.next_user.fetch_add(1, Ordering::Relaxed));
        self.users.put(user, "somebody").await.unwrap();
        Phone::of(user, self.nodes[node % self.nodes.len()].clone(), self.clock)
    }

    /// Two people in the middle of town who are friends, each on a node of their own if there are two.
    pub(crate) async fn alice_and_bob(&self) -> (Phone, Phone) {
        let (alice, bob) = (self.person(0).await, self.person(1).await);
        self.befriend(&alice, &bob).await;
        (alice, bob)
    }

    /// The application's backend makes two people friends; returns when that was acknowledged.
    pub(crate) async fn befriend(&self, one: &Phone, other: &Phone) {
        let path = format!("/v1/users/{}/friends/{}", one.user, other.user);
        assert!(self.ask(Method::PUT, &path).await.is_success());
    }

    /// And ends it; returns when that was acknowledged.
    pub(crate) async fn unfriend(&self, one: &Phone, other: &Phone) {
        let path = format!("/v1/users/{}/friends/{}", one.user, other.user);
        assert_eq!(self.ask(Method::DELETE, &path).await, StatusCode::NO_CONTENT);
    }

    /// Deletes a person; returns when that was acknowledged.
    pub(crate) async fn delete(&self, person: &Phone) {
        let path = format!("/v1/users/{}", person.user);
        assert_eq!(self.ask(Method::DELETE, &path).await, StatusCode::NO_CONTENT);
    }

    /// A request of the application's backend.
    pub(crate) async fn ask(&self, method: Method, path: &str) -> StatusCode {
        let expires = self.clock.wall().after(Duration::from_secs(60));
        let token = issue(SECRET, "0", Scopes::of(&[Scope::Backend]), expires).unwrap();
        let request = Request::builder().method(method).uri(path).header("authorization", format!("Bearer {token}"));
        self.api.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap().status()
    }

    /// Everything that is under way arrives: far more time than the engine needs, far less than any deadline of it.
    pub(crate) async fn settle(&self) {
        tokio::time::sleep(Duration::from_millis(400)).await;
    }

    /// Time passes.
    pub(crate) async fn wait(&self, seconds: u64) {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
    }

    /// What the history holds of somebody.
    pub(crate) async fn recorded(&self, person: &Phone) -> Vec<u64> {
        let all = self.history.range(person.user, TimestampMs(0), TimestampMs(u64::MAX), 10_000).await.unwrap();
        all.iter().map(|point| point.ts.0).collect()
    }
}
