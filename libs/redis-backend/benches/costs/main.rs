//! What the decisions about Redis rest on: `cargo bench -p redis-backend`. Prints microseconds of one core.
#![allow(clippy::print_stdout, clippy::unwrap_used, missing_docs)]

mod deliveries;
mod stall;

use std::sync::Arc;
use std::time::Duration;

use fred::bytes::Bytes;
use fred::prelude::*;
use fred::types::CustomCommand;
use model::{Fix, Generation, Motion, NodeId, Order, Place, PolicyVersion, Position, TimestampMs, UserId};
use ports::embedded::EmbeddedDiscovery;
use ports::{Arrival, Broker, Channel, Clock, Discovery, LocationCache, Publication};
use protocol::record;
use protocol::ring::{RingDocument, RingNode};
use redis_backend::{BrokerSettings, RedisBroker, RedisCache};
use rustix::time::{ClockId, clock_gettime};
use servers::redis::RedisServer;

const USERS: u64 = 1_000;
const ROUNDS: u64 = 100;

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        stall::stall().await;
        cache().await;
        broker_ours().await;
        broker_driver().await;
        deliveries::deliveries().await;
    });
}

fn fix(user: u64, ts: u64) -> Fix {
    Fix {
        user: UserId(user),
        place: Place::new(Position::new(40.0, 116.0).unwrap()),
        order: Order { generation: Generation(1), ts: TimestampMs(ts), ..Order::default() },
        expires: Clock::System.monotonic().after(Duration::from_secs(600)),
        policy: PolicyVersion(3),
        motion: Motion::UNKNOWN,
    }
}

/// CPU time of this process, which leaves the server's out.
fn cpu() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 * 1e6 + time.tv_nsec as f64 / 1e3
}

/// CPU time of the server, by its own account.
fn server_cpu(server: &RedisServer) -> f64 {
    let info = String::from_utf8(server.command(&[b"INFO", b"cpu"])).unwrap();
    let of = |name: &str| -> f64 {
        info.lines().find_map(|line| line.strip_prefix(name)).and_then(|value| value.trim().parse().ok()).unwrap()
    };
    (of("used_cpu_sys:") + of("used_cpu_user:")) * 1e6
}

async fn measure(what: &str, server: &RedisServer, operations: u64, work: impl Future<Output = ()>) {
    let (ours, theirs) = (cpu(), server_cpu(server));
    work.await;
    let each = |spent: f64| spent / operations as f64;
    println!("{what}: client {:.2} us, server {:.2} us", each(cpu() - ours), each(server_cpu(server) - theirs));
}

async fn cache() {
    let server = RedisServer::start();
    let cache = RedisCache::connect(&server.url(), "", Clock::System).await.unwrap();
    let batches = |round: u64| (0..USERS).map(|user| fix(user, round)).collect::<Vec<_>>();
    let operations = USERS * ROUNDS;
    measure("put_many by 1,000", &server, operations, async {
        for round in 0..ROUNDS {
            cache.put_many(&batches(round)).await.unwrap();
        }
    })
    .await;
    for (what, there) in [("get_many by 400, all there", 1), ("get_many by 400, one in ten there", 10)] {
        let users: Vec<UserId> =
            (0..400).map(|user| UserId(if user % there == 0 { user } else { 1_000_000 + user })).collect();
        measure(what, &server, 400 * ROUNDS, async {
            for _ in 0..ROUNDS {
                cache.get_many(&users).await.unwrap();
            }
        })
        .await;
    }
    let client = Builder::from_config(Config::from_url(&server.url()).unwrap()).build().unwrap();
    client.init().await.unwrap();
    measure("SET .. PX GET, pipelined by 1,000", &server, operations, async {
        for round in 0..ROUNDS {
            let now = Clock::System.monotonic();
            let pipeline = client.pipeline();
            for fix in batches(round) {
                let record = Bytes::copy_from_slice(&record::encode(&fix, now));
                let words: Vec<Value> =
                    vec![format!("loc:{}", fix.user).into(), record.into(), "PX".into(), 600_000.into(), "GET".into()];
                let _: Value = pipeline.custom(CustomCommand::new_static("SET", None, false), words).await.unwrap();
            }
            let _: Vec<Value> = pipeline.all().await.unwrap();
        }
    })
    .await;
}

async fn attach(server: &RedisServer, node: u64) -> (Arc<RedisBroker>, ports::Inbox) {
    let discovery = Arc::new(EmbeddedDiscovery::new(Clock::System));
    let ring = RingDocument::first(vec![RingNode { name: "one".to_owned(), address: server.address() }]).unwrap();
    discovery.swap("ring", 0, &ring.text()).await.unwrap();
    let settings = BrokerSettings {
        node: NodeId(node),
        inbox_batches: 1_024,
        prefix: String::new(),
        document: "ring".to_owned(),
        clock: Clock::System,
    };
    RedisBroker::connect(settings, discovery).await.unwrap()
}

/// The cost of receiving is the difference between publishing to a subscriber and to nobody.
async fn broker_ours() {
    let server = RedisServer::start();
    let (publisher, _inbox) = attach(&server, 1).await;
    let batch = |round| (0..USERS).map(|user| Publication::Location(fix(user, round))).collect::<Vec<_>>();
    measure("publish by 1,000 to nobody", &server, USERS * ROUNDS, async {
        for round in 0..ROUNDS {
            publisher.publish(&batch(round)).await.unwrap();
        }
    })
    .await;
    let (subscriber, mut inbox) = attach(&server, 2).await;
    let channels: Vec<Channel> = (0..USERS).map(|user| Channel::User(UserId(user))).collect();
    measure("subscribe by 1,000", &server, USERS, async { subscriber.subscribe(&channels).await.unwrap() }).await;
    measure("publish by 1,000 and receive, our connection", &server, USERS * ROUNDS, async {
        for round in 0..ROUNDS {
            publisher.publish(&batch(round)).await.unwrap();
            let mut heard = 0;
            while heard < USERS as usize {
                match inbox.recv().await.unwrap() {
                    Arrival::Batch(messages) => heard += messages.len(),
                    other => panic!("a loss: {other:?}"),
                }
            }
        }
    })
    .await;
}

async fn broker_driver() {
    let server = RedisServer::start();
    let (publisher, _inbox) = attach(&server, 1).await;
    let mut builder = Builder::from_config(Config::from_url(&server.url()).unwrap());
    builder.with_performance_config(|config| config.broadcast_channel_capacity = 65_536);
    let client = builder.build().unwrap();
    client.init().await.unwrap();
    let mut messages = client.message_rx();
    let channels: Vec<String> = (0..USERS).map(|user| format!("u:{user}")).collect();
    client.subscribe(channels).await.unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    let batch = |round| (0..USERS).map(|user| Publication::Location(fix(user, round))).collect::<Vec<_>>();
    measure("publish by 1,000 and receive, fred", &server, USERS * ROUNDS, async {
        for round in 0..ROUNDS {
            publisher.publish(&batch(round)).await.unwrap();
            let now = Clock::System.monotonic();
            for _ in 0..USERS {
                let message = messages.recv().await.unwrap();
                record::decode(message.value.as_bytes().unwrap(), now).unwrap();
            }
        }
    })
    .await;
}
