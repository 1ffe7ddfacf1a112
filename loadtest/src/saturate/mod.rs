//! `saturate`: what an update and a push cost the server, how old positions are when they arrive, and how much of that
//! cannot be avoided.
//!
//! Positions are sent in an open loop, at moments fixed beforehand, or in a closed one with so many under way. With
//! `--floor` the same load goes to the floor and to the server by turns; the ratio of their costs carries from one
//! machine to another, microseconds do not.

mod bus;
mod costs;
mod findings;
mod generator;
mod measure;
mod pace;
mod target;
mod way;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;

use crate::access::Access;
use crate::clock::At;
use crate::floor::Flush;
use crate::process;
use crate::replay::note;
use crate::scene::{Scene, SceneOptions};
pub(crate) use costs::kernel_socket_bytes;
use generator::{Pace, Window};
use measure::{Setting, measure};
pub(crate) use pace::Schedule;
pub(crate) use target::{Cores, Target};
pub(crate) use way::{Everybody, set_up};

pub use bus::Bus;
pub use costs::Spent;
pub use findings::{Comparison, Findings, Round};
pub use measure::{Measured, Memory, Quantiles};
pub use target::TargetOptions;

/// What is sent, and for how long.
#[derive(Args, Debug, Clone)]
pub struct LoadOptions {
    /// Positions in a second, of all people together, at moments fixed beforehand (open loop).
    #[arg(long, value_name = "PER_SECOND", required_unless_present = "outstanding", conflicts_with = "outstanding")]
    pub rate: Option<f64>,
    /// As fast as it goes, with so many positions whose pushes have not all come (closed loop).
    #[arg(long, value_name = "COUNT")]
    pub outstanding: Option<u32>,
    /// All friends are connected to other gateways, which are not there: for each update, so many bus messages of theirs
    /// are published for them, on the one pub/sub server of a fleet (--fleet, or --pubsub). Checks and pushes for an
    /// update stay those of friends who are all here.
    #[arg(long, value_name = "PER_UPDATE", requires = "rate")]
    pub published_for: Option<u32>,
    /// Where these messages go: the pub/sub server that everybody under test subscribes to.
    #[arg(long, value_name = "HOST:PORT", requires = "published_for")]
    pub pubsub: Option<String>,
    /// What becomes due of them within so many microseconds is published in one pipeline.
    #[arg(long, value_name = "US", default_value_t = 200, requires = "published_for")]
    pub publish_every_us: u64,
    /// Seconds of load before anything is counted.
    #[arg(long, default_value_t = 2.0)]
    pub warm_up: f64,
    /// Seconds that count.
    #[arg(long, default_value_t = 10.0)]
    pub window: f64,
    /// Threads of the generator; more than one only with --rate.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..))]
    pub threads: u8,
}

/// What to measure.
#[derive(Args, Debug, Clone)]
pub struct Options {
    /// Where.
    #[command(flatten)]
    pub target: TargetOptions,
    /// Who.
    #[command(flatten)]
    pub scene: SceneOptions,
    /// How much.
    #[command(flatten)]
    pub load: LoadOptions,
    /// Measure the floor too, by turns with the server, and tell the ratio of their CPU per update.
    #[arg(long)]
    pub floor: bool,
    /// When the floor's pushes go out; without it, one by one with --rate, and together with --outstanding.
    #[arg(long, value_enum, requires = "floor")]
    pub flush: Option<Flush>,
    /// Turns, with --floor.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    pub rounds: u16,
    /// The executable whose `floor` command is the floor; without it, this one.
    #[arg(long, value_name = "PATH", hide = true)]
    pub floor_executable: Option<PathBuf>,
    /// Also write the findings as JSON; `-` is stdout, in place of the table.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

impl LoadOptions {
    fn pace(&self) -> Result<Pace> {
        match (self.rate, self.outstanding) {
            (Some(rate), None) => {
                ensure!(rate > 0.0 && rate.is_finite(), "--rate must be above 0");
                Ok(Pace::Every(rate))
            }
            (None, Some(most)) => {
                ensure!(most > 0, "--outstanding must be above 0");
                ensure!(self.threads == 1, "a closed loop is one thread's: --threads 1");
                Ok(Pace::Outstanding(most))
            }
            _ => bail!("give --rate or --outstanding"),
        }
    }

