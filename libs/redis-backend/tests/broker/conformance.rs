//! Every sentence of the contract, on two servers.

use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use ports::Inbox;
use ports::broker::conformance::BrokerHarness;
use redis_backend::RedisBroker;
use servers::redis::RedisServer;

use crate::world::World;

pub(crate) fn shared_servers() -> [&'static RedisServer; 2] {
    static SERVERS: OnceLock<[RedisServer; 2]> = OnceLock::new();
    SERVERS.get_or_init(|| [RedisServer::start(), RedisServer::start()]).each_ref()
}

struct Bus(World);

async fn bus() -> Bus {
    Bus(World::on(&shared_servers()).await)
}

#[async_trait]
impl BrokerHarness for Bus {
    type Broker = RedisBroker;

    async fn attach(&self, inbox_batches: usize) -> (Arc<RedisBroker>, Inbox) {
        self.0.attach(inbox_batches).await
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
}

ports::broker_conformance!([tokio::test] bus().await);
