//! From what one of each thing costs to how many of each are needed.
//!
//! A user's channel is subscribed to once by each gateway that has somebody who watches that user. Watchers are anywhere,
//! so of G gateways a user with w watchers on line is subscribed to by G (1 - (1 - 1/G)^w), and so many receive each of
//! the user's positions. Every gateway that receives one compares the distances of its own watchers.

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use super::inputs::Inputs;
use super::target::Target;
use crate::engine::Costs;

/// What has to be done in a second, with so many gateways.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Load {
    /// Gateways.
    pub gateways: f64,
    /// Positions taken in.
    pub updates: f64,
    /// Gateways that each of them is delivered to.
    pub reached: f64,
    /// Bus messages delivered.
    pub deliveries: f64,
    /// Distances compared.
    pub checks: f64,
    /// Friends told.
    pub told: f64,
    /// Writes to sockets.
    pub writes: f64,
    /// Connections opened.
    pub connects: f64,
    /// Channels subscribed to because nobody on the gateway watched them; as many are given up.
    pub subscribes: f64,
    /// Subscriptions held, over all gateways. Not by second.
    pub subscriptions: f64,
}

impl Load {
    /// Of a target.
    pub fn of(target: &Target, gateways: f64) -> Load {
        let updates = target.updates_per_s();
        let reached = Target::reached(gateways, target.online);
        let connects = target.connects_per_s();
        // A channel is new to the gateway when none of the friend's other watchers is there.
        let alone = (1.0 - 1.0 / gateways).powf((target.online - 1.0).max(0.0));
        Load {
            gateways,
            updates,
            reached,
            deliveries: updates * reached,
            checks: updates * target.online,
            told: updates * target.near,
            writes: target.writes_per_s(),
            connects,
            subscribes: connects * target.friends * alone,
            subscriptions: target.users * reached,
        }
    }

    /// Cores that the shards take, of all gateways.
    pub fn engine_cores(&self, costs: &Costs) -> f64 {
        let ns = self.updates * costs.ns_per_taken
            + self.deliveries * costs.ns_per_heard
            + self.checks * costs.ns_per_check
            + self.told * costs.ns_per_told;
        ns / 1e9
    }
}

/// Cores of all gateways, by what they do.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct GatewayCores {
    /// Reading updates, up to the pump.
    pub updates: f64,
    /// Cache, history and publishing of what was taken in.
    pub pump: f64,
    /// Receiving bus messages, and looking up who watches.
    pub bus: f64,
    /// Comparing distances.
    pub checks: f64,
    /// Making frames, and handing them to the kernel.
    pub pushes: f64,
    /// Connecting, with the cache's part and the subscriptions.
    pub connects: f64,
    /// Connections that do nothing.
    pub idle: f64,
}

impl GatewayCores {
    /// Of a load.
    pub fn of(inputs: &Inputs, costs: &Costs, target: &Target, load: &Load) -> GatewayCores {
        let us = |count: f64, each: f64| count * each / 1e6;
        let pump_us = inputs.cache_put_us.value + inputs.history_us.value + inputs.publish_us.value;
        let connect_us =
            inputs.connect_us.value + target.friends * (inputs.connect_friend_us.value + inputs.cache_get_us.value);
        GatewayCores {
            updates: us(load.updates, inputs.update_us.value),
            pump: us(load.updates, pump_us),
            bus: us(load.deliveries, inputs.bus_message_us.value + costs.ns_per_heard / 1e3),
            checks: us(load.checks, costs.ns_per_check / 1e3),
            pushes: us(load.told, costs.ns_per_told / 1e3) + us(load.writes, inputs.write_us.value),
            connects: us(load.connects, connect_us) + us(2.0 * load.subscribes, inputs.subscribe_us.value),
            idle: us(target.online_users, inputs.idle_us.value),
        }
    }

    /// Together.
    pub fn total(&self) -> f64 {
        self.updates + self.pump + self.bus + self.checks + self.pushes + self.connects + self.idle
    }
}

/// The gateways.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Gateways {
    /// So many.
    pub nodes: f64,
    /// Of all of them.
    pub cores: GatewayCores,
    /// Busy, of each.
    pub cores_each: f64,
    /// Of each.
    pub memory_gib_each: f64,
    /// From and to clients, of each, in Mbit/s.
    pub client_mbit_each: f64,
    /// From and to pub/sub nodes, of each, in Mbit/s.
    pub bus_mbit_each: f64,
}

/// A tier of single-threaded servers.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Tier {
    /// So many.
    pub nodes: f64,
    /// Busy, of each.
    pub cores_each: f64,
    /// Of each.
    pub memory_gib_each: f64,
}

