//! `nearby ring`: the pub/sub nodes and what lives where. A change is one compare-and-swap; the nodes follow by
//! themselves.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use model::NodeId;
use protocol::ring::{Ring, RingDocument, RingNode, SLOTS};
use tokio::time::{sleep, timeout};

use super::{ConfigArgs, say};
use crate::backends::{self, PubSubAnswer, PubSubStatus, RING};
use crate::config::Cluster;

#[derive(Debug, Args)]
pub(super) struct RingArgs {
    #[command(flatten)]
    config: ConfigArgs,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Show the epoch, what each node owns and serves, and which epoch each gateway has learned
    Status,
    /// Add a pub/sub node; the first one makes the ring
    Add {
        /// Its name, which decides where it stands on the ring
        name: String,
        /// Where it listens, host:port
        address: String,
    },
    /// Take a node out; its slots move to the others
    Remove {
        /// Its name
        name: String,
    },
    /// Put another server in a node's place; no slot moves to another name
    Replace {
        /// Its name
        name: String,
        /// Where the new one listens, host:port
        address: String,
    },
    /// Put one slot on a node of your choice, or, without a name, back where the ring has it
    Pin {
        /// 0 to 16383
        slot: u16,
        /// The node's name
        name: Option<String>,
    },
}

/// How often a change is tried again that another one overtook.
const TRIES: usize = 8;

pub(super) async fn run(args: &RingArgs) -> anyhow::Result<()> {
    let config = args.config.load()?;
    let cluster = config.cluster()?;
    match &args.verb {
        Verb::Status => {}
        verb => {
            change(cluster, verb).await?;
            let _ = timeout(LEARNING, learned_by_all(cluster)).await;
        }
    }
    show(cluster).await
}

/// How long a change waits for the gateways before the status is shown; they learn it also without.
const LEARNING: Duration = Duration::from_secs(1);

/// Returns when no gateway goes by an earlier ring.
async fn learned_by_all(cluster: &Cluster) -> anyhow::Result<()> {
    let document = backends::discovery(cluster)?.document(RING).await?;
    let ring = RingDocument::parse(&document.text)?;
    while learned(&backends::ask_ring(cluster, &ring).await).values().any(|epoch| *epoch < ring.epoch) {
        sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

async fn change(cluster: &Cluster, verb: &Verb) -> anyhow::Result<()> {
    let discovery = backends::discovery(cluster)?;
    for _ in 0..TRIES {
        let document = discovery.document(RING).await?;
        let current = (document.version > 0).then(|| RingDocument::parse(&document.text)).transpose()?;
        let next = next(current.as_ref(), verb)?;
        if discovery.swap(RING, document.version, &next.text()).await? {
            backends::announce(cluster, &next).await;
            return Ok(());
        }
    }
    bail!("the ring was changed by others at the same time, {TRIES} times in a row: try again")
}

fn next(current: Option<&RingDocument>, verb: &Verb) -> anyhow::Result<RingDocument> {
    if let (None, Verb::Add { name, address }) = (current, verb) {
        return Ok(RingDocument::first(vec![RingNode { name: name.clone(), address: address.clone() }])?);
    }
    let current = current.context("there is no ring yet: `nearby ring add NAME HOST:PORT` makes one")?;
    Ok(match verb {
        Verb::Status => current.clone(),
        Verb::Add { name, address } => current.add(RingNode { name: name.clone(), address: address.clone() })?,
        Verb::Remove { name } => current.remove(name)?,
        Verb::Replace { name, address } => current.replace(name, address)?,
        Verb::Pin { slot, name } => current.pin(*slot, name.as_deref())?,
    })
}

async fn show(cluster: &Cluster) -> anyhow::Result<()> {
    let document = backends::discovery(cluster)?.document(RING).await?;
    if document.version == 0 {
        bail!("there is no ring yet: `nearby ring add NAME HOST:PORT` makes one");
    }
    let ring = Ring::parse(&document.text)?;
    let mut slots: BTreeMap<usize, usize> = BTreeMap::new();
    for slot in 0..SLOTS {
        *slots.entry(ring.owner(slot)).or_default() += 1;
    }
    say(format_args!("epoch {}", ring.epoch()))?;
    say(format_args!("{:<16} {:<22} {:>6} {:>12} {:>9}", "node", "address", "slots", "subscribers", "channels"))?;
    let asked = backends::ask_ring(cluster, ring.document()).await;
    for (at, node) in asked.iter().enumerate() {
        let slots = slots.get(&at).unwrap_or(&0);
        let down = if ring.document().down.contains(&node.name) { "  out of service" } else { "" };
        let said = match &node.answer {
            Ok(answer) => format!("{:>12} {:>9}{}", answer.subscribers, answer.channels, epoch_note(answer, &ring)),
            Err(unreachable) => format!("  out of reach: {unreachable}"),
        };
        say(format_args!("{:<16} {:<22} {slots:>6} {said}{down}", node.name, node.address))?;
    }
    for (gateway, epoch) in learned(&asked) {
        let behind = if epoch < ring.epoch() { ", which is behind" } else { "" };
        say(format_args!("gateway {gateway} has learned epoch {epoch}{behind}"))?;
    }
    for (slot, name) in &ring.document().pins {
        say(format_args!("slot {slot} is pinned to {name}"))?;
    }
    Ok(())
}

/// What the node tells publishers, if it is not the ring's epoch.
fn epoch_note(answer: &PubSubAnswer, ring: &Ring) -> String {
    match answer.epoch {
        Some(epoch) if epoch == ring.epoch() => String::new(),
        Some(epoch) => format!("  tells epoch {epoch}"),
        None => "  has lost its epoch".to_owned(),
    }
}

/// Each gateway with the lowest epoch that it goes by at any node.
fn learned(asked: &[PubSubStatus]) -> BTreeMap<NodeId, u64> {
    let mut learned = BTreeMap::new();
    for (gateway, epoch) in asked.iter().flat_map(|node| &node.answer).flat_map(|answer| &answer.gateways) {
        learned.entry(*gateway).and_modify(|lowest: &mut u64| *lowest = (*lowest).min(*epoch)).or_insert(*epoch);
    }
    learned
}
