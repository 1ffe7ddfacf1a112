//! Every sentence of the contract, on two servers.

use std::sync::{Arc, OnceLock, Weak};

use async_trait::async_trait;
use parking_lot::Mutex;
use ports::Inbox;
use ports::broker::conformance::BrokerHarness;
use protocol::ring::RingDocument;
use redis_backend::RedisBroker;
use servers::redis::RedisServer;

use crate::world::{World, until_adopted};

pub(crate) fn shared_servers() -> [&'static RedisServer; 2] {
    static SERVERS: OnceLock<[RedisServer; 2]> = OnceLock::new();
    SERVERS.get_or_init(|| [RedisServer::start(), RedisServer::start()]).each_ref()
}

/// With the brokers that have been attached.
struct Bus(World, Mutex<Vec<Weak<RedisBroker>>>);

async fn bus() -> Bus {
    Bus(World::on(&shared_servers()).await, Mutex::default())
}

#[async_trait]
impl BrokerHarness for Bus {
    type Broker = RedisBroker;

    async fn attach(&self, inbox_batches: usize) -> (Arc<RedisBroker>, Inbox) {
        let (broker, inbox) = self.0.attach(inbox_batches).await;
        self.1.lock().push(Arc::downgrade(&broker));
        (broker, inbox)
    }

    async fn lose_subscription(&self, node: &RedisBroker) {
        for server in shared_servers() {
            let clients = server.command(&[b"CLIENT", b"LIST"]);
            let clients = String::from_utf8_lossy(&clients).into_owned();
            let ours = format!("name={} ", node.client_name());
            for client in clients.lines().filter(|client| client.contains(&ours)) {
                let (_, id) = client.split_once("id=").expect("a client's id");
                let id = id.split(' ').next().expect("a client's id");
                server.command(&[b"CLIENT", b"KILL", b"ID", id.as_bytes()]);
            }
        }
    }

    /// The two servers change places, so that every slot moves.
    async fn change_routing(&self) {
        let (version, ring) = self.0.ring().await;
        let mut next = RingDocument { epoch: ring.epoch + 1, ..ring };
        let [one, other] = &mut next.nodes[..] else { panic!("{} servers", next.nodes.len()) };
        std::mem::swap(&mut one.address, &mut other.address);
        self.0.set(version, &next).await;
        let brokers: Vec<Arc<RedisBroker>> = self.1.lock().iter().filter_map(Weak::upgrade).collect();
        for broker in brokers {
            until_adopted(&broker, next.epoch).await;
        }
    }
}

ports::broker_conformance!([tokio::test] bus().await);
