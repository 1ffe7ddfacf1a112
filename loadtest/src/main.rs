//! Puts a server under load and judges what it does.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use loadtest::{engine, idle, replay, report};
use tokio::runtime::Builder;
use tokio::task::LocalSet;

/// Exit codes: 0 all promises kept, 1 some broken, 2 the run could not be made.
const BROKEN: u8 = 1;
const NOT_RUN: u8 = 2;

/// Replays recorded movement against a running Nearby server and judges every frame.
#[derive(Parser)]
#[command(name = "loadtest", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// A recorded city: everybody connects, moves, and sees what they must and nothing else.
    Replay(replay::Options),
    /// Connections that do nothing: what they cost the server.
    Idle(idle::Options),
    /// One core's shard without sockets: what a check, a friend told and an update cost.
    Engine(engine::Options),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(arguments.command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(BROKEN),
        Err(error) => {
            eprintln!("loadtest: {error:#}");
            ExitCode::from(NOT_RUN)
        }
    }
}

/// One thread: the other core is the server's.
fn run(command: Command) -> Result<bool> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, async {
        match command {
            Command::Engine(options) => engine::run(&options),
            Command::Replay(options) => {
                let json = options.server.json.clone();
                let found = replay::run(options).await?;
                report::publish(&found, &found, json.as_deref())?;
                Ok(found.is_clean())
            }
            Command::Idle(options) => {
                let json = options.server.json.clone();
                let found = idle::run(options).await?;
                report::publish(&found, &found, json.as_deref())?;
                Ok(found.lost == 0)
            }
        }
    })
}