    /// Where bus messages go, and how many in a second, if people are elsewhere.
    fn bus(&self, target: &Target, scene: &Scene) -> Result<Option<(String, f64)>> {
        let (Some(per_update), Some(rate), false) = (self.published_for, self.rate, scene.elsewhere.is_empty()) else {
            return Ok(None);
        };
        let address = match (&self.pubsub, &target.pubsub[..]) {
            (Some(address), _) => address.clone(),
            (None, [only]) => only.clone(),
            (None, []) => bail!("--published-for needs a pub/sub server: --fleet or --pubsub"),
            (None, several) => bail!("--published-for: {} pub/sub servers (./fleet --pubsub 1)", several.len()),
        };
        Ok(Some((address, rate * f64::from(per_update))))
    }

    fn window(&self, start: At) -> Window {
        let begin = start.after(Duration::from_secs_f64(self.warm_up));
        Window { start, begin, end: begin.after(Duration::from_secs_f64(self.window)) }
    }
}

/// Measures, once or by turns.
pub fn run(options: &Options) -> Result<Findings> {
    ensure!(options.load.warm_up >= 0.0 && options.load.window > 0.0, "--warm-up from 0, --window above 0");
    options.load.pace()?;
    let scene = Scene::new(&options.scene)?;
    let served = match options.load.published_for {
        Some(per_update) => &Scene::among_gateways(&options.scene, per_update)?,
        None => &scene,
    };
    process::allow_sockets(scene.online.len())?;
    let ours = &options.target;
    let cores = if ours.server.is_some() || options.floor { Some(Cores::of(ours)?) } else { None };
    let server = match (&ours.server, cores) {
        (Some(executable), Some(cores)) => Target::server(executable, cores, &ours.access)?,
        _ => Target::running(ours)?,
    };
    let Access { user_base, at_once, skip_setup, .. } = ours.access;
    if !skip_setup {
        set_up(&server, served, user_base, at_once.into())?;
    }
    let mut rounds = Vec::new();
    let setting = Setting { load: &options.load, user_base, at_once, cores };
    let count = if options.floor { options.rounds } else { 1 };
    for round in 0..count {
        let floor =
            || options.floor.then(|| measure("floor", &floor_of(options, cores)?, &scene, &setting)).transpose();
        // Whatever drifts meanwhile, drifts for both: who is first changes.
        let (floor, found) = if round % 2 == 0 {
            let floor = floor()?;
            (floor, measure("server", &server, served, &setting)?)
        } else {
            let found = measure("server", &server, served, &setting)?;
            (floor()?, found)
        };
        rounds.push(Round::new(floor, found));
        if let Some(ratio) = rounds.last().and_then(|round| round.ratio) {
            note(&format!("round {} of {count}: {ratio} x the floor", round + 1));
        }
    }
    Ok(Findings::new(options, served, rounds))
}

fn floor_of(options: &Options, cores: Option<Cores>) -> Result<Target> {
    // Also there when the file has been replaced meanwhile.
    let this = Path::new("/proc/self/exe");
    let executable = options.floor_executable.as_deref().unwrap_or(this);
    let cores = cores.context("no cores")?;
    Target::floor(executable, &options.scene, options.target.access.user_base, options.flush(), cores)
}

impl Options {
    /// How the floor writes.
    fn flush(&self) -> Flush {
        self.flush.unwrap_or(if self.load.rate.is_some() { Flush::Push } else { Flush::Turn })
    }
}
