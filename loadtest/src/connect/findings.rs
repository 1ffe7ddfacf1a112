//! What a run found, as a table and as JSON.

use std::fmt;

use serde::Serialize;

use crate::report::row;
use crate::saturate::{Memory, Quantiles};

/// Many connections in a row.
#[derive(Clone, Debug, Serialize)]
pub struct Wave {
    /// How many.
    pub connections: u32,
    /// A storm: the seconds over which people came back by themselves.
    pub over_s: Option<f64>,
    /// From the first until all were connected, in seconds.
    pub all_s: f64,
    /// Connections in a second.
    pub per_s: f64,
    /// From the beginning of the attempt that succeeded until the list of friends had come.
    pub connect_ms: Quantiles,
    /// The part of it from `init` on.
    pub init_ms: Quantiles,
    /// A storm: from the cut until the list had come, with all waiting and refusals in between.
    pub back_ms: Quantiles,
    /// Attempts that were answered with another status than 101.
    pub refused: u64,
    /// Attempts that were closed.
    pub closed: u64,
    /// Attempts that broke.
    pub broken: u64,
    /// CPU of the servers for a connection, in microseconds; in a storm without what those who stay cost in the quiet
    /// before.
    pub us_per_connect: Option<f64>,
    /// What connections take; not in storms.
    pub memory_per_connection: Option<Memory>,
    /// A storm: how those fared who stayed.
    pub ages: Option<Ages>,
}

/// From the moment a position was to be sent until a viewer who stayed had it.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Ages {
    /// In the quiet before.
    pub quiet_ms: Quantiles,
    /// From the cut until all were back.
    pub storm_ms: Quantiles,
}

/// Everything.
#[derive(Clone, Debug, Serialize)]
pub struct Findings {
    /// Connections.
    pub connections: usize,
    /// All connect for the first time.
    pub first: Wave,
    /// In the order asked for.
    pub storms: Vec<Wave>,
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "-- everybody connects")?;
        self.first.fmt(f)?;
        for storm in &self.storms {
            writeln!(f, "-- storm over {} s", storm.over_s.unwrap_or_default())?;
            storm.fmt(f)?;
        }
        Ok(())
    }
}

impl fmt::Display for Wave {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        row(f, "connections", format!("{} in {} s, {:.0}/s", self.connections, self.all_s, self.per_s))?;
        row(f, "attempt to list", self.connect_ms)?;
        row(f, "  init to list", self.init_ms)?;
        if self.over_s.is_some() {
            row(f, "cut to list", self.back_ms)?;
        }
        row(f, "refused, closed, broken", format!("{}, {}, {}", self.refused, self.closed, self.broken))?;
        if let Some(cost) = self.us_per_connect {
            row(f, "server CPU per connection", format!("{cost:.0} us"))?;
        }
        if let Some(memory) = self.memory_per_connection {
            row(f, "memory per connection", memory)?;
        }
        if let Some(ages) = self.ages {
            row(f, "age, in the quiet before", ages.quiet_ms)?;
            row(f, "  in the storm", ages.storm_ms)?;
        }
        Ok(())
    }
}
