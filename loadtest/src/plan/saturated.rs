//! What the runs of `saturate` say about an update and a write.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use super::inputs::{Inputs, Origin};

/// The JSON of one run against an embedded server, as far as it is needed.
#[derive(Clone, Debug, Deserialize)]
pub struct Saturated {
    connections: u32,
    friends_online: f64,
    rounds: Vec<Round>,
}

#[derive(Clone, Debug, Deserialize)]
struct Round {
    server: Option<Side>,
}

#[derive(Clone, Debug, Deserialize)]
struct Side {
    traffic: Traffic,
    roles: Vec<Role>,
}

#[derive(Clone, Debug, Deserialize)]
struct Traffic {
    updates: f64,
    friend: f64,
    reads: f64,
}

#[derive(Clone, Debug, Deserialize)]
struct Role {
    cpu_s: f64,
}

/// The same for one update.
#[derive(Clone, Copy, Debug)]
pub struct PerUpdate {
    /// Friends whose distance is compared.
    pub checks: f64,
    /// Friends told.
    pub told: f64,
    /// Writes; counted by the reads of the clients, of which each may find several.
    pub writes: f64,
    /// CPU of the server.
    pub us: f64,
}

impl Saturated {
    /// From the file that `saturate --json` wrote.
    pub fn read(path: &Path) -> Result<Saturated> {
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        serde_json::from_str(&text).with_context(|| format!("{} is not the JSON of `saturate`", path.display()))
    }

    /// Connections, which were all in the shards of one server.
    pub fn connections(&self) -> f64 {
        self.connections.into()
    }

    /// Over all rounds.
    pub fn per_update(&self) -> Result<PerUpdate> {
        let sides = || self.rounds.iter().filter_map(|round| round.server.as_ref());
        let sum = |what: fn(&Side) -> f64| sides().map(what).sum::<f64>();
        let updates = sum(|side| side.traffic.updates);
        ensure!(updates > 0.0, "no server was measured in this run of `saturate`");
        Ok(PerUpdate {
            checks: self.friends_online,
            told: sum(|side| side.traffic.friend) / updates,
            writes: sum(|side| side.traffic.reads) / updates,
            us: sum(|side| side.roles.iter().map(|role| role.cpu_s).sum()) * 1e6 / updates,
        })
    }
}

impl Inputs {
    /// Takes the costs of an update and of a write from two runs: one in which nobody is told, one in which many are.
    pub fn learn(&mut self, nobody_told: &Saturated, many_told: &Saturated, how: &str) -> Result<()> {
        let (none, many) = (nobody_told.per_update()?, many_told.per_update()?);
        ensure!(none.told < 0.01 && many.writes > 1.0, "nobody may be told in the first run, and many in the second");
        self.update_us.value = 0.0;
        self.write_us.value = 0.0;
        self.update_us.value = none.us - self.server_us(&none, nobody_told.connections())?;
        self.write_us.value = (many.us - self.server_us(&many, many_told.connections())?) / many.writes;
        for input in [&mut self.update_us, &mut self.write_us] {
            input.origin = Origin::Measured;
            how.clone_into(&mut input.how);
        }
        Ok(())
    }

    /// CPU of an embedded server with so many connections for one update and what follows from it.
    pub fn server_us(&self, update: &PerUpdate, connections: f64) -> Result<f64> {
        let costs = self.engine_at(connections).context("the engine's costs are missing")?;
        let shard = costs.ns_per_heard + update.checks * costs.ns_per_check + update.told * costs.ns_per_told;
        Ok(self.update_us.value + shard / 1e3 + update.writes * self.write_us.value)
    }
}
