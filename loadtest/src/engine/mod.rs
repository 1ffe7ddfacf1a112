//! `engine`: how many updates one core's shard carries, without sockets, and what each part of an update costs.
//!
//! The friend graph is made so that the answer is known: everybody has so many connected friends and exactly so many of
//! them near, so every update makes so many checks and tells so many friends. Four such cities of one size give the
//! costs of a check, of a friend told, and of the rest.

mod phases;
mod rows;
mod shard;
mod towns;

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use clap::Args;

pub use phases::NsPerUpdate;
pub use rows::{Costs, Findings, Row};
pub use towns::Shape;

use crate::report::publish;
use shard::{Done, Populated};
use towns::Towns;

/// The measured part is split into so many, of which the median counts.
const WINDOWS: u64 = 5;
/// Friends of whom one more or less is not seen in the whole.
const FEW: u32 = 2;

/// What to measure.
#[derive(Args, Debug, Clone)]
pub struct Options {
    /// Viewers in the shard; several sizes, separated by commas.
    #[arg(long, value_delimiter = ',', default_values_t = [10_000, 100_000, 1_000_000])]
    pub viewers: Vec<u32>,
    /// Connected friends of each: checked at every update of theirs.
    #[arg(long, default_value_t = 40)]
    pub friends: u32,
    /// Those of them who are near: told at every update.
    #[arg(long, default_value_t = 4)]
    pub near: u32,
    /// Friends of each who are not connected.
    #[arg(long, default_value_t = 0)]
    pub absent: u32,
    /// People who are not connected, for each who is.
    #[arg(long, default_value_t = 9)]
    pub absent_people: u32,
    /// Updates to measure for each row, after a fifth as many to warm up.
    #[arg(long, default_value_t = 500_000, value_parser = clap::value_parser!(u64).range(100..))]
    pub updates: u64,
    /// Positions that arrive together.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..))]
    pub batch: u32,
    /// Decides who is whose friend.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Measure this one city in this process and nothing else; several sizes and rows have a process each, so that no
    /// row finds the memory of the one before.
    #[arg(long)]
    pub single: bool,
    /// Take no time, only make the updates: for tools that count something else, such as valgrind, under which the clock
    /// of a thread cannot be read.
    #[arg(long, requires = "single")]
    pub no_clock: bool,
    /// Also write the findings as JSON; `-` is stdout, in place of the table.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

impl Options {
    fn shape(&self, people: u32) -> Shape {
        Shape { people, friends: self.friends, near: self.near, absent: self.absent, absent_people: self.absent_people }
    }
}

/// Measures, shows, and says whether every check and every frame was made that had to be.
pub fn run(options: &Options) -> Result<bool> {
    let mut rows = Vec::new();
    for &viewers in &options.viewers {
        if options.single {
            rows.push(measure(options.shape(viewers), options)?);
        } else {
            for shape in rows_of(options.shape(viewers)) {
                rows.push(in_a_process_of_its_own(shape, options)?);
            }
        }
    }
    let findings = Findings::of(rows);
    publish(&findings, &findings, options.json.as_deref())?;
    Ok(findings.is_exact())
}

/// What is asked for; all friends near; none of them; few friends and none of them near. Their differences are what a
/// check and a friend told cost.
pub fn rows_of(shape: Shape) -> [Shape; 4] {
    let Shape { friends, .. } = shape;
    [
        shape,
        Shape { near: friends, ..shape },
        Shape { near: 0, ..shape },
        Shape { near: 0, friends: FEW.min(friends), ..shape },
    ]
}

fn in_a_process_of_its_own(shape: Shape, options: &Options) -> Result<Row> {
    let argument = |name: &str, value: u64| [format!("--{name}"), value.to_string()];
    let child = Command::new(std::env::current_exe()?)
        .args(["engine", "--single", "--json", "-"])
        .args(argument("viewers", shape.people.into()))
        .args(argument("friends", shape.friends.into()))
        .args(argument("near", shape.near.into()))
        .args(argument("absent", shape.absent.into()))
        .args(argument("absent-people", shape.absent_people.into()))
        .args(argument("updates", options.updates))
        .args(argument("batch", options.batch.into()))
        .args(argument("seed", options.seed))
        .stderr(Stdio::inherit())
        .output()
        .context("cannot start the measuring process")?;
    let findings: Findings = serde_json::from_slice(&child.stdout).context("the measuring process failed")?;
    findings.rows.into_iter().next().context("the measuring process found nothing")
}

/// Measures one city in this process. Memory counts only what was not here before.
pub fn measure(shape: Shape, options: &Options) -> Result<Row> {
    let mut city = Populated::connect(Towns::settle(shape, options.seed)?, !options.no_clock)?;
    let batch = options.batch as usize;
    city.run(options.updates / 5, batch)?;
    let mut windows = Vec::new();
    for _ in 0..WINDOWS {
        windows.push(city.run(options.updates / WINDOWS, batch)?);
    }
    ensure!(windows.iter().all(|window| window.updates > 0), "nothing was measured");
    let total = |window: &Done| NsPerUpdate::of(window.cpu, window.updates).total();
    windows.sort_by(|one, other| total(one).total_cmp(&total(other)));
    let median = windows[windows.len() / 2];
    Ok(Row::of(city.shape(), options.batch, median, city.bytes))
}

fn per(count: u64, of: u64) -> f64 {
    count as f64 / of.max(1) as f64
}

impl Row {
    fn of(shape: Shape, batch: u32, done: Done, bytes: u64) -> Row {
        let ns = NsPerUpdate::of(done.cpu, done.updates);
        Row {
            viewers: shape.people,
            friends: shape.friends,
            near: shape.near,
            absent: shape.absent,
            absent_people: shape.absent_people,
            batch,
            updates: done.updates,
            checks_per_update: per(done.checks, done.updates),
            own_checks_per_update: per(done.own_checks, done.updates),
            told_per_update: per(done.told, done.updates),
            replaced_per_update: per(done.replaced, done.updates),
            updates_per_s_per_core: 1e9 / ns.total().max(1e-3),
            ns,
            bytes_per_viewer: per(bytes, shape.people.into()),
            bytes_per_frame: per(done.bytes, done.told),
        }
    }
}