/// How deliveries come back after a pub/sub node died.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Recovery {
    /// Subscriptions that it held.
    pub channels: f64,
    /// Until it is out of the ring.
    pub detection_s: f64,
    /// Then, until the other pub/sub nodes have taken the subscriptions.
    pub pubsub_s: f64,
    /// Until each gateway has asked for its own.
    pub gateway_s: f64,
    /// Until the caches have told the last position on each.
    pub cache_s: f64,
    /// Until what is sent is delivered again: channels on which somebody was heard lately go first. The slowest of the
    /// three counts, for all go on at once.
    pub live_s: f64,
    /// Until the channels of those who send nothing are held again as well.
    pub all_s: f64,
}

/// The whole.
#[derive(Clone, Debug, Serialize)]
pub struct Plan {
    /// What was asked for.
    pub target: Target,
    /// What it means.
    pub load: Load,
    /// Gateways.
    pub gateways: Gateways,
    /// Pub/sub nodes.
    pub pubsub: Tier,
    /// What the number of pub/sub nodes follows from: `cpu`, `memory` or `recovery`.
    pub pubsub_bound: &'static str,
    /// When one of them dies.
    pub recovery: Recovery,
    /// Caches, without their standbys.
    pub cache: Tier,
    /// History nodes.
    pub history: Tier,
    /// Of each history node, in TiB.
    pub history_disk_tib_each: f64,
    /// etcd: members.
    pub etcd_nodes: f64,
    /// etcd: writes in a second, most of them confirmations of removals by gateways.
    pub etcd_writes_per_s: f64,
    /// Viewers of a shard, by which the engine's costs were picked.
    pub viewers_per_shard: f64,
    /// The size of the shard that was measured.
    pub engine_measured_at: u32,
}

const GIB: f64 = 1_073_741_824.0;
const MOST_GATEWAYS: u32 = 100_000;
/// Three members outlive one; five are for those who want to.
const ETCD_NODES: f64 = 3.0;
/// One node must be able to die, and a ring of two would then be one.
const FEWEST: f64 = 3.0;
/// How often a gateway polls the control log and prolongs its lease, in a second.
const LEASES_PER_S: f64 = 1.0 / 3.0;
/// Confirmations of one gateway in a second at the most: one covers all removals before it.
const CONFIRMATIONS_PER_S: f64 = 20.0;

impl Plan {
    /// Makes one; an error if no number of gateways carries the load.
    pub fn of(inputs: &Inputs, target: &Target) -> Result<Plan> {
        ensure!(target.busy > 0.0 && target.cores > 0.0 && target.interval_s > 0.0, "nothing to plan with");
        let fits = |count: f64| gateways(inputs, target, count).is_some_and(|found| fits(&found.0, target));
        let count = match target.gateways {
            Some(count) => count,
            None => {
                (1..MOST_GATEWAYS).map(f64::from).find(|count| fits(*count)).context("no number of gateways fits")?
            }
        };
        let (gateways, costs) = gateways(inputs, target, count).context("the engine's costs are missing")?;
        let load = Load::of(target, count);
        let cache = cache(inputs, target, &load);
        let (pubsub, pubsub_bound, recovery) = pubsub(inputs, target, &load, &cache)?;
        let points = load.updates * target.replicas;
        let history_cores = points * inputs.history_write_us.value / 1e6;
        let nodes = (history_cores / (target.cores * target.busy)).ceil().max(FEWEST);
        let disk = points * target.retention_days * 86_400.0 * inputs.history_row_bytes.value;
        let confirmations = target.removals_per_s.min(CONFIRMATIONS_PER_S);
        Ok(Plan {
            target: target.clone(),
            load,
            gateways,
            pubsub,
            pubsub_bound,
            recovery,
            cache,
            // Rows pass through memory and stay on disk: half of what a node has is for the heap and the cache.
            history: Tier { nodes, cores_each: history_cores / nodes, memory_gib_each: target.memory_gib / 2.0 },
            history_disk_tib_each: disk / nodes / GIB / 1_024.0,
            etcd_nodes: ETCD_NODES,
            etcd_writes_per_s: target.removals_per_s + count * (confirmations + LEASES_PER_S),
            viewers_per_shard: target.online_users / count / target.cores,
            engine_measured_at: costs.viewers,
        })
    }
}

