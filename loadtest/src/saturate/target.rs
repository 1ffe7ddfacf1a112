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

use crate::access::Access;
use crate::address::Address;
use crate::fleet::FleetFile;
use crate::floor::Flush;
use crate::process::Role;
use crate::scene::SceneOptions;
use crate::token::Tokens;

/// Where a server is that was started without further ado.
const ALONE: &str = "ws://127.0.0.1:8080/v1/ws";
/// How long a server of ours may take to end before it is killed.
const STOP: Duration = Duration::from_secs(10);

/// Where the server is, or how to start one.
#[derive(Args, Debug, Clone)]
pub struct TargetOptions {
    /// A server's WebSocket; several share the connections evenly, and the first is asked to make the friendships.
    /// Without it ws://127.0.0.1:8080/v1/ws, or with --fleet its HAProxy.
    #[arg(long)]
    pub url: Vec<Address>,
    /// With --fleet: connect to its gateways themselves, past HAProxy, evenly.
    #[arg(long, requires = "fleet", conflicts_with_all = ["url", "server"])]
    pub direct: bool,
    /// Start this `nearby` executable instead: embedded, on a free port, with fresh data and raised limits; with --fleet
    /// as one more gateway of that fleet, which takes all connections.
    #[arg(long, value_name = "PATH", conflicts_with_all = ["url", "data_dir", "secret_file", "server_pid"])]
    pub server: Option<PathBuf>,
    /// What opens it.
    #[command(flatten)]
    pub access: Access,
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
    /// Where users and friendships are made.
    pub(crate) records: Option<Address>,
    pub(crate) keys: Keys,
    /// What is under test.
    pub(crate) roles: Vec<Role>,
    /// What it stands on: reported, and no part of its cost.
    pub(crate) beside: Vec<Role>,
    /// The pub/sub servers of the fleet.
    pub(crate) pubsub: Vec<String>,
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
        Target { gateways, records: None, keys, roles, beside: vec![], pubsub: vec![], _started: None }
    }

    /// A server that runs already, or a fleet.
    pub(crate) fn running(options: &TargetOptions) -> Result<Target> {
        let fleet = options.access.fleet()?;
        let urls = match &fleet {
            _ if !options.url.is_empty() => options.url.clone(),
            Some(fleet) if options.direct => fleet.gateways()?,
            Some(fleet) => vec![fleet.front()?],
            None => vec![ALONE.parse().map_err(anyhow::Error::msg)?],
        };
        let records = match &fleet {
            // A gateway itself may have no API.
            Some(fleet) if options.direct => Some(fleet.front()?),
            _ => urls.first().cloned(),
        };
        Ok(Target {
            gateways: urls.iter().map(resolved).collect::<Result<_>>()?,
            records,
            keys: Keys::Signed(options.access.tokens()?),
            roles: options.access.watched.roles()?,
            beside: vec![],
            pubsub: fleet.iter().flat_map(|fleet| fleet.addresses("pubsub")).map(str::to_owned).collect(),
            _started: None,
        })
    }

    /// A server of our own, alone on its core, without the limits that a load test would meet: embedded, or one more
    /// gateway of a fleet.
    pub(crate) fn server(executable: &Path, cores: Cores, access: &Access) -> Result<Target> {
        let data = tempfile::tempdir()?;
        let mut command = Command::new(executable);
        command.args(["serve", "--listen", "127.0.0.1:0"]);
        let fleet = access.fleet()?;
        match &fleet {
            Some(fleet) => {
                command.envs(&fleet.variables).env("NEARBY_SERVER__ROLES", "gateway");
                command.env("NEARBY_DEPLOYMENT__CLUSTER__SPOOL_DIR", data.path().join("spool"));
            }
            None => drop(command.arg("--data-dir").arg(data.path())),
        }
        for (key, value) in [
            ("NEARBY_LIMITS__UPDATES_PER_SECOND", "1000000"),
            ("NEARBY_LIMITS__UPDATE_BURST", "1000000"),
            ("NEARBY_SERVER__DRAIN_MS", "100"),
            ("NEARBY_LOG__LEVEL", "error"),
        ] {
            command.env(key, value);
        }
        let mut started = Started::new(cores.spawn(command.stdout(Stdio::piped()))?)?;
        let address = started.address()?;
        let tokens = match &fleet {
            Some(_) => access.tokens()?,
            None => Tokens::open(None, Some(data.path()))?,
        };
        started.data = Some(data);
        Ok(Target {
            gateways: vec![resolved(&address)?],
            records: Some(fleet.as_ref().map_or(Ok(address), FleetFile::front)?),
            keys: Keys::Signed(tokens),
            roles: started.role("server"),
            beside: fleet.as_ref().map(FleetFile::roles).unwrap_or_default(),
            pubsub: fleet.iter().flat_map(|fleet| fleet.addresses("pubsub")).map(str::to_owned).collect(),
            _started: Some(started),
        })
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
        let mut started = Started::new(cores.spawn(&mut command)?)?;
        let gateways = vec![resolved(&started.address()?)?];
        let (roles, beside, pubsub) = (started.role("floor"), vec![], vec![]);
        Ok(Target { gateways, records: None, keys: Keys::Plain, roles, beside, pubsub, _started: Some(started) })
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
    fn new(mut child: Child) -> Result<Started> {
        let stdout = child.stdout.take().context("no standard output")?;
        Ok(Started { child, stdout: BufReader::new(stdout), data: None })
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
