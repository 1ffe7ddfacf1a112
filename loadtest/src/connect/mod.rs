//! `connect`: what connecting costs, how long it takes, and what a storm of reconnects does to those who stay.
//!
//! Everybody connects, so many handshakes at once. Then the storms: the connections of all but those who stay are cut
//! in one instant, and all of them come back, at once or each after a wait of their own. Who is refused comes again
//! when the server said, and a random part later. Those who stay send and receive all the while: how old their
//! positions are is compared with before.

mod arrivals;
mod findings;
mod stage;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::Args;

use crate::process;
use crate::replay::note;
use crate::saturate::{Cores, Everybody, Target, TargetOptions, set_up};
use crate::scene::{Scene, SceneOptions};
use stage::Play;

pub use findings::{Ages, Findings, Wave};

/// Who connects, and how they come back.
#[derive(Args, Debug, Clone)]
pub struct Options {
    /// Where.
    #[command(flatten)]
    pub target: TargetOptions,
    /// Who.
    #[command(flatten)]
    pub scene: SceneOptions,
    /// Reconnect storms; each given number is the seconds over which people come back: `0,5` is a storm without and one
    /// with jitter.
    #[arg(long, value_delimiter = ',', default_value = "0,5", value_name = "SECONDS")]
    pub storms: Vec<f64>,
    /// The share of all connections that stays through the storms.
    #[arg(long, default_value_t = 0.5)]
    pub stay_share: f64,
    /// Positions that those who stay send in a second, together.
    #[arg(long, default_value_t = 50.0)]
    pub rate: f64,
    /// Seconds of quiet before each storm, in which the ages are taken that it is compared with.
    #[arg(long, default_value_t = 5.0)]
    pub quiet: f64,
    /// Also write the findings as JSON; `-` is stdout, in place of the table.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// Connects everybody, plays the storms, reports.
pub fn run(options: &Options) -> Result<Findings> {
    ensure!((0.0..1.0).contains(&options.stay_share), "--stay-share: from 0, below 1");
    ensure!(options.rate > 0.0 && options.rate.is_finite(), "--rate must be above 0");
    ensure!(options.storms.iter().all(|seconds| (0.0..=600.0).contains(seconds)), "--storms: from 0 to 600 s each");
    let scene = Scene::new(&options.scene)?;
    process::allow_sockets(scene.online.len())?;
    let ours = &options.target;
    let target = match &ours.server {
        Some(executable) => {
            let cores = Cores::of(ours)?;
            let target = Target::server(executable, cores, &ours.access)?;
            cores.pin_generator()?;
            target
        }
        None => Target::running(ours)?,
    };
    if !ours.access.skip_setup {
        set_up(&target, &scene, ours.access.user_base, ours.access.at_once.into())?;
    }
    let way = Everybody::new(&target, &scene, ours.access.user_base);
    let mut play = Play::new(options, &target.roles, &scene, &way)?;
    let first = play.everybody_connects(ours.access.at_once.into())?;
    note(&format!("{} connected, {:.0}/s", first.connections, first.per_s));
    let mut storms = Vec::new();
    for &seconds in &options.storms {
        let storm = play.storm(Duration::from_secs_f64(seconds), Duration::from_secs_f64(options.quiet))?;
        note(&format!("a storm over {seconds} s: all back after {:.2} s", storm.all_s));
        storms.push(storm);
    }
    Ok(Findings { connections: scene.online.len(), first, storms })
}
