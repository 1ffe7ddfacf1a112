//! `./fleet`: a whole fleet in the foreground, to try and to put under load.

mod screen;

use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use rustix::fs::{FlockOperation, flock};
use servers::fleet::{Fleet, FleetOptions};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::{JoinError, spawn_blocking};

/// How often is looked whether all parts are there.
const LOOK: Duration = Duration::from_millis(500);

/// Starts a whole fleet on this machine, says where everything is, and stops it all at Ctrl-C.
#[derive(Debug, Parser)]
#[command(name = "fleet", max_term_width = 100)]
struct Arguments {
    /// The `nearby` executable
    #[arg(long, value_name = "FILE", default_value = "target/release/nearby")]
    nearby: PathBuf,
    /// Processes that carry positions
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=32))]
    gateways: u8,
    /// Redis servers on the ring
    #[arg(long, value_name = "P", default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=32))]
    pubsub: u8,
    /// Where clients connect, on 127.0.0.1
    #[arg(long, default_value_t = 8080, value_parser = clap::value_parser!(u16).range(1..))]
    port: u16,
    /// A setting of gateways and API, such as NEARBY_LIMITS__UPDATES_PER_SECOND=100; any number of times
    #[arg(long = "env", value_name = "KEY=VALUE", value_parser = variable)]
    variables: Vec<(String, String)>,
    /// Where the signing secret and the list of processes are put
    #[arg(long, value_name = "DIR", default_value = "target/fleet")]
    dir: PathBuf,
}

fn variable(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("it has to be KEY=VALUE")?;
    if !key.starts_with("NEARBY_") {
        return Err("settings begin with NEARBY_".to_owned());
    }
    Ok((key.to_owned(), value.to_owned()))
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // What starting a server panics with is told as an error, once.
    std::panic::set_hook(Box::new(|_| {}));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let ended = runtime.map_err(|error| error.to_string()).and_then(|runtime| runtime.block_on(run(arguments)));
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("fleet: {failure}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> Result<(), String> {
    let mut signals = Signals::new().map_err(|error| error.to_string())?;
    let _lock = claim(&arguments.dir)?;
    TcpListener::bind((Ipv4Addr::LOCALHOST, arguments.port))
        .map_err(|error| format!("127.0.0.1:{}: {error}; --port takes another", arguments.port))?;
    let options = FleetOptions {
        gateways: arguments.gateways.into(),
        pubsub: arguments.pubsub.into(),
        port: Some(arguments.port),
        secret_dir: Some(absolute(&arguments.dir)?),
        variables: arguments.variables,
        ..FleetOptions::new(&arguments.nearby)
    };
    screen::starting(&options);
    let fleet = tokio::select! {
        started = spawn_blocking(|| Fleet::start(options)) => started.map_err(text_of)??,
        // The kernel ends with this process all that it has started.
        () = signals.next() => std::process::exit(130),
    };
    let files = screen::Files::write(&fleet, &arguments.dir).map_err(|error| error.to_string())?;
    screen::up(&fleet, &files, &arguments.nearby);
    watch(&fleet, &mut signals).await;
    screen::stopping();
    tokio::select! {
        stopped = spawn_blocking(|| fleet.stop()) => stopped.map_err(text_of)??,
        () = signals.next() => std::process::exit(130),
    }
    Ok(())
}

/// Until a signal; says who ended meanwhile. Whoever did was perhaps meant to: the others go on.
async fn watch(fleet: &Fleet, signals: &mut Signals) {
    let mut gone: Vec<u32> = Vec::new();
    while tokio::time::timeout(LOOK, signals.next()).await.is_err() {
        for part in fleet.parts().iter().filter(|part| !part.status.is_running) {
            if !gone.contains(&part.status.pid) {
                gone.push(part.status.pid);
                screen::ended(part);
            }
        }
    }
}

/// Of two fleets in one directory the second would take the first one's files.
fn claim(dir: &Path) -> Result<File, String> {
    let open = || fs::create_dir_all(dir).and_then(|()| File::create(dir.join("lock")));
    let lock = open().map_err(|error| format!("{}: {error}", dir.display()))?;
    flock(&lock, FlockOperation::NonBlockingLockExclusive)
        .map_err(|_| format!("another fleet runs in {}; for a second one give --dir and --port", dir.display()))?;
    Ok(lock)
}

fn absolute(dir: &Path) -> Result<PathBuf, String> {
    fs::canonicalize(dir).map_err(|error| format!("{}: {error}", dir.display()))
}

fn text_of(error: JoinError) -> String {
    match error.try_into_panic() {
        Ok(panic) => panic.downcast::<String>().map_or_else(|_| "a panic".to_owned(), |text| *text),
        Err(error) => error.to_string(),
    }
}

/// Ctrl-C and SIGTERM.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Signals> {
        Ok(Signals { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
