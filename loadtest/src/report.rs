//! What a run found, as a table and as JSON.

use std::fmt::{self, Write as _};
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::faults::{Class, Fault, ms};
use crate::oracle::Oracle;
use crate::process::Used;
use crate::tally::{Frames, Spread, Tally};

/// What was asked for.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Setting {
    /// People with a track.
    pub people: usize,
    /// Friendships among them at the start.
    pub friendships: usize,
    /// Recorded seconds to one real second.
    pub speedup: f64,
    /// The seed of churn.
    pub seed: u64,
    /// Whether there was churn.
    pub churn: bool,
    /// From the first move until the last.
    pub wall_s: f64,
}

/// What a process used meanwhile.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Cost {
    /// CPU seconds of all its threads.
    pub cpu_s: f64,
    /// Of one core.
    pub cpu_percent: f64,
    /// The same for each update sent.
    pub us_per_update: f64,
    /// The same for each `friend` and `gone` frame received; what an update costs by itself is in it.
    pub us_per_push: f64,
    /// Resident memory before anybody was connected.
    pub rss_before_bytes: u64,
    /// And at the end.
    pub rss_after_bytes: u64,
}

/// What the processes of one role used meanwhile, together.
#[derive(Clone, Debug, Serialize)]
pub struct RoleCost {
    /// Which.
    pub role: String,
    /// What.
    #[serde(flatten)]
    pub cost: Cost,
}

impl Cost {
    /// For so many updates and pushes in this time. CPU is counted from `moving` on, memory from `before` on.
    pub fn between(before: Used, moving: Used, after: Used, wall: Duration, updates: u64, pushes: u64) -> Cost {
        let cpu_s = after.cpu.saturating_sub(moving.cpu).as_secs_f64();
        let per = |count: u64| rounded(cpu_s * 1e6 / count.max(1) as f64);
        Cost {
            cpu_s: rounded(cpu_s),
            cpu_percent: rounded(100.0 * cpu_s / wall.as_secs_f64().max(0.001)),
            us_per_update: per(updates),
            us_per_push: per(pushes),
            rss_before_bytes: before.rss_bytes,
            rss_after_bytes: after.rss_bytes,
        }
    }
}

/// One kind of fault.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Found {
    /// What it counts as.
    pub class: Class,
    /// Its name.
    pub fault: Fault,
    /// How often.
    pub count: u64,
}

/// Everything.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// What was asked for.
    pub setting: Setting,
    /// Positions sent.
    pub updates: u64,
    /// In a second, while everybody moved.
    pub updates_per_s: f64,
    /// Received.
    pub frames: Frames,
    /// From the sender's socket to the viewer's.
    pub age_ms: Spread,
    /// Frames with wrong content.
    pub wrong: u64,
    /// Frames that must not have been sent.
    pub extra: u64,
    /// What was not right at the end.
    pub missing: u64,
    /// What was not right for too long on the way.
    pub late: u64,
    /// `friend` frames that told nothing new.
    pub duplicates: u64,
    /// `gone` frames about friends not shown.
    pub needless_gone: u64,
    /// Connections opened again.
    pub reconnects: u64,
    /// Begun and ended while people moved.
    pub friendship_changes: u64,
    /// Until the end of a friendship was acknowledged.
    pub removal_ms: Spread,
    /// How late the generator itself was.
    pub lateness_ms: Spread,
    /// How long positions were taken to be perhaps unknown to the server: more than asked for if it was late.
    pub in_flight_ms: f64,
    /// `error` frames that said `rate_limited`.
    pub rate_limited: u64,
    /// Each kind of fault.
    pub faults: Vec<Found>,
    /// The first few.
    pub examples: Vec<String>,
    /// What each role of the server used, of those that are known.
    pub servers: Vec<RoleCost>,
    /// What this process used.
    pub generator: Cost,
}

impl Report {
    /// Sums up; the frames and updates of the gathering are in the counts, not in `updates_per_s`.
    pub fn new(
        setting: Setting,
        tally: &Tally,
        moved: u64,
        oracle: &Oracle,
        servers: Vec<RoleCost>,
        generator: Cost,
    ) -> Report {
        let faults = &oracle.faults;
        Report {
            setting,
            updates: tally.updates,
            updates_per_s: rounded(moved as f64 / setting.wall_s.max(0.001)),
            frames: tally.frames,
            age_ms: tally.ages.spread(),
            wrong: faults.of(Class::Wrong),
            extra: faults.of(Class::Extra),
            missing: faults.of(Class::Missing),
            late: faults.of(Class::Late),
            duplicates: tally.duplicates,
            needless_gone: tally.needless_gone,
            reconnects: tally.reconnects,
            friendship_changes: tally.friendship_changes,
            removal_ms: tally.removals.spread(),
            lateness_ms: tally.lateness.spread(),
            in_flight_ms: ms(oracle.longest_in_flight()),
            rate_limited: tally.rate_limited,
            faults: faults.by_kind().into_iter().map(|(class, fault, count)| Found { class, fault, count }).collect(),
            examples: faults.examples().to_vec(),
            servers,
            generator,
        }
    }

