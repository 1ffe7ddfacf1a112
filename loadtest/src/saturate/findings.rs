//! What a run found, as a table and as JSON.

use std::fmt;

use serde::Serialize;

use super::Options;
use super::bus::Bus;
use super::costs::Spent;
use super::measure::{Measured, Memory, Quantiles};
use crate::floor::Flush;
use crate::report::{rounded, row};
use crate::scene::Scene;

/// The generator's share of a core above which it is not to be trusted.
const BUSY_PERCENT: f64 = 90.0;

/// What was measured by turns.
#[derive(Clone, Debug, Serialize)]
pub struct Round {
    /// The floor, if it was asked for.
    pub floor: Option<Measured>,
    /// The server.
    pub server: Measured,
    /// The server's CPU per update, in the floor's.
    pub ratio: Option<f64>,
}

/// The server against the floor.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// How the floor wrote.
    pub flush: Flush,
    /// CPU per update of the server, in the floor's: the middle one of the rounds.
    pub ratio: f64,
    /// The lowest.
    pub lowest: f64,
    /// The highest.
    pub highest: f64,
}

/// Everything.
#[derive(Clone, Debug, Serialize)]
pub struct Findings {
    /// Connections.
    pub connections: usize,
    /// Friends of each who are connected, on average.
    pub friends_online: f64,
    /// And near: who is told of each position.
    pub friends_near: f64,
    /// Positions in a second, in an open loop.
    pub rate: Option<f64>,
    /// Positions under way, in a closed one.
    pub outstanding: Option<u32>,
    /// One, or with the floor as many as asked for.
    pub rounds: Vec<Round>,
    /// The server against the floor.
    pub comparison: Option<Comparison>,
}

impl Round {
    pub(crate) fn new(floor: Option<Measured>, server: Measured) -> Round {
        let cost = floor.as_ref().map(Measured::us_per_update).filter(|&cost| cost > 0.0);
        Round { ratio: cost.map(|cost| rounded(server.us_per_update() / cost)), floor, server }
    }
}

impl Findings {
    pub(super) fn new(options: &Options, scene: &Scene, rounds: Vec<Round>) -> Findings {
        let (friends_online, friends_near) = scene.friends_online_and_near();
        let comparison = Comparison::of(options.flush(), rounds.iter().filter_map(|round| round.ratio).collect());
        Findings {
            connections: scene.online.len(),
            friends_online,
            friends_near,
            rate: options.load.rate,
            outstanding: options.load.outstanding,
            rounds,
            comparison,
        }
    }

    /// Whether the run says anything: nobody was thrown out, and what was sent was answered.
    pub fn is_sound(&self) -> bool {
        let targets = self.rounds.iter().flat_map(|round| round.floor.iter().chain([&round.server]));
        // What is published for others is published to who is under test.
        let is_heard = |found: &Measured| found.bus.is_none_or(|bus| bus.messages > 0 && bus.received >= bus.messages);
        let is_well = |found: &Measured| found.lost == 0 && found.traffic.error == 0 && found.traffic.updates > 0;
        targets.into_iter().all(|found| is_well(found) && is_heard(found))
    }
}

