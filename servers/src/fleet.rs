//! A whole fleet on loopback, as a deployment has it: HAProxy, gateways and an API behind it, and the servers that
//! they share. Every part has its faults as verbs: `fleet.gateways[1].freeze()`.

use std::fs::{self, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::thread::{self, ScopedJoinHandle};
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::cassandra::CassandraServer;
use crate::etcd::EtcdServer;
use crate::haproxy::{Behind, Haproxy};
use crate::nearby::{Executable, NearbyServer};
use crate::process::{Data, Process, Status};
use crate::proxy::Proxy;
use crate::redis::RedisServer;

/// What a pub/sub server is started with beside keeping nothing. A gateway that is 64 MB behind, or 16 MB for 10 s, is
/// cut: it takes that as a gap and reads the newest positions from the cache, while catching up would show it old ones
/// and cost the server memory.
pub const PUBSUB_OPTIONS: [&str; 5] = ["--client-output-buffer-limit", "pubsub", "64mb", "16mb", "10"];

/// The file with the secret that tokens are signed with, in [`Fleet::secret_dir`].
pub const SECRET: &str = "signing-secret";

/// Beyond the spread of the closes and what `nearby serve` allows itself for the rest.
const STOP_PATIENCE: Duration = Duration::from_secs(45);

/// What a fleet is made of.
#[derive(Clone, Debug)]
pub struct FleetOptions {
    /// The executable, `nearby`.
    pub nearby: PathBuf,
    /// How many serve live connections.
    pub gateways: usize,
    /// How many serve records.
    pub apis: usize,
    /// Pub/sub servers on the ring at the start.
    pub pubsub: usize,
    /// Where HAProxy listens; a free port if none is given.
    pub port: Option<u16>,
    /// Where the secret is, or is put if there is none; a directory of the fleet's own if none is given.
    pub secret_dir: Option<PathBuf>,
    /// More variables for gateways and API, `NEARBY_SECTION__KEY` and its value. They win.
    pub variables: Vec<(String, String)>,
    /// Whether the last gateway reaches etcd through a proxy that can be hurt, [`Fleet::etcd_proxy`].
    pub etcd_proxy: bool,
}

impl FleetOptions {
    /// Three gateways, an API, three pub/sub servers.
    pub fn new(nearby: impl Into<PathBuf>) -> FleetOptions {
        FleetOptions {
            nearby: nearby.into(),
            gateways: 3,
            apis: 1,
            pubsub: 3,
            port: None,
            secret_dir: None,
            variables: Vec::new(),
            etcd_proxy: false,
        }
    }

    /// The same with a variable for gateways and API.
    #[must_use]
    pub fn with(mut self, variable: &str, value: &str) -> FleetOptions {
        self.variables.push((variable.to_owned(), value.to_owned()));
        self
    }
}

/// A running fleet; killed when dropped. Fields are dropped in their order: who uses a server goes before it.
pub struct Fleet {
    /// In front of everything.
    pub haproxy: Haproxy,
    /// `gateway-1` and on.
    pub gateways: Vec<NearbyServer>,
    /// `api-1` and on.
    pub apis: Vec<NearbyServer>,
    /// `pubsub-1` and on, as they are called on the ring.
    pub pubsub: Vec<RedisServer>,
    /// Last positions and sessions.
    pub cache: RedisServer,
    /// A replica of the cache.
    pub standby: RedisServer,
    /// Members, permissions, the ring.
    pub etcd: EtcdServer,
    /// Records.
    pub cassandra: CassandraServer,
    /// The last gateway's way to etcd, if [`FleetOptions::etcd_proxy`] asked for one.
    pub etcd_proxy: Option<Proxy>,
    executable: Executable,
    secret_dir: PathBuf,
    _data: Data,
}

/// One process of a fleet.
#[derive(Clone, Debug)]
pub struct Part {
    /// What it is there for, such as `gateway`.
    pub role: &'static str,
    /// Its name, such as `gateway-1`.
    pub name: String,
    /// Where it listens.
    pub address: String,
    /// How it is.
    pub status: Status,
}

impl Fleet {
    /// Starts all of it, and waits until every process is ready. Takes as long as Cassandra's start: 10 to 30 s.
    ///
    /// # Errors
    ///
    /// With what the part that failed said.
    pub fn start(options: FleetOptions) -> Result<Fleet, String> {
        let missing = |error| format!("the executable {}: {error}", options.nearby.display());
        let path = fs::canonicalize(&options.nearby).map_err(missing)?;
        let data = Data(Process::directory_for("fleet"));
        let secret_dir = options.secret_dir.unwrap_or_else(|| data.0.clone());
        write_secret(&secret_dir).map_err(|error| format!("{}: {error}", secret_dir.display()))?;
        let Shared { pubsub, cache, standby, etcd, cassandra } = Shared::start(options.pubsub)?;
        let mut variables: Vec<(String, String)> = [
            ("NEARBY_AUTH__HS256_SECRET_FILE", secret_dir.join(SECRET).display().to_string()),
            ("NEARBY_DEPLOYMENT__CLUSTER__CACHE", cache.url()),
            ("NEARBY_DEPLOYMENT__CLUSTER__ETCD", etcd.endpoint()),
            ("NEARBY_DEPLOYMENT__CLUSTER__CASSANDRA", cassandra.address()),
            ("NEARBY_DEPLOYMENT__CLUSTER__REPLICAS", "1".to_owned()),
            // HAProxy looks every 100 ms and wants to see it twice.
            ("NEARBY_SERVER__NOTICE_MS", "300".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into();
        variables.extend(options.variables);
        let executable = Executable { path, variables };
        // Also the commands' configuration has to be whole.
        let commands = of_process(&executable, &data.0, "commands", "gateway,api");
        prepare(&commands, &pubsub)?;
        let etcd_proxy = options.etcd_proxy.then(|| Proxy::to(etcd.endpoint().trim_start_matches("http://")));
        let behind_proxy = etcd_proxy.as_ref().map(|proxy| {
            let endpoint = format!("http://{}", proxy.address());
            (options.gateways, ("NEARBY_DEPLOYMENT__CLUSTER__ETCD".to_owned(), endpoint))
        });
        let (gateways, apis) = thread::scope(|scope| {
            let server = |role: &'static str, number| {
                let name = format!("{role}-{number}");
                let own = behind_proxy.clone().filter(|(gateway, _)| role == "gateway" && number == *gateway);
                let executable = of_process(&executable, &data.0, &name, role).with(own.map(|(_, variable)| variable));
                scope.spawn(move || NearbyServer::start(&name, executable))
            };
            let gateways: Vec<_> = (1..=options.gateways).map(|number| server("gateway", number)).collect();
            let apis: Vec<_> = (1..=options.apis).map(|number| server("api", number)).collect();
            (all(gateways), all(apis))
        });
        let (gateways, apis) = (gateways?, apis?);
        let behind = |servers: &[NearbyServer]| servers.iter().map(NearbyServer::behind).collect::<Vec<Behind>>();
        let haproxy = Haproxy::start(options.port, &behind(&gateways), &behind(&apis))?;
        Ok(Fleet {
            haproxy,
            gateways,
            apis,
            pubsub,
            cache,
            standby,
            etcd,
            cassandra,
            etcd_proxy,
            executable: commands,
            secret_dir,
            _data: data,
        })
    }

    /// `127.0.0.1:port` of HAProxy, where clients connect.
    pub fn address(&self) -> String {
        self.haproxy.address()
    }

    /// The directory with the secret: `nearby token --data-dir` and the load tester take it.
    pub fn secret_dir(&self) -> &Path {
        &self.secret_dir
    }

    /// The variables that a subcommand of the executable needs to know the fleet.
    pub fn variables(&self) -> &[(String, String)] {
        &self.executable.variables
    }

    /// Runs a subcommand of the executable in the fleet's environment, such as `ring status`, and returns what it
    /// printed.
    ///
    /// # Errors
    ///
    /// With what it said, if it failed.
    pub fn run(&self, arguments: &[&str]) -> Result<String, String> {
        self.executable.run(arguments)
    }

    /// Starts another pub/sub server and puts it on the ring; returns its name.
    ///
    /// # Errors
    ///
    /// With what `nearby ring add` said.
    pub fn add_pubsub(&mut self) -> Result<String, String> {
        let server = RedisServer::start_with(&PUBSUB_OPTIONS);
        let name = pubsub_name(self.pubsub.len());
        self.run(&["ring", "add", &name, &server.address()])?;
        self.pubsub.push(server);
        Ok(name)
    }

    /// Every process of it.
    pub fn parts(&self) -> Vec<Part> {
        let part = |role, name: &str, address, status| Part { role, name: name.to_owned(), address, status };
        let mut parts = vec![part("haproxy", "haproxy", self.address(), self.haproxy.process().status())];
        for (role, servers) in [("gateway", &self.gateways), ("api", &self.apis)] {
            parts.extend(servers.iter().map(|one| part(role, one.name(), one.address(), one.status())));
        }
        let redis = |role, name: &str, one: &RedisServer| part(role, name, one.address(), one.status());
        parts.extend(self.pubsub.iter().enumerate().map(|(at, one)| redis("pubsub", &pubsub_name(at), one)));
        parts.extend([
            redis("cache", "cache", &self.cache),
            redis("standby", "standby", &self.standby),
            part("etcd", "etcd", self.etcd.endpoint(), self.etcd.status()),
            part("cassandra", "cassandra", self.cassandra.address(), self.cassandra.status()),
        ]);
        parts
    }

    /// Where everything is and which process it is, for the load tester and for scripts.
    pub fn description(&self) -> Value {
        let mut roles: Map<String, Value> = Map::new();
        for part in self.parts() {
            let process = json!({"name": part.name, "address": part.address, "pid": part.status.pid});
            let role = roles.entry(part.role).or_insert_with(|| json!([]));
            if let Some(list) = role.as_array_mut() {
                list.push(process);
            }
        }
        let variables: Map<String, Value> =
            self.variables().iter().map(|(name, value)| (name.clone(), json!(value))).collect();
        json!({
            "url": format!("http://{}", self.address()),
            "statistics": self.haproxy.operations_url(),
            "secret_file": self.secret_dir().join(SECRET),
            "pid": std::process::id(),
            "variables": variables,
            "processes": roles,
        })
    }

    /// Stops it as one stops a deployment: gateways and API close their connections and write what they took in, then
    /// the rest ends.
    ///
    /// # Errors
    ///
    /// With the end of the log of who did not end well.
    pub fn stop(self) -> Result<(), String> {
        let servers: Vec<&NearbyServer> = self.gateways.iter().chain(&self.apis).collect();
        let running: Vec<&&NearbyServer> = servers.iter().filter(|server| server.status().is_running).collect();
        running.iter().for_each(|server| server.terminate());
        let failed = running.iter().filter(|server| {
            let ended = server.await_end(STOP_PATIENCE);
            !ended.is_some_and(|status| status.success())
        });
        let failed: Vec<String> =
            failed.map(|server| format!("{} did not stop well:\n{}", server.name(), server.log_tail())).collect();
        if failed.is_empty() { Ok(()) } else { Err(failed.join("\n")) }
    }
}

/// What gateways and API share.
struct Shared {
    pubsub: Vec<RedisServer>,
    cache: RedisServer,
    standby: RedisServer,
    etcd: EtcdServer,
    cassandra: CassandraServer,
}

impl Shared {
    fn start(pubsub: usize) -> Result<Shared, String> {
        thread::scope(|scope| {
            let cassandra = scope.spawn(CassandraServer::start);
            let etcd = scope.spawn(EtcdServer::start);
            let redis = scope.spawn(move || {
                let pubsub = (0..pubsub).map(|_| RedisServer::start_with(&PUBSUB_OPTIONS)).collect();
                let cache = RedisServer::start();
                let standby = RedisServer::start_with(&["--replicaof", "127.0.0.1", &cache.port().to_string()]);
                (pubsub, cache, standby)
            });
            let (pubsub, cache, standby) = joined(redis)?;
            Ok(Shared { pubsub, cache, standby, etcd: joined(etcd)?, cassandra: joined(cassandra)? })
        })
    }
}

/// What a thread returned, or the text that it panicked with.
fn joined<T>(handle: ScopedJoinHandle<'_, T>) -> Result<T, String> {
    handle.join().map_err(|panic| match panic.downcast::<String>() {
        Ok(text) => *text,
        Err(panic) => panic.downcast::<&str>().map_or_else(|_| "a panic".to_owned(), |text| (*text).to_owned()),
    })
}

fn all<T>(handles: Vec<ScopedJoinHandle<'_, Result<T, String>>>) -> Result<Vec<T>, String> {
    handles.into_iter().map(|handle| joined(handle).and_then(|result| result)).collect()
}

/// The tables, and the first ring.
fn prepare(executable: &Executable, pubsub: &[RedisServer]) -> Result<(), String> {
    executable.run(&["migrate"])?;
    for (at, server) in pubsub.iter().enumerate() {
        executable.run(&["ring", "add", &pubsub_name(at), &server.address()])?;
    }
    Ok(())
}

/// A process has a role and a spool of its own.
fn of_process(executable: &Executable, data: &Path, name: &str, roles: &str) -> Executable {
    let spool = data.join(format!("spool-{name}")).display().to_string();
    executable.with([
        ("NEARBY_SERVER__ROLES".to_owned(), roles.to_owned()),
        ("NEARBY_DEPLOYMENT__CLUSTER__SPOOL_DIR".to_owned(), spool),
    ])
}

fn pubsub_name(at: usize) -> String {
    format!("pubsub-{}", at + 1)
}

/// 256 bits in hexadecimal, readable by its owner only; one that is there stays.
fn write_secret(directory: &Path) -> std::io::Result<()> {
    fs::create_dir_all(directory)?;
    let path = directory.join(SECRET);
    if path.exists() {
        return Ok(());
    }
    let mut random = [0u8; 32];
    fs::File::open("/dev/urandom")?.read_exact(&mut random)?;
    let text: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?.write_all(text.as_bytes())
}
