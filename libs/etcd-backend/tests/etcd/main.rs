//! The etcd backends against real etcd: their contracts, and what happens when etcd is killed, frozen or compacted.

#![expect(clippy::unwrap_used, reason = "a test panics when something is wrong")]
mod conformance;
mod faults;
mod proxy;

use std::sync::{Arc, LazyLock};

use async_trait::async_trait;
use etcd_backend::{Etcd, EtcdControlLog, EtcdDiscovery};
use ports::conformance::{Harness, fresh_name};
use ports::{Clock, ControlLog, Discovery};
use servers::etcd::EtcdServer;

/// For all tests that do it no harm, each below a prefix of its own.
static SHARED: LazyLock<EtcdServer> = LazyLock::new(EtcdServer::start);

/// A cluster of its own in some etcd, whose nodes have nothing in common but that.
struct Cluster {
    endpoints: Vec<String>,
    prefix: String,
}

impl Cluster {
    fn in_shared() -> Cluster {
        Cluster::at(vec![SHARED.endpoint()])
    }

    fn at(endpoints: Vec<String>) -> Cluster {
        Cluster { endpoints, prefix: format!("/{}", fresh_name("cluster")) }
    }

    fn etcd(&self) -> Etcd {
        Etcd::new(&self.endpoints, &self.prefix).unwrap()
    }

    fn discovery(&self) -> EtcdDiscovery {
        EtcdDiscovery::new(self.etcd())
    }

    fn log(&self) -> EtcdControlLog {
        EtcdControlLog::new(self.etcd(), Clock::System)
    }
}

struct Discoveries(Cluster);

#[async_trait]
impl Harness for Discoveries {
    type Node = Arc<dyn Discovery>;

    async fn node(&self) -> Self::Node {
        Arc::new(self.0.discovery())
    }
}

struct Logs(Cluster);

#[async_trait]
impl Harness for Logs {
    type Node = (Arc<dyn ControlLog>, Arc<dyn Discovery>);

    async fn node(&self) -> Self::Node {
        (Arc::new(self.0.log()), Arc::new(self.0.discovery()))
    }
}