fn gateways<'a>(inputs: &'a Inputs, target: &Target, count: f64) -> Option<(Gateways, &'a Costs)> {
    let costs = inputs.engine_at(target.online_users / count / target.cores)?;
    let load = Load::of(target, count);
    let cores = GatewayCores::of(inputs, costs, target, &load);
    let connections = target.online_users / count;
    let memory = connections * (inputs.connection_bytes.value + target.friends * inputs.edge_bytes.value)
        + load.subscriptions / count * inputs.watched_bytes.value;
    let mbit = |bytes_per_s: f64| bytes_per_s * 8.0 / 1e6 / count;
    let to_clients = load.told * costs.bytes_per_frame + load.writes * inputs.write_line_bytes.value;
    let found = Gateways {
        nodes: count,
        cores,
        cores_each: cores.total() / count,
        memory_gib_each: memory / GIB,
        client_mbit_each: mbit(load.updates * inputs.update_line_bytes.value + to_clients),
        bus_mbit_each: mbit((load.updates + load.deliveries) * inputs.bus_line_bytes.value),
    };
    Some((found, costs))
}

fn fits(gateways: &Gateways, target: &Target) -> bool {
    gateways.cores_each <= target.cores * target.busy && gateways.memory_gib_each <= target.memory_gib / 2.0
}

fn cache(inputs: &Inputs, target: &Target, load: &Load) -> Tier {
    let absent = (target.friends - target.online).max(0.0);
    let connect_us = target.online * inputs.redis_get_us.value + absent * inputs.redis_miss_us.value;
    let cores = (load.updates * inputs.redis_put_us.value + load.connects * connect_us) / 1e6;
    // Who left is still there until the entry expires.
    let entries = target.online_users + load.connects * target.ttl_s;
    let memory = entries.min(target.users) * inputs.cache_entry_bytes.value / GIB;
    let nodes = (cores / target.busy).max(memory / (target.memory_gib / 2.0)).ceil().max(FEWEST);
    Tier { nodes, cores_each: cores / nodes, memory_gib_each: memory / nodes }
}

fn pubsub(inputs: &Inputs, target: &Target, load: &Load, cache: &Tier) -> Result<(Tier, &'static str, Recovery)> {
    let cores = (load.updates * inputs.redis_publish_us.value
        + load.deliveries * inputs.redis_delivery_us.value
        + 2.0 * load.subscribes * inputs.redis_subscribe_us.value)
        / 1e6;
    let further = (load.subscriptions - target.users).max(0.0);
    let memory =
        (target.users * inputs.redis_channel_bytes.value + further * inputs.redis_subscriber_bytes.value) / GIB;
    let by_cpu = (cores / target.busy).ceil().max(FEWEST);
    let by_memory = (memory / (target.memory_gib / 2.0)).ceil().max(FEWEST);
    let recovers = |nodes: f64| recovery(inputs, target, load, cache, nodes, cores).live_s <= target.recovery_s;
    let least = by_cpu.max(by_memory);
    let enough = (least as u32..MOST_GATEWAYS).map(f64::from).find(|nodes| recovers(*nodes));
    let nodes = enough.context("no number of pub/sub nodes recovers in time: raise --recovery-s")?;
    let bound = match nodes {
        nodes if nodes > least => "recovery",
        _ if by_memory > by_cpu => "memory",
        _ => "cpu",
    };
    let tier = Tier { nodes, cores_each: cores / nodes, memory_gib_each: memory / nodes };
    Ok((tier, bound, recovery(inputs, target, load, cache, nodes, cores)))
}

/// The dead node's channels go to all others; each gateway asks for its own, and reads them from the caches. What is
/// left of a server's core beside its ordinary work is there for it.
fn recovery(inputs: &Inputs, target: &Target, load: &Load, cache: &Tier, nodes: f64, cores: f64) -> Recovery {
    let channels = load.subscriptions / nodes;
    let free = |busy: f64| (1.0 - busy).max(0.01);
    let us = |count: f64, each: f64| count * each / 1e6;
    let online = (target.online_users / target.users).min(1.0);
    let read_us = online * inputs.redis_get_us.value + (1.0 - online) * inputs.redis_miss_us.value;
    let pubsub_s = us(channels / (nodes - 1.0), inputs.redis_subscribe_us.value) / free(cores / (nodes - 1.0));
    let ask_us = inputs.subscribe_us.value + inputs.cache_get_us.value;
    let gateway_s = us(channels / load.gateways, ask_us);
    let cache_s = us(channels / cache.nodes, read_us) / free(cache.cores_each);
    let slowest = pubsub_s.max(gateway_s).max(cache_s);
    let detection_s = inputs.detection_s.value;
    Recovery {
        channels,
        detection_s,
        pubsub_s,
        gateway_s,
        cache_s,
        live_s: detection_s + slowest * online,
        all_s: detection_s + slowest,
    }
}
