//! Some nodes, and an application's backend beside each. What they stand on is the `foundation` of the test target.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::http::{Method, StatusCode};
use model::{NodeId, TimestampMs, UserId};
use node::{Backends, Node, Settings};
use ports::{Clock, Inbox, Users};
use prometheus_client::registry::Registry;
use tokio::time::{Instant, sleep};

use crate::application::{Application, state_beside};
use crate::foundation::{Foundation, PATIENCE};
use crate::phone::{LOOK_EVERY, Phone, north};

/// What a scenario runs with if it names nothing else: the defaults, and nobody is too fast.
pub(crate) fn settings() -> Settings {
    Settings { updates_per_second: 1_000.0, update_burst: 1_000, ..Settings::default() }
}

/// What one node is given.
pub(crate) struct Ports {
    pub(crate) id: NodeId,
    pub(crate) backends: Backends,
    pub(crate) inbox: Inbox,
    pub(crate) users: Arc<dyn Users>,
}

/// N nodes in one process.
pub(crate) struct World {
    pub(crate) nodes: Vec<Arc<Node>>,
    /// By node.
    pub(crate) backends: Vec<Backends>,
    pub(crate) clock: Clock,
    pub(crate) foundation: Foundation,
    users: Arc<dyn Users>,
    application: Application,
    next_user: AtomicU64,
}

impl World {
    /// A node on each of these ports.
    pub(crate) async fn on(foundation: Foundation, ports: Vec<Ports>, clock: Clock, settings: Settings) -> World {
        let (mut nodes, mut apis, mut backends) = (Vec::new(), Vec::new(), Vec::new());
        let users = ports[0].users.clone();
        for Ports { id, backends: of_node, inbox, users } in ports {
            let settings = Settings { shards: 2, ..settings };
            let started = Node::start(id, settings, of_node.clone(), inbox, clock, &mut Registry::default()).await;
            nodes.push(Arc::new(started.unwrap()));
            apis.push(api::router(state_beside(&of_node, users, clock), None));
            backends.push(of_node);
        }
        let application = Application::new(apis, clock);
        World { nodes, backends, clock, foundation, users, application, next_user: AtomicU64::new(100) }
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

    /// A friend of that person on this node, with both eyes open: what she has seen has come to the node.
    pub(crate) async fn witness(&self, node: usize, of: &Phone) -> Phone {
        let mut witness = self.person(node).await;
        self.befriend(&witness, of).await;
        witness.connect_at(north(0.0)).await;
        witness
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

    /// A request of the application's backend, to the next node.
    pub(crate) async fn ask(&self, method: Method, path: &str) -> StatusCode {
        self.application.ask(method, path).await
    }

    /// Whatever is under way arrives. In virtual time everything has: this is far more than the engine needs, and far
    /// less than any deadline of it. On real servers it is a moment more for what should not come at all, after
    /// something later has come (see [`Phone::comes_to_see`]); what should come is never waited for like this.
    pub(crate) async fn settle(&self) {
        sleep(Duration::from_millis(400)).await;
    }

    /// Waits until the cache holds these people, which is soon.
    pub(crate) async fn cached(&self, people: impl IntoIterator<Item = &Phone>) {
        let users: Vec<UserId> = people.into_iter().map(|phone| phone.user).collect();
        let cache = &self.backends[0].cache;
        let held = async || cache.get_many(&users).await.unwrap().iter().all(Option::is_some);
        self.until("these people are cached", held).await;
    }

    /// Waits until something holds, which is soon.
    pub(crate) async fn until(&self, what: &str, mut holds: impl AsyncFnMut() -> bool) {
        let begun = Instant::now();
        while !holds().await {
            assert!(begun.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
            sleep(LOOK_EVERY).await;
        }
    }

    pub(crate) fn last_node(&self) -> &Arc<Node> {
        &self.nodes[self.nodes.len() - 1]
    }

    /// What the history holds of somebody.
    pub(crate) async fn recorded(&self, person: &Phone) -> Vec<u64> {
        let history = &self.backends[0].history;
        let all = history.range(person.user, TimestampMs(0), TimestampMs(u64::MAX), 10_000).await.unwrap();
        all.iter().map(|point| point.ts.0).collect()
    }
}
