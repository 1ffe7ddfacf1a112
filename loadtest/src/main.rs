//! Puts a server under load and judges what it does.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use loadtest::{connect, engine, floor, idle, plan, replay, report, saturate};
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
    /// From what was measured to the nodes that a target needs.
    Plan(plan::Options),
    /// What an update and a push cost the server, and how much of that cannot be avoided.
    Saturate(saturate::Options),
    /// What connecting costs, and what a storm of reconnects does to those who stay.
    Connect(connect::Options),
    /// The least that a server could do for the same frames: what `saturate --floor` compares with.
    Floor(floor::Options),
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

fn run(command: Command) -> Result<bool> {
    match command {
        Command::Engine(options) => engine::run(&options),
        Command::Plan(options) => plan::run(&options),
        Command::Replay(options) => {
            let json = options.server.json.clone();
            let found = on_one_thread(replay::run(options))?;
            report::publish(&found, &found, json.as_deref())?;
            Ok(found.is_clean())
        }
        Command::Idle(options) => {
            let json = options.server.json.clone();
            let found = on_one_thread(idle::run(options))?;
            report::publish(&found, &found, json.as_deref())?;
            Ok(found.lost == 0)
        }
        Command::Saturate(options) => {
            let found = saturate::run(&options)?;
            report::publish(&found, &found, options.json.as_deref())?;
            Ok(found.is_sound())
        }
        Command::Connect(options) => {
            let found = connect::run(&options)?;
            report::publish(&found, &found, options.json.as_deref())?;
            Ok(true)
        }
        Command::Floor(options) => floor::run(&options).map(|()| true),
    }
}

/// The other core is the server's.
fn on_one_thread<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, work)
}
