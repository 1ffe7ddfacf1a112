//! The embedded backends keep the contracts. All on virtual time: an hour of leases takes no time.

use std::sync::Arc;

use async_trait::async_trait;
use ports::conformance::Harness;
use ports::embedded::*;
use ports::{Clock, ControlLog, Discovery, Friendships, Inbox, LocationCache, LocationHistory, Sessions, Users};
use tempfile::TempDir;

/// Both nodes have the same backend.
struct Shared<Node>(Clock, Node);

#[async_trait]
impl<Node: Clone + Send + Sync> Harness for Shared<Node> {
    type Node = Node;

    async fn node(&self) -> Node {
        self.1.clone()
    }

    fn clock(&self) -> Clock {
        self.0
    }
}

/// A store that is deleted with its directory.
struct OnDisk<Node>(Node, TempDir);

fn open_store() -> (Arc<Store>, TempDir) {
    let directory = tempfile::tempdir().expect("a directory");
    (Store::open(directory.path()).expect("a store"), directory)
}

#[async_trait]
impl<Node: Clone + Send + Sync> Harness for OnDisk<Node> {
    type Node = Node;

    async fn node(&self) -> Node {
        assert!(self.1.path().exists());
        self.0.clone()
    }
}

mod broker {
    use ports::broker::conformance::BrokerHarness;

    use super::*;

    struct Bus(EmbeddedBus, Clock);

    #[async_trait]
    impl BrokerHarness for Bus {
        type Broker = EmbeddedBroker;

        async fn attach(&self, inbox_batches: usize) -> (Arc<EmbeddedBroker>, Inbox) {
            self.0.attach(inbox_batches)
        }

        async fn lose_subscription(&self, node: &EmbeddedBroker) {
            node.lose_connection();
            node.restore_connection();
        }

        async fn change_routing(&self) {
            self.0.change_routing();
        }

        fn clock(&self) -> Clock {
            self.1
        }
    }

    ports::broker_conformance!([tokio::test(start_paused = true)] Bus(EmbeddedBus::new(), Clock::virtual_from_now()));
}

mod cache {
    use super::*;

    fn harness() -> Shared<Arc<dyn LocationCache>> {
        let clock = Clock::virtual_from_now();
        Shared(clock, Arc::new(EmbeddedCache::new(clock)))
    }

    ports::cache_conformance!([tokio::test(start_paused = true)] harness());
}

mod history {
    use super::*;

    fn harness() -> OnDisk<Arc<dyn LocationHistory>> {
        let (store, directory) = open_store();
        OnDisk(Arc::new(FjallHistory::new(store)), directory)
    }

    ports::history_conformance!([tokio::test(start_paused = true)] harness());
}

mod users {
    use super::*;

    fn harness() -> OnDisk<Arc<dyn Users>> {
        let (store, directory) = open_store();
        OnDisk(Arc::new(FjallUsers::new(store)), directory)
    }

    ports::users_conformance!([tokio::test(start_paused = true)] harness());
}

mod friendships {
    use super::*;

    fn harness() -> OnDisk<Arc<dyn Friendships>> {
        let (store, directory) = open_store();
        OnDisk(Arc::new(FjallFriendships::new(store)), directory)
    }

    ports::friendships_conformance!([tokio::test(start_paused = true)] harness());
}

mod sessions {
    use model::UserId;
    use ports::sessions::conformance::SessionsHarness;

    use super::*;

    struct Registry(Clock, Arc<EmbeddedSessions>);

    #[async_trait]
    impl Harness for Registry {
        type Node = Arc<dyn Sessions>;

        async fn node(&self) -> Arc<dyn Sessions> {
            self.1.clone()
        }

        fn clock(&self) -> Clock {
            self.0
        }
    }

    #[async_trait]
    impl SessionsHarness for Registry {
        async fn lose_data(&self, _user: UserId) {
            self.1.lose_data();
        }

        async fn age(&self, user: UserId, by: std::time::Duration) {
            self.1.age(user, by);
        }
    }

    fn harness() -> Registry {
        let clock = Clock::virtual_from_now();
        Registry(clock, Arc::new(EmbeddedSessions::new(clock)))
    }

    ports::sessions_conformance!([tokio::test(start_paused = true)] harness());
}

mod discovery {
    use super::*;

    fn harness() -> Shared<Arc<dyn Discovery>> {
        let clock = Clock::virtual_from_now();
        Shared(clock, Arc::new(EmbeddedDiscovery::new(clock)))
    }

    ports::discovery_conformance!([tokio::test(start_paused = true)] harness());
}

mod control {
    use super::*;

    fn harness() -> Shared<(Arc<dyn ControlLog>, Arc<dyn Discovery>)> {
        let clock = Clock::virtual_from_now();
        let discovery = Arc::new(EmbeddedDiscovery::new(clock));
        let log = Arc::new(EmbeddedControlLog::new(clock, discovery.clone()));
        Shared(clock, (log, discovery))
    }

    ports::control_conformance!([tokio::test(start_paused = true)] harness());
}
