//! What a delivery costs the pub/sub server: our brokers beside plain connections, by turns on the same server.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use model::UserId;
use ports::{Arrival, Broker, Channel, Clock, Inbox, Publication};
use protocol::record;
use redis_backend::RedisBroker;
use servers::redis::RedisServer;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::{attach, fix, server_cpu};

const CONNECTIONS: u64 = 20;
/// Of each channel.
const SUBSCRIBERS: u64 = 17;
const CHANNELS: u64 = 2_000;
/// Users begin here, so that all names are of one length.
const BASE: u64 = 10_000;
/// Every channel so often in a row.
const TURNS: u64 = 15;
const ROUNDS: usize = 3;
/// Deliveries under way: nobody is cut for being behind.
const UNDER_WAY: u64 = 200_000;
/// The figure that ours is compared with.
const PIPELINE: usize = 64;

/// Deliveries of everything published, and those that have arrived.
#[derive(Clone, Default)]
struct Flow {
    due: Arc<AtomicU64>,
    received: Arc<AtomicU64>,
}

impl Flow {
    fn came(&self, messages: usize) {
        self.received.fetch_add(messages as u64, Ordering::AcqRel);
    }

    fn received(&self) -> u64 {
        self.received.load(Ordering::Acquire)
    }

    /// So many were published: waits until not too much is under way.
    async fn went(&self, messages: usize) {
        self.due.fetch_add(messages as u64 * SUBSCRIBERS, Ordering::AcqRel);
        self.until(UNDER_WAY).await;
    }

    async fn until(&self, under_way: u64) {
        while self.received() + under_way < self.due.load(Ordering::Acquire) {
            sleep(Duration::from_micros(200)).await;
        }
    }
}

pub(super) async fn deliveries() {
    let server = RedisServer::start();
    let mut tasks = JoinSet::new();
    let (brokers, ours) = our_brokers(&server, &mut tasks).await;
    let (mut plain, theirs) = plain_connections(&server, &mut tasks).await;
    let mut raw = Vec::new();
    // Who publishes, in batches of how many, every channel so often.
    let all = brokers.len();
    let mut rows = [(1, 16, TURNS), (1, PIPELINE, TURNS), (1, 256, TURNS), (all, 16, 1), (all, PIPELINE, 1)]
        .map(|row| (row, Vec::new()));
    for _ in 0..ROUNDS {
        raw.push(measured(&server, &theirs, plain.publish(&theirs)).await);
        for ((publishers, batch, turns), found) in &mut rows {
            let work = async {
                let mut publishing = JoinSet::new();
                for broker in &brokers[..*publishers] {
                    publishing.spawn(publish(broker.clone(), *batch, *turns, ours.clone()));
                }
                publishing.join_all().await;
            };
            found.push(measured(&server, &ours, work).await);
        }
    }
    let raw = middle(raw);
    println!("server CPU a delivery, {CONNECTIONS} connections, {SUBSCRIBERS} subscribers a channel:");
    println!("  plain connections, PUBLISH pipelined by {PIPELINE}: {raw:.3} us");
    for ((publishers, batch, _), found) in rows {
        let ours = middle(found);
        println!("  ours, {publishers} publishing, batches of {batch}: {ours:.3} us, {:.2} x", ours / raw);
    }
}

/// Server CPU for each delivery of this work, in microseconds.
async fn measured(server: &RedisServer, flow: &Flow, work: impl Future<Output = ()>) -> f64 {
    let (cpu, before) = (server_cpu(server), flow.received());
    work.await;
    flow.until(0).await;
    (server_cpu(server) - cpu) / (flow.received() - before) as f64
}

fn middle(mut found: Vec<f64>) -> f64 {
    found.sort_by(f64::total_cmp);
    found[found.len() / 2]
}

/// Who subscribes to a channel: as many as asked for, in turn.
fn subscribes(connection: u64, channel: u64) -> bool {
    (connection + CONNECTIONS - channel % CONNECTIONS) % CONNECTIONS < SUBSCRIBERS
}

async fn our_brokers(server: &RedisServer, tasks: &mut JoinSet<()>) -> (Vec<Arc<RedisBroker>>, Flow) {
    let (mut brokers, flow) = (Vec::new(), Flow::default());
    for connection in 0..CONNECTIONS {
        let (broker, inbox) = attach(server, connection + 1).await;
        let channels = (0..CHANNELS).filter(|&channel| subscribes(connection, channel));
        let channels: Vec<Channel> = channels.map(|channel| Channel::User(UserId(BASE + channel))).collect();
        broker.subscribe(&channels).await.unwrap();
        tasks.spawn(count(inbox, flow.clone()));
        brokers.push(broker);
    }
    for channel in 0..CHANNELS {
        let name = format!("u:{}", BASE + channel);
        let subscribed = format!(":{SUBSCRIBERS}\r\n");
        while !server.command(&[b"PUBSUB", b"NUMSUB", name.as_bytes()]).ends_with(subscribed.as_bytes()) {
            sleep(Duration::from_millis(10)).await;
        }
    }
    (brokers, flow)
}

