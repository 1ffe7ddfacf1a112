//! What a plan is for.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

/// The load, the machines, and what is expected of them. The defaults are the case of the book: ten million people on
/// line who send every thirty seconds.
#[derive(Args, Clone, Debug, Serialize)]
pub struct Target {
    /// People connected at once.
    #[arg(long, default_value_t = 10_000_000.0)]
    pub online_users: f64,
    /// People who have friends on line at all: each is watched.
    #[arg(long, default_value_t = 100_000_000.0)]
    pub users: f64,
    /// Between two updates of one person, in seconds.
    #[arg(long, default_value_t = 30.0)]
    pub interval_s: f64,
    /// Friends of each.
    #[arg(long, default_value_t = 400.0)]
    pub friends: f64,
    /// Those of them connected.
    #[arg(long, default_value_t = 40.0)]
    pub online: f64,
    /// Those of them near: told of each update.
    #[arg(long, default_value_t = 4.0)]
    pub near: f64,
    /// How long a connection lasts, in seconds.
    #[arg(long, default_value_t = 588.0)]
    pub session_s: f64,
    /// At least between two writes to one viewer, in milliseconds; what comes meanwhile is written together.
    #[arg(long, default_value_t = 0.0)]
    pub push_interval_ms: f64,
    /// Friendships ended, in a second.
    #[arg(long, default_value_t = 100.0)]
    pub removals_per_s: f64,
    /// Until positions that are not sent again are gone, in seconds.
    #[arg(long, default_value_t = 600.0)]
    pub ttl_s: f64,
    /// For how long history is kept, in days.
    #[arg(long, default_value_t = 30.0)]
    pub retention_days: f64,
    /// Copies of the history.
    #[arg(long, default_value_t = 3.0)]
    pub replicas: f64,
    /// Gateways; as few as carry the load, if not given.
    #[arg(long)]
    pub gateways: Option<f64>,
    /// Cores of a gateway and of a history node.
    #[arg(long, default_value_t = 16.0)]
    pub cores: f64,
    /// Memory of every node, in GiB; half of it is planned with.
    #[arg(long, default_value_t = 64.0)]
    pub memory_gib: f64,
    /// The share of a core's time that is planned with; the rest is for peaks, and for the nodes that are missing.
    #[arg(long, default_value_t = 0.5)]
    pub busy: f64,
    /// What is sent has to be delivered again so soon after a pub/sub node died, in seconds.
    #[arg(long, default_value_t = 5.0)]
    pub recovery_s: f64,
}

/// What to plan from, and for.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// The target.
    #[command(flatten)]
    pub target: Target,
    /// What things cost; the figures that come with the program, if not given (`--show-inputs` shows them).
    #[arg(long, value_name = "FILE")]
    pub inputs: Option<PathBuf>,
    /// The JSON of `engine`, in place of the engine's part of the inputs.
    #[arg(long, value_name = "FILE")]
    pub engine: Option<PathBuf>,
    /// The JSON of two runs of `saturate` against an embedded server: one with `--near-share 0`, one with more. What an
    /// update and a write cost is taken from them.
    #[arg(long, value_name = "FILE", num_args = 2)]
    pub saturate: Vec<PathBuf>,
    /// Show the inputs, and where they are from, beside the plan.
    #[arg(long)]
    pub show_inputs: bool,
    /// Also write the plan as JSON; `-` is stdout, in place of the table.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

impl Target {
    /// Positions sent, in a second.
    pub fn updates_per_s(&self) -> f64 {
        self.online_users / self.interval_s
    }

    /// Connections opened, in a second; as many end.
    pub fn connects_per_s(&self) -> f64 {
        self.online_users / self.session_s
    }

    /// Gateways, of so many, on which at least one of so many people is, each anywhere.
    pub fn reached(gateways: f64, people: f64) -> f64 {
        gateways * (1.0 - (1.0 - 1.0 / gateways).powf(people))
    }

    /// Writes to sockets, in a second: each is followed by the push interval in which what comes is kept.
    pub fn writes_per_s(&self) -> f64 {
        let told_of_one = self.near / self.interval_s;
        self.online_users * told_of_one / (1.0 + told_of_one * self.push_interval_ms / 1_000.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_publication_reaches_the_gateways_of_its_watchers() {
        assert_eq!(Target::reached(1.0, 40.0), 1.0);
        assert!((Target::reached(2.0, 1.0) - 1.0).abs() < 1e-12);
        assert!((Target::reached(2.0, 2.0) - 1.5).abs() < 1e-12, "both on one in half of the cases");
        // Many gateways: nearly one for each watcher, never more.
        let many = Target::reached(10_000.0, 40.0);
        assert!(many < 40.0 && many > 39.9, "{many}");
    }
}
