//! What an operator may want to know of the pub/sub nodes, asked from outside: it takes part in nothing.

use std::fmt;
use std::time::Duration;

use bytes::BytesMut;
use model::NodeId;
use protocol::ring::RingDocument;
use redis_protocol::resp2::types::RangeFrame;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::dial::{Connection, Dial as _, Tcp};
use super::failover::announcement;
use super::names::{Names, publisher_of, subscriber_of};
use super::wire::{command, frames};

/// How long each node may take to answer.
const PATIENCE: Duration = Duration::from_secs(1);

/// One pub/sub node, in the ring document's words and by its own account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PubSubStatus {
    /// Its name in the ring.
    pub name: String,
    /// Where it listens.
    pub address: String,
    /// What it answered, or why it did not.
    pub answer: Result<PubSubAnswer, Unreachable>,
}

/// What a pub/sub node says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PubSubAnswer {
    /// The epoch that publishers are told; `None` if it has lost it and nobody has told it since.
    pub epoch: Option<u64>,
    /// Connections of gateways that receive messages.
    pub subscribers: u64,
    /// Channels that anybody is subscribed to, also those of other fleets on this server.
    pub channels: u64,
    /// Gateways that publish here, each with the epoch of the ring that it goes by; ascending.
    pub gateways: Vec<(NodeId, u64)>,
}

/// Why a node did not answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreachable(String);

impl fmt::Display for Unreachable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Asks each node of a ring, all at once, for at most a second; in the document's order. `prefix` is that of the fleet's
/// [`BrokerSettings`](super::BrokerSettings).
pub async fn pubsub_status(ring: &RingDocument, prefix: &str) -> Vec<PubSubStatus> {
    let mut asked = JoinSet::new();
    for (at, node) in ring.nodes.iter().cloned().enumerate() {
        let prefix = prefix.to_owned();
        asked.spawn(async move {
            let answer = match timeout(PATIENCE, ask(&node.address, &prefix)).await {
                Ok(answer) => answer,
                Err(_) => Err(Unreachable(format!("no answer within {PATIENCE:?}"))),
            };
            (at, PubSubStatus { name: node.name, address: node.address, answer })
        });
    }
    let mut all = asked.join_all().await;
    all.sort_unstable_by_key(|(at, _)| *at);
    all.into_iter().map(|(_, status)| status).collect()
}

/// Tells every gateway that subscribes to a node of this ring that it has been made, so that they need not find out by
/// themselves. At most once, and for at most a second.
pub async fn announce_ring(ring: &RingDocument, prefix: &str) {
    let mut told = JoinSet::new();
    for node in &ring.nodes {
        let (address, names) = (node.address.clone(), Names::new(prefix, NodeId(0)));
        let text = announcement(ring.epoch);
        told.spawn(timeout(PATIENCE, async move {
            let mut connection = Tcp.dial(&address).await?;
            let mut out = BytesMut::new();
            command(&mut out, &[b"PUBLISH", &names.votes(), text.as_bytes()]);
            connection.write_all(&out).await?;
            // The answer says that it has gone out.
            connection.read_buf(&mut out).await
        }));
    }
    // Who cannot be told finds out.
    told.join_all().await;
}

async fn ask(address: &str, prefix: &str) -> Result<PubSubAnswer, Unreachable> {
    let unreachable = |error: std::io::Error| Unreachable(error.to_string());
    let mut connection = Tcp.dial(address).await.map_err(unreachable)?;
    let mut out = BytesMut::new();
    command(&mut out, &[b"GET", &Names::new(prefix, NodeId(0)).epoch()]);
    command(&mut out, &[b"INFO", b"stats"]);
    command(&mut out, &[b"CLIENT", b"LIST"]);
    connection.write_all(&out).await.map_err(unreachable)?;
    let [epoch, info, clients] = answers(&mut connection).await?;
    let channels = info.lines().find_map(|line| line.strip_prefix("pubsub_channels:")?.trim().parse().ok());
    let names = || clients.lines().filter_map(|line| line.split(' ').find_map(|word| word.strip_prefix("name=")));
    let mut gateways: Vec<(NodeId, u64)> = names().filter_map(|name| publisher_of(name, prefix)).collect();
    gateways.sort_unstable();
    Ok(PubSubAnswer {
        epoch: epoch.parse().ok(),
        subscribers: names().filter(|name| subscriber_of(name, prefix)).count() as u64,
        channels: channels.unwrap_or(0),
        gateways,
    })
}

/// Three answers; a null is empty.
async fn answers(connection: &mut Connection) -> Result<[String; 3], Unreachable> {
    let mut read = BytesMut::new();
    let mut answers = Vec::new();
    let mut refused = None;
    while answers.len() < 3 {
        match connection.read_buf(&mut read).await {
            Ok(1..) => {}
            Ok(0) => return Err(Unreachable("it closed the connection".to_owned())),
            Err(error) => return Err(Unreachable(error.to_string())),
        }
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let taken = frames(&mut read, |bytes, frame| match frame {
            RangeFrame::BulkString((from, to)) | RangeFrame::SimpleString((from, to)) => {
                answers.push(text(&bytes[from..to]));
            }
            RangeFrame::Error((from, to)) => refused = Some(Unreachable(text(&bytes[from..to]))),
            _ => answers.push(String::new()),
        });
        if let Some(refused) = refused {
            return Err(refused);
        }
        taken.map_err(|lost| Unreachable(lost.0.to_owned()))?;
    }
    answers.try_into().map_err(|_| Unreachable("it answered more than was asked".to_owned()))
}