async fn count(mut inbox: Inbox, flow: Flow) {
    while let Some(arrival) = inbox.recv().await {
        match arrival {
            Arrival::Batch(messages) => flow.came(messages.len()),
            // Before the first message a connection may have been made anew: nothing was lost with it.
            other => assert_eq!(flow.due.load(Ordering::Acquire), 0, "a loss: {other:?}"),
        }
    }
}

/// Publishes on every channel so many times, as the pump of a shard does: the next batch when one is confirmed.
async fn publish(broker: Arc<RedisBroker>, batch: usize, turns: u64, flow: Flow) {
    for turn in 0..turns {
        let mut fixes = (0..CHANNELS).map(|channel| Publication::Location(fix(BASE + channel, turn)));
        loop {
            let messages: Vec<Publication> = fixes.by_ref().take(batch).collect();
            if messages.is_empty() {
                break;
            }
            broker.publish(&messages).await.unwrap();
            flow.went(messages.len()).await;
        }
    }
}

/// A publishing connection without anything of ours.
struct Plain {
    stream: BufReader<TcpStream>,
}

async fn plain_connections(server: &RedisServer, tasks: &mut JoinSet<()>) -> (Plain, Flow) {
    let flow = Flow::default();
    for connection in 0..CONNECTIONS {
        let mut stream = TcpStream::connect(server.address()).await.unwrap();
        let channels: Vec<u64> = (0..CHANNELS).filter(|&channel| subscribes(connection, channel)).collect();
        let mut subscribe = format!("*{}\r\n$9\r\nSUBSCRIBE\r\n", channels.len() + 1);
        let names = channels.iter().map(|channel| format!("$7\r\nr:{}\r\n", BASE + channel));
        subscribe.extend(names);
        stream.write_all(subscribe.as_bytes()).await.unwrap();
        let acknowledged: usize = (1..=channels.len())
            .map(|count| format!("*3\r\n$9\r\nsubscribe\r\n$7\r\nr:10000\r\n:{count}\r\n").len())
            .sum();
        let mut answer = vec![0; acknowledged];
        stream.read_exact(&mut answer).await.unwrap();
        tasks.spawn(count_bytes(stream, flow.clone()));
    }
    let stream = TcpStream::connect(server.address()).await.unwrap();
    stream.set_nodelay(true).unwrap();
    (Plain { stream: BufReader::new(stream) }, flow)
}

/// All messages are of one length.
async fn count_bytes(mut stream: TcpStream, flow: Flow) {
    let message = format!("*3\r\n$7\r\nmessage\r\n$7\r\nr:10000\r\n${}\r\n\r\n", record::RECORD_LEN).len();
    let message = message + record::RECORD_LEN;
    let (mut buffer, mut rest) = (vec![0; 64 * 1_024], 0);
    while let Ok(read) = stream.read(&mut buffer).await
        && read > 0
    {
        rest += read;
        flow.came(rest / message);
        rest %= message;
    }
}

impl Plain {
    /// The same channels as often, each pipeline when the one before is answered.
    async fn publish(&mut self, flow: &Flow) {
        let mut answer = vec![0; PIPELINE * 5];
        for turn in 0..TURNS {
            let now = Clock::System.monotonic();
            let channels: Vec<u64> = (0..CHANNELS).collect();
            for pipeline in channels.chunks(PIPELINE) {
                let mut out = Vec::new();
                for channel in pipeline {
                    let name = format!("*3\r\n$7\r\nPUBLISH\r\n$7\r\nr:{}\r\n$66\r\n", BASE + channel);
                    out.extend_from_slice(name.as_bytes());
                    out.extend_from_slice(&record::encode(&fix(BASE + channel, turn), now));
                    out.extend_from_slice(b"\r\n");
                }
                self.stream.get_mut().write_all(&out).await.unwrap();
                let answer = &mut answer[..pipeline.len() * 5];
                self.stream.read_exact(answer).await.unwrap();
                assert!(answer.starts_with(format!(":{SUBSCRIBERS}\r\n").as_bytes()));
                flow.went(pipeline.len()).await;
            }
        }
    }
}