    /// Whether no promise was broken.
    pub fn is_clean(&self) -> bool {
        self.wrong + self.extra + self.missing + self.late == 0
    }

    fn costs(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let servers = self.servers.iter().map(|server| (server.role.as_str(), server.cost));
        for (name, cost) in servers.chain([("generator", self.generator)]) {
            row(f, &format!("{name} CPU"), format!("{} s, {} % of a core", cost.cpu_s, cost.cpu_percent))?;
            row(f, "", format!("{} us/update, {} us/push", cost.us_per_update, cost.us_per_push))?;
            row(f, &format!("{name} memory"), megabytes(cost.rss_before_bytes, cost.rss_after_bytes))?;
        }
        if self.servers.len() > 1 {
            let all = |part: fn(&Cost) -> f64| rounded(self.servers.iter().map(|server| part(&server.cost)).sum());
            let (cpu_s, per_update) = (all(|cost| cost.cpu_s), all(|cost| cost.us_per_update));
            row(f, "all servers' CPU", format!("{cpu_s} s, {per_update} us/update"))?;
        }
        Ok(())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (setting, frames) = (&self.setting, &self.frames);
        row(f, "people", setting.people)?;
        row(f, "friendships", setting.friendships)?;
        row(f, "moving for", format!("{:.1} s, {} x the recording", setting.wall_s, setting.speedup))?;
        row(f, "updates sent", self.updates)?;
        row(f, "updates/s", self.updates_per_s)?;
        row(f, "frames: friend", frames.friend)?;
        row(f, "        gone", frames.gone)?;
        row(f, "        nearby", frames.nearby)?;
        row(f, "        added, removed", format!("{}, {}", frames.friend_added, frames.friend_removed))?;
        row(f, "        error, drain", format!("{}, {}", frames.error, frames.drain))?;
        row(f, "age of moves", spread(&self.age_ms))?;
        row(f, "sent later than due", spread(&self.lateness_ms))?;
        row(f, "judged as in flight", format!("up to {} ms", self.in_flight_ms))?;
        row(f, "duplicates", self.duplicates)?;
        row(f, "needless gone", self.needless_gone)?;
        row(f, "reconnects", self.reconnects)?;
        row(f, "friendship changes", self.friendship_changes)?;
        if self.removal_ms.count > 0 {
            row(f, "removal acknowledged", spread(&self.removal_ms))?;
        }
        self.costs(f)?;
        row(f, "wrong", self.wrong)?;
        row(f, "extra", self.extra)?;
        row(f, "missing", self.missing)?;
        row(f, "late", self.late)?;
        for found in &self.faults {
            writeln!(f, "    {:>8} x {:?} {:?}", found.count, found.class, found.fault)?;
        }
        if !self.examples.is_empty() {
            writeln!(f, "the first of them:")?;
        }
        for example in &self.examples {
            writeln!(f, "    {example}")?;
        }
        if self.rate_limited > 0 {
            writeln!(f, "{RATE_ADVICE}")?;
        }
        Ok(())
    }
}

const RATE_ADVICE: &str = "The server dropped updates as too frequent: raise `limits.updates_per_second` and \
    `limits.update_burst` (NEARBY_LIMITS__UPDATES_PER_SECOND, NEARBY_LIMITS__UPDATE_BURST), or lower --speedup.";

/// One line of a table.
pub(crate) fn row(out: &mut impl fmt::Write, name: &str, value: impl fmt::Display) -> fmt::Result {
    writeln!(out, "{name:<24} {value}")
}

/// Memory before and after.
pub(crate) fn megabytes(before: u64, after: u64) -> String {
    let mut text = String::new();
    let _ = write!(text, "{:.1} -> {:.1} MiB", before as f64 / 1_048_576.0, after as f64 / 1_048_576.0);
    text
}

/// To three digits after the point: what is measured here is no more exact.
pub(crate) fn rounded(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

fn spread(spread: &Spread) -> String {
    format!("p50 {:.1}, p99 {:.1}, max {:.1} ms ({})", spread.p50, spread.p99, spread.max, spread.count)
}

/// Shows a report: JSON to the file wanted (`-` is stdout), and the table to stdout unless JSON goes there.
pub fn publish(table: &impl fmt::Display, json: &impl Serialize, to: Option<&Path>) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    let text = serde_json::to_string_pretty(json)?;
    match to {
        Some(path) if path == Path::new("-") => writeln!(stdout, "{text}")?,
        Some(path) => {
            fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
            write!(stdout, "{table}")?;
        }
        None => write!(stdout, "{table}")?,
    }
    Ok(())
}
