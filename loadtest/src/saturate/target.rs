//! What is put under load: a server that runs, a server of our own, or the floor.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use tempfile::TempDir;

use crate::address::Address;
use crate::floor::Flush;
use crate::process::{Role, Watched};
use crate::scene::SceneOptions;
use crate::token::Tokens;

/// How long a server of ours may take to end before it is killed.
const STOP: Duration = Duration::from_secs(10);

/// Where the server is, or how to start one.
#[derive(Args, Debug, Clone)]
pub struct TargetOptions {
    /// A server's WebSocket; several share the connections evenly, and the first is asked to make the friendships.
    #[arg(long, default_value = "ws://127.0.0.1:8080/v1/ws")]
    pub url: Vec<Address>,
    /// Start this `nearby` executable instead: embedded, on a free port, with fresh data and raised limits.
    #[arg(long, value_name = "PATH", conflicts_with_all = ["url", "data_dir", "secret_file", "server_pid", "fleet"])]
    pub server: Option<PathBuf>,
    /// The server's data directory, whose file `signing-secret` tokens are signed with.
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// The signing secret itself, in a file.
    #[arg(long, alias = "secret", value_name = "FILE")]
    pub secret_file: Option<PathBuf>,
    /// Whose CPU time and memory are reported.
    #[command(flatten)]
    pub watched: Watched,
    /// The user id of person 0.
    #[arg(long, default_value_t = 0)]
    pub user_base: u64,
    /// Requests and handshakes under way at once.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..))]
    pub at_once: u16,
    /// Users and friendships are there already.
    #[arg(long)]
    pub skip_setup: bool,
    /// The core for the server that is started; the first one allowed if not given.
    #[arg(long, value_name = "CPU")]
    pub server_cpu: Option<usize>,
    /// The core for this process when it starts a server; the last one allowed if not given.
    #[arg(long, value_name = "CPU")]
    pub generator_cpu: Option<usize>,
}

/// What opens connections.
pub(crate) enum Keys {
    /// Signed tokens.
    Signed(Tokens),
    /// User ids, as the floor takes them.
    Plain,
}

/// Something to put under load.
pub(crate) struct Target {
    /// Each gateway: where, and by what name.
    pub(crate) gateways: Vec<(SocketAddr, Address)>,
    pub(crate) keys: Keys,
    pub(crate) roles: Vec<Role>,
    /// Ends with this, if it is ours.
    _started: Option<Started>,
}

/// The two cores of a run in which this process starts what it measures.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cores {
    server: usize,
    generator: usize,
}

impl Cores {
    /// As asked for, among those that this process may use.
    pub(crate) fn of(options: &TargetOptions) -> Result<Cores> {
        let allowed = sched_getaffinity(None)?;
        let mut cores = (0..CpuSet::MAX_CPU).filter(|&cpu| allowed.is_set(cpu));
        let first = cores.next().context("no core may be used")?;
        let last = cores.next_back().unwrap_or(first);
        Ok(Cores { server: options.server_cpu.unwrap_or(first), generator: options.generator_cpu.unwrap_or(last) })
    }

    /// Pins the calling thread, and what it starts from now on, to the generator's core.
    pub(crate) fn pin_generator(self) -> Result<()> {
        pin(self.generator)
    }

    /// Starts a child on the server's core: it inherits what this thread may use at that moment.
    fn spawn(self, command: &mut Command) -> Result<Child> {
        let before = sched_getaffinity(None)?;
        pin(self.server)?;
        let child = command.spawn();
        sched_setaffinity(None, &before)?;
        child.with_context(|| format!("cannot start {}", command.get_program().display()))
    }
}

fn pin(cpu: usize) -> Result<()> {
    ensure!(cpu < CpuSet::MAX_CPU, "there is no core {cpu}");
    let mut only = CpuSet::new();
    only.set(cpu);
    sched_setaffinity(None, &only).with_context(|| format!("cannot use core {cpu}"))
}

impl Target {
    /// What is given is all there is.
    #[cfg(test)]
    pub(crate) fn of(gateways: Vec<(SocketAddr, Address)>, keys: Keys, roles: Vec<Role>) -> Target {
        Target { gateways, keys, roles, _started: None }
    }

