//! The commands of the executable.

mod demo;
mod migrate;
mod ring;
mod serve;
mod show_config;
mod token;

use std::io::{IsTerminal, Write, stderr, stdout};
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use tracing_subscriber::EnvFilter;

use crate::config::{Config, Log, LogFormat, Overrides};

/// Shows people which of their friends are close by, live.
#[derive(Debug, Parser)]
#[command(name = "nearby", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server
    Serve(ConfigArgs),
    /// Run the server with a small city of people in it, and show one person's near friends
    Demo(demo::DemoArgs),
    /// Print a token for development, signed with the data directory's secret
    Token(token::TokenArgs),
    /// Bring the database of a cluster to the newest schema
    Migrate(ConfigArgs),
    /// Show or change the ring of pub/sub servers of a cluster
    Ring(ring::RingArgs),
    /// Print the effective configuration
    Config(ConfigArgs),
}

/// Where the configuration comes from.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct ConfigArgs {
    /// A TOML file; needs only what differs from the default (see `nearby config`)
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where to listen; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,
    /// Where users, friendships and history are kept
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

impl ConfigArgs {
    fn load(&self) -> anyhow::Result<Config> {
        let overrides = Overrides { listen: self.listen, data_dir: self.data_dir.clone() };
        Config::load(self.config.as_deref(), &overrides)
    }
}

/// Runs the command that the arguments name.
pub async fn run() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Serve(args) => serve::run(&args.load()?).await,
        Command::Demo(args) => demo::run(args).await,
        Command::Token(args) => token::run(&args),
        Command::Migrate(args) => migrate::run(&args.load()?).await,
        Command::Ring(args) => ring::run(&args).await,
        Command::Config(args) => show_config::run(&args.load()?),
    }
}

/// Log lines go to standard error: standard output is for what a command prints.
fn start_log(log: &Log) -> anyhow::Result<()> {
    // Drivers speak up about every server that they try again; what matters of it is said where it is handled. Named
    // in `log.level` they say what is asked for there.
    let level = format!("scylla=error,fred=error,{}", log.level);
    let filter = EnvFilter::builder().parse(level).context("log.level")?;
    // A log that goes to a file or a collector holds no colours.
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(stderr).with_ansi(stderr().is_terminal());
    match log.format {
        LogFormat::Text => lines.init(),
        LogFormat::Json => lines.json().init(),
    }
    Ok(())
}

/// What a command answers goes to standard output, and an output that cannot be written is an error like any other.
fn say(text: impl std::fmt::Display) -> anyhow::Result<()> {
    let mut out = stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).context("standard output")
}
