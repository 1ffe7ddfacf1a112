//! A plan as a table.

use std::fmt;

use serde_json::Value;

use super::capacity::{GatewayCores, Plan};
use super::inputs::{Inputs, Origin};
use crate::report::row;

/// The plan, and what it was made from.
pub(super) struct Shown<'a> {
    pub(super) plan: &'a Plan,
    pub(super) sources: Option<Sources<'a>>,
}

/// Every input with its origin.
pub(super) struct Sources<'a>(pub(super) &'a Inputs);

/// The book's estimate of the same case: ten million people on line, a tenth of 400 friends each on line.
const BOOK_UPDATES: f64 = 334_000.0;
/// Friend updates in a second, each pushed to a server that subscribed for one person.
const BOOK_DELIVERIES: f64 = 14_000_000.0;
/// That it allows a pub/sub server.
const BOOK_DELIVERIES_A_SERVER: f64 = 100_000.0;
/// Hence.
const BOOK_SERVERS: f64 = 140.0;

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        load(f, self.plan)?;
        gateways(f, self.plan)?;
        pubsub(f, self.plan)?;
        stores(f, self.plan)?;
        match &self.sources {
            Some(sources) => write!(f, "\n{sources}"),
            None => Ok(()),
        }
    }
}

fn load(f: &mut fmt::Formatter<'_>, plan: &Plan) -> fmt::Result {
    let load = &plan.load;
    writeln!(f, "in a second                       here         the book")?;
    let compared = |f: &mut fmt::Formatter<'_>, name, here: f64, book: Option<f64>| {
        let book = book.map(count).unwrap_or_else(|| "-".into());
        writeln!(f, "{name:<24} {:>14} {book:>14}", count(here))
    };
    compared(f, "updates", load.updates, Some(BOOK_UPDATES))?;
    compared(f, "bus deliveries", load.deliveries, Some(BOOK_DELIVERIES))?;
    compared(f, "distances compared", load.checks, Some(BOOK_DELIVERIES))?;
    compared(f, "friends told", load.told, None)?;
    compared(f, "writes to sockets", load.writes, None)?;
    compared(f, "connects", load.connects, None)?;
    compared(f, "channels subscribed to", load.subscribes, None)?;
    compared(f, "pub/sub nodes", plan.pubsub.nodes, Some(BOOK_SERVERS))?;
    let each = load.deliveries / plan.pubsub.nodes;
    compared(f, "deliveries of each", each, Some(BOOK_DELIVERIES_A_SERVER))?;
    writeln!(f, "an update reaches {:.1} of {} gateways", load.reached, count(load.gateways))
}

fn gateways(f: &mut fmt::Formatter<'_>, plan: &Plan) -> fmt::Result {
    let found = &plan.gateways;
    writeln!(f, "\ngateways: {}, of {} cores", count(found.nodes), plan.target.cores)?;
    let GatewayCores { updates, pump, bus, checks, pushes, connects, idle } = found.cores;
    let parts = [
        ("updates taken in", updates),
        ("cache, history, publish", pump),
        ("bus messages", bus),
        ("checks", checks),
        ("pushes", pushes),
        ("connects, subscriptions", connects),
        ("idle connections", idle),
    ];
    for (name, cores) in parts {
        let share = 100.0 * cores / found.cores.total();
        writeln!(f, "  {name:<24} {cores:>10.1} cores  {share:>5.1} %")?;
    }
    row(f, "  busy of each", format!("{:.1} cores, {:.1} GiB", found.cores_each, found.memory_gib_each))?;
    let (clients, bus) = (found.client_mbit_each, found.bus_mbit_each);
    row(f, "  on the line", format!("{clients:.0} Mbit/s with clients, {bus:.0} Mbit/s with pub/sub nodes"))?;
    let shard = count(plan.viewers_per_shard);
    let measured = count(plan.engine_measured_at.into());
    row(f, "  viewers of a shard", format!("{shard}, by the costs measured with {measured}"))
}

fn pubsub(f: &mut fmt::Formatter<'_>, plan: &Plan) -> fmt::Result {
    let (tier, recovery) = (&plan.pubsub, &plan.recovery);
    writeln!(f, "\npub/sub nodes: {}, bound by {}", count(tier.nodes), plan.pubsub_bound)?;
    row(f, "  busy of each", format!("{:.2} of one core, {:.1} GiB", tier.cores_each, tier.memory_gib_each))?;
    row(f, "  subscriptions of each", count(recovery.channels))?;
    row(
        f,
        "  when one dies",
        format!(
            "{:.1} s until all is delivered again, {:.1} s until all is subscribed again",
            recovery.live_s, recovery.all_s
        ),
    )?;
    row(
        f,
        "  of that",
        format!(
            "seen after {:.1} s; for all, pub/sub nodes take {:.1}, gateways {:.1}, caches {:.1}",
            recovery.detection_s, recovery.pubsub_s, recovery.gateway_s, recovery.cache_s
        ),
    )
}

fn stores(f: &mut fmt::Formatter<'_>, plan: &Plan) -> fmt::Result {
    let (cache, history) = (&plan.cache, &plan.history);
    writeln!(f, "\ncache nodes: {}, and as many standbys", count(cache.nodes))?;
    row(f, "  busy of each", format!("{:.2} of one core, {:.1} GiB", cache.cores_each, cache.memory_gib_each))?;
    writeln!(f, "history nodes: {}, of {} cores", count(history.nodes), plan.target.cores)?;
    let disk = plan.history_disk_tib_each;
    row(f, "  busy of each", format!("{:.1} cores, {disk:.1} TiB on disk", history.cores_each))?;
    writeln!(f, "etcd: {}, {} writes a second", count(plan.etcd_nodes), count(plan.etcd_writes_per_s))
}

impl fmt::Display for Sources<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "inputs")?;
        let Ok(Value::Object(all)) = serde_json::to_value(self.0) else { return Err(fmt::Error) };
        for (name, input) in &all {
            let Some(value) = input.get("value").and_then(Value::as_f64) else { continue };
            let word = |field: &str| input.get(field).and_then(Value::as_str).unwrap_or_default();
            writeln!(f, "  {name:<24} {value:>10} {:<9} {}", word("origin"), word("how"))?;
        }
        for costs in &self.0.engine {
            writeln!(
                f,
                "  engine, {:>9} viewers: {:.0} ns taken in, {:.0} heard, {:.1} a check, {:.0} a friend told",
                costs.viewers, costs.ns_per_taken, costs.ns_per_heard, costs.ns_per_check, costs.ns_per_told
            )?;
        }
        writeln!(f, "  engine: {:?}, {}", Origin::Measured, self.0.engine_how)
    }
}

/// Whole, with a mark at every third digit.
fn count(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_can_be_read() {
        assert_eq!([0.0, 999.0, 1_000.0, 14_000_000.0].map(count), ["0", "999", "1,000", "14,000,000"]);
    }
}
