//! What one of each thing costs. Every figure says where it is from, for a plan is worth what its inputs are.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::engine::{Costs, Findings};

/// Where a figure is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// By a command on one machine.
    Measured,
    /// Measured elsewhere, or by others.
    Taken,
    /// Follows from a format or a constant of the code.
    Derived,
    /// Nobody has measured it.
    Assumed,
}

/// One figure.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// In the unit that the field's name ends with.
    pub value: f64,
    /// Whether it was measured.
    pub origin: Origin,
    /// The command, the place or the reason.
    pub how: String,
}

/// What a plan is made from. CPU is of one core; `us` are microseconds.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Inputs {
    /// Gateway: an update read from a socket, decoded and taken in, up to the pump; nobody is told.
    pub update_us: Input,
    /// Gateway: handing frames to the kernel for one viewer, once, the frames themselves not counted.
    pub write_us: Input,
    /// Gateway: one position published, up to the kernel.
    pub publish_us: Input,
    /// Gateway: one bus message received and decoded, up to the inbox.
    pub bus_message_us: Input,
    /// Gateway: a position put into the cache.
    pub cache_put_us: Input,
    /// Gateway: a position read from the cache, present or not.
    pub cache_get_us: Input,
    /// Gateway: a point offered to the history and sent to it.
    pub history_us: Input,
    /// Gateway: a connection opened, authenticated and answered, without friends.
    pub connect_us: Input,
    /// Gateway: the same for each friend, read of the directory and linked.
    pub connect_friend_us: Input,
    /// Gateway: one channel subscribed to or given up.
    pub subscribe_us: Input,
    /// Gateway: a connection that does nothing, in a second.
    pub idle_us: Input,
    /// Gateway: memory of a connection without friends, that of the kernel included.
    pub connection_bytes: Input,
    /// Gateway: memory of a friend of a viewer.
    pub edge_bytes: Input,
    /// Gateway: memory of a user whom somebody there watches, subscription included.
    pub watched_bytes: Input,
    /// Client to gateway, on the line: one update.
    pub update_line_bytes: Input,
    /// Gateway to client, on the line: one write, the frames themselves not counted.
    pub write_line_bytes: Input,
    /// Between gateway and pub/sub node, on the line: one message.
    pub bus_line_bytes: Input,
    /// Pub/sub node: a message published, whoever hears it.
    pub redis_publish_us: Input,
    /// Pub/sub node: one delivery.
    pub redis_delivery_us: Input,
    /// Pub/sub node: one channel subscribed to or given up.
    pub redis_subscribe_us: Input,
    /// Pub/sub node: memory of a channel with its first subscriber.
    pub redis_channel_bytes: Input,
    /// Pub/sub node: memory of each further subscriber of a channel.
    pub redis_subscriber_bytes: Input,
    /// Until every gateway has taken a dead pub/sub node out of the ring it uses.
    pub detection_s: Input,
    /// Cache node: a put.
    pub redis_put_us: Input,
    /// Cache node: a get of what is there.
    pub redis_get_us: Input,
    /// Cache node: a get of what is not.
    pub redis_miss_us: Input,
    /// Cache node: memory of an entry.
    pub cache_entry_bytes: Input,
    /// History node: a point written, on each replica.
    pub history_write_us: Input,
    /// History node: a point on disk, on each replica.
    pub history_row_bytes: Input,
    /// A shard's costs, by its size.
    pub engine: Vec<Costs>,
    /// How the engine's costs were measured.
    pub engine_how: String,
}

/// Those that come with the program.
const DEFAULT: &str = include_str!("inputs.json");

impl Inputs {
    /// From a file, or the ones that come with the program; the engine's from `engine --json`, if given.
    pub fn read(inputs: Option<&Path>, engine: Option<&Path>) -> Result<Inputs> {
        let read = |path: &Path| fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()));
        let text = inputs.map(read).transpose()?;
        let mut inputs = Inputs::parse(text.as_deref().unwrap_or(DEFAULT))?;
        if let Some(path) = engine {
            let findings: Findings = serde_json::from_str(&read(path)?).context("not the JSON of `engine`")?;
            inputs.engine = findings.costs;
            inputs.engine_how = format!("loadtest engine --json {}", path.display());
        }
        ensure!(!inputs.engine.is_empty(), "the engine's costs are missing: `loadtest engine --json FILE` makes them");
        Ok(inputs)
    }

    /// From JSON; a figure that is missing or unknown is an error.
    pub fn parse(text: &str) -> Result<Inputs> {
        serde_json::from_str(text).context("not a file of inputs for a plan")
    }

    /// The costs of a shard with so many viewers: those of the measured size that is nearest by ratio.
    pub fn engine_at(&self, viewers: f64) -> Option<&Costs> {
        let distance = |costs: &&Costs| (f64::from(costs.viewers.max(1)) / viewers.max(1.0)).ln().abs();
        self.engine.iter().min_by(|one, other| distance(one).total_cmp(&distance(other)))
    }
}