    /// A server that runs already.
    pub(crate) fn running(options: &TargetOptions) -> Result<Target> {
        let tokens = Tokens::open(options.secret_file.as_deref(), options.data_dir.as_deref())?;
        let gateways = options.url.iter().map(resolved).collect::<Result<_>>()?;
        Ok(Target { gateways, keys: Keys::Signed(tokens), roles: options.watched.roles()?, _started: None })
    }

    /// A server of our own: embedded, alone on its core, without the limits that a load test would meet.
    pub(crate) fn server(executable: &Path, cores: Cores) -> Result<Target> {
        let data = tempfile::tempdir()?;
        let mut command = Command::new(executable);
        for (key, value) in [
            ("NEARBY_LIMITS__UPDATES_PER_SECOND", "1000000"),
            ("NEARBY_LIMITS__UPDATE_BURST", "1000000"),
            ("NEARBY_SERVER__DRAIN_MS", "100"),
            ("NEARBY_LOG__LEVEL", "error"),
        ] {
            command.env(key, value);
        }
        command.args(["serve", "--listen", "127.0.0.1:0", "--data-dir"]).arg(data.path());
        let mut started = Started::new(cores.spawn(command.stdout(Stdio::piped()))?, None)?;
        let address = started.address()?;
        let keys = Keys::Signed(Tokens::open(None, Some(data.path()))?);
        started.data = Some(data);
        Ok(Target { gateways: vec![resolved(&address)?], keys, roles: started.role("server"), _started: Some(started) })
    }

    /// The floor, a child of this very executable.
    pub(crate) fn floor(
        executable: &Path,
        scene: &SceneOptions,
        base: u64,
        flush: Flush,
        cores: Cores,
    ) -> Result<Target> {
        let flush = match flush {
            Flush::Push => "--flush=push",
            Flush::Turn => "--flush=turn",
        };
        let mut command = Command::new(executable);
        command.args(["floor", "--until-stdin-ends", flush]).arg(format!("--user-base={base}")).args(scene.arguments());
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut started = Started::new(cores.spawn(&mut command)?, None)?;
        let address = started.address()?;
        let gateways = vec![resolved(&address)?];
        Ok(Target { gateways, keys: Keys::Plain, roles: started.role("floor"), _started: Some(started) })
    }
}

fn resolved(address: &Address) -> Result<(SocketAddr, Address)> {
    let mut found = address.authority().to_socket_addrs().with_context(|| format!("{address} is nowhere"))?;
    Ok((found.next().with_context(|| format!("{address} is nowhere"))?, address.clone()))
}

/// A child process, ended when dropped.
struct Started {
    child: Child,
    /// Kept open: who writes to a closed one is ended.
    stdout: BufReader<ChildStdout>,
    data: Option<TempDir>,
}

impl Started {
    fn new(mut child: Child, data: Option<TempDir>) -> Result<Started> {
        let stdout = child.stdout.take().context("no standard output")?;
        Ok(Started { child, stdout: BufReader::new(stdout), data })
    }

    /// Where it says that it listens.
    fn address(&mut self) -> Result<Address> {
        let mut line = String::new();
        while self.stdout.read_line(&mut line)? > 0 {
            let authority = line.split("listening on http://").nth(1).and_then(|rest| rest.split_whitespace().next());
            if let Some(authority) = authority {
                return format!("ws://{authority}/v1/ws").parse().map_err(anyhow::Error::msg);
            }
            line.clear();
        }
        bail!("what was started ended without listening: {}", self.child.wait()?)
    }

    fn role(&self, name: &str) -> Vec<Role> {
        vec![Role { name: name.into(), pids: vec![self.child.id()] }]
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        // The floor ends when its standard input does.
        drop(self.child.stdin.take());
        let asked = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        let _ = asked.map(|pid| kill_process(pid, Signal::TERM));
        let step = Duration::from_millis(20);
        for _ in 0..STOP.as_millis() / step.as_millis() {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                return;
            }
            sleep(step);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