impl Comparison {
    fn of(flush: Flush, mut ratios: Vec<f64>) -> Option<Comparison> {
        ratios.sort_by(f64::total_cmp);
        let (lowest, highest) = (*ratios.first()?, *ratios.last()?);
        let middle = (ratios[(ratios.len() - 1) / 2] + ratios[ratios.len() / 2]) / 2.0;
        Some(Comparison { flush, ratio: rounded(middle), lowest, highest })
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        row(f, "connections", self.connections)?;
        row(f, "friends of each", format!("{:.1} connected, {:.1} near", self.friends_online, self.friends_near))?;
        match (self.rate, self.outstanding) {
            (Some(rate), _) => row(f, "load", format!("{rate} updates/s, open loop"))?,
            (None, Some(most)) => row(f, "load", format!("{most} updates under way, closed loop"))?,
            (None, None) => {}
        }
        for (number, round) in (1..).zip(&self.rounds) {
            for found in round.floor.iter().chain([&round.server]) {
                writeln!(
                    f,
                    "-- {} {}",
                    found.target,
                    if self.rounds.len() > 1 { format!("{number}") } else { String::new() }
                )?;
                found.fmt(f)?;
            }
            if let Some(ratio) = round.ratio {
                row(f, "server / floor", ratio)?;
            }
        }
        if let Some(Comparison { flush, ratio, lowest, highest }) = self.comparison {
            let floor = match flush {
                Flush::Push => "F0, one write per push",
                Flush::Turn => "F1, one write per connection and turn",
            };
            writeln!(f, "--")?;
            row(f, "floor", floor)?;
            row(
                f,
                "server / floor",
                format!("{ratio} x per update ({lowest} to {highest}, {} rounds)", self.rounds.len()),
            )?;
        }
        Ok(())
    }
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let traffic = &self.traffic;
        row(f, "updates", format!("{} in {} s, {:.0}/s", traffic.updates, self.window_s, self.updates_per_s))?;
        row(f, "pushes", format!("{}, {:.0}/s", traffic.pushes(), self.pushes_per_s))?;
        row(f, "  of those expected", self.pushes_of_expected)?;
        if let Some(pushes) = self.pushes_per_read {
            row(f, "  per read", format!("{pushes:.2} (at least as many as per write)"))?;
        }
        row(f, "bytes in, out", format!("{}, {}", traffic.bytes_in, traffic.bytes_out))?;
        row(f, "age", self.age_ms)?;
        row(f, "  sent later than due", self.lateness_ms)?;
        if let Some(bus) = self.bus {
            let Bus { messages, received, messages_per_s, messages_per_update, messages_per_pipeline } = bus;
            row(f, "bus messages in", format!("{messages} to {received} subscribers, {messages_per_s:.0}/s"))?;
            row(f, "  per update", format!("{messages_per_update:.1}"))?;
            row(f, "  per pipeline", format!("{messages_per_pipeline:.1}"))?;
        }
        for role in &self.roles {
            row(f, &format!("{} CPU", role.role), format!("{} s, {:.0} % of a core", role.cpu_s, role.cpu_percent))?;
            row(f, "  per update", format!("{:.1} us", role.us_per_update))?;
            if let Some(cost) = role.us_per_push {
                row(f, "  per push", format!("{cost:.2} us"))?;
            }
        }
        for Spent { role, cpu_percent, us_per_update, .. } in &self.beside {
            row(
                f,
                &format!("beside: {role}"),
                format!("{us_per_update:.1} us per update, {cpu_percent:.0} % of a core"),
            )?;
        }
        if let Some(memory) = self.memory_per_connection {
            row(f, "memory per connection", memory)?;
        }
        row(f, "generator CPU", format!("{:.0} % of a core", self.generator_percent))?;
        for (what, count) in
            [("errors", traffic.error), ("connections lost", self.lost), ("unanswered", self.unanswered)]
        {
            if count > 0 {
                row(f, what, count)?;
            }
        }
        if self.generator_percent > BUSY_PERCENT {
            writeln!(f, "The generator was busy all the time: it may be what is measured.")?;
        }
        Ok(())
    }
}

impl fmt::Display for Quantiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Quantiles { count, p50, p99, p999, max, .. } = self;
        write!(f, "p50 {p50:.2}, p99 {p99:.2}, p99.9 {p999:.2}, max {max:.2} ms ({count})")
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kib = |bytes: f64| format!("{:.1} KiB", bytes / 1024.0);
        let kernel = self.kernel_bytes.map_or("unknown (not root)".into(), kib);
        write!(f, "{} user, {kernel} kernel, both ends", kib(self.user_bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comparison_is_the_middle_and_both_ends() {
        let of = |ratios: &[f64]| Comparison::of(Flush::Push, ratios.to_vec());
        assert_eq!(of(&[]), None);
        let found = of(&[2.0, 1.0, 9.0]).unwrap();
        assert_eq!((found.ratio, found.lowest, found.highest), (2.0, 1.0, 9.0));
        assert_eq!(of(&[2.0, 1.0]).unwrap().ratio, 1.5);
    }
}
