//! Apache Cassandra, from its Maven artifacts: no package of a Linux distribution has it. Killed, one comes back with
//! its data.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::fs::{FlockOperation, flock};

use crate::process::{Data, Process, Status, find, free_port, tied};

/// A start takes 7 to 16 s, twice that beside a compiler.
const PATIENCE: Duration = Duration::from_secs(120);

/// What Cassandra is made of, without what tests do not need.
const POM: &str = include_str!("../pom.xml");

/// The only doors that it needs into the JDK's own packages.
const MODULES: [&str; 4] = [
    "--add-opens=java.base/sun.nio.ch=ALL-UNNAMED",
    "--add-opens=java.base/jdk.internal.ref=ALL-UNNAMED",
    "--add-opens=java.base/java.io=ALL-UNNAMED",
    "--add-exports=java.rmi/sun.rmi.registry=ALL-UNNAMED",
];

/// One node: a cluster by itself, or of three.
pub struct CassandraServer {
    node: Node,
    more: &'static [&'static str],
    process: Mutex<Process>,
    // Dropped after the process that writes to it.
    data: Data,
}

/// What a node's configuration says of it.
#[derive(Clone)]
struct Node {
    ip: Ipv4Addr,
    /// Of clients; nodes talk to each other 10,000 above. The same on all nodes of a cluster: drivers expect that.
    port: u16,
    token: i64,
    /// The addresses of all nodes.
    seeds: String,
    /// Whether a node keeps writes for another that is away.
    hints: bool,
}

impl Node {
    fn alone() -> Node {
        let (ip, port) = (Ipv4Addr::LOCALHOST, free_port());
        Node { ip, port, token: 0, seeds: format!("{ip}:{}", port + 10_000), hints: true }
    }

    fn of_three() -> [Node; 3] {
        let port = free_port();
        let ip = |last| Ipv4Addr::new(127, 0, 0, last);
        let seeds = [1, 2, 3].map(|last| format!("{}:{}", ip(last), port + 10_000)).join(",");
        let tokens = [(1, i64::MIN), (2, i64::MIN / 3), (3, i64::MAX / 3)];
        tokens.map(|(last, token)| Node { ip: ip(last), port, token, seeds: seeds.clone(), hints: false })
    }
}

impl CassandraServer {
    /// Starts one. The first start on a machine downloads 54 MB.
    ///
    /// # Panics
    ///
    /// If Java or Maven is not installed, the artifacts cannot be had, or the node does not start.
    pub fn start() -> CassandraServer {
        CassandraServer::start_with(&[])
    }

    /// Starts one on which a change of the schema does not wait for the disk: four times as fast, for tests that make
    /// many keyspaces. Killed, it comes back without the tables that were made last.
    ///
    /// # Panics
    ///
    /// As [`CassandraServer::start`].
    pub fn start_forgetful() -> CassandraServer {
        CassandraServer::start_with(&["-Dcassandra.test.flush_local_schema_changes=false"])
    }

    fn start_with(more: &'static [&'static str]) -> CassandraServer {
        let library = fetch();
        let mut last = String::new();
        for _ in 0..3 {
            match CassandraServer::start_node(Node::alone(), &library, more) {
                Ok(server) => return server,
                Err(failure) => last = failure,
            }
        }
        panic!("{last}");
    }

    /// Starts three that are one cluster, on 127.0.0.1 to 127.0.0.3. None keeps writes for another that is away: after
    /// a restart a node has missed what happened meanwhile, as one that was away for longer than hints are kept.
    ///
    /// # Panics
    ///
    /// As [`CassandraServer::start`].
    pub fn start_three() -> [CassandraServer; 3] {
        let library = fetch();
        let nodes = Node::of_three();
        let servers = thread::scope(|scope| {
            let start = |node| scope.spawn(|| CassandraServer::start_node(node, &library, &[]));
            nodes.map(start).map(|starting| starting.join().expect("no panic"))
        });
        servers.map(|server| server.unwrap_or_else(|failure| panic!("{failure}")))
    }

    fn start_node(node: Node, library: &Path, more: &'static [&'static str]) -> Result<CassandraServer, String> {
        let data = Data(Process::directory_for("cassandra-data"));
        data.configure(&node);
        let process = data.run(library, more);
        await_answer(&process, &node)?;
        Ok(CassandraServer { node, more, process: Mutex::new(process), data })
    }

    /// `ip:port`.
    pub fn address(&self) -> String {
        format!("{}:{}", self.node.ip, self.node.port)
    }

    /// How its process is.
    pub fn status(&self) -> Status {
        self.process.lock().status()
    }

    /// `SIGSTOP`.
    pub fn freeze(&self) {
        self.process.lock().freeze();
    }

    /// `SIGCONT`.
    pub fn thaw(&self) {
        self.process.lock().thaw();
    }

    /// Runs one statement, for what a test does behind a backend's back.
    ///
    /// # Panics
    ///
    /// If it is refused or not answered.
    pub fn run(&self, cql: &str) {
        crate::cql::run(self.node.ip, self.node.port, cql).unwrap_or_else(|error| panic!("{cql}: {error}"));
    }

    /// `kill -9`.
    pub fn kill(&self) {
        self.process.lock().kill();
    }

    /// Starts a killed one again, with its data, on the same port, and waits until it answers.
    ///
    /// # Panics
    ///
    /// If it cannot be started.
    pub fn restart(&self) {
        let library = fetch();
        let mut process = self.process.lock();
        process.kill();
        *process = self.data.run(&library, self.more);
        await_answer(&process, &self.node).unwrap_or_else(|failure| panic!("{failure}"));
    }
}

impl Data {
    /// `commitlog_sync: batch`: with anything less a killed node loses what it acknowledged. The timeouts suit a
    /// machine that compiles beside.
    fn configure(&self, node: &Node) {
        let Node { ip, port, token, seeds, hints } = node;
        let storage = port + 10_000;
        let yaml = format!(
            "cluster_name: nearby\n\
             num_tokens: 1\n\
             initial_token: {token}\n\
             auto_bootstrap: false\n\
             partitioner: org.apache.cassandra.dht.Murmur3Partitioner\n\
             endpoint_snitch: SimpleSnitch\n\
             listen_address: {ip}\n\
             rpc_address: {ip}\n\
             storage_port: {storage}\n\
             native_transport_port: {port}\n\
             seed_provider: [{{class_name: org.apache.cassandra.locator.SimpleSeedProvider, \
             parameters: [{{seeds: \"{seeds}\"}}]}}]\n\
             commitlog_sync: batch\n\
             commitlog_segment_size: 8MiB\n\
             commitlog_total_space: 64MiB\n\
             concurrent_writes: 64\n\
             auto_snapshot: false\n\
             hinted_handoff_enabled: {hints}\n\
             read_request_timeout: 5s\n\
             write_request_timeout: 5s\n\
             cas_contention_timeout: 5s\n"
        );
        let logback = "<configuration><appender name=\"O\" class=\"ch.qos.logback.core.ConsoleAppender\"><encoder>\
             <pattern>%d{HH:mm:ss.SSS} %-5level %logger{0} - %msg%n</pattern></encoder></appender>\
             <root level=\"WARN\"><appender-ref ref=\"O\"/></root></configuration>";
        for directory in ["data", "logs", "triggers"] {
            fs::create_dir_all(self.0.join(directory)).expect("a directory for cassandra");
        }
        fs::write(self.0.join("cassandra.yaml"), yaml).expect("a configuration of cassandra");
        fs::write(self.0.join("logback.xml"), logback).expect("a configuration of logging");
    }

    /// 256 MB of heap and the quick compiler only: half the memory, and faster in the first minute.
    fn run(&self, library: &Path, more: &[&str]) -> Process {
        let (library, home) = (library.display(), self.0.display());
        let mut java = vec!["java".to_owned()];
        java.extend(MODULES.map(str::to_owned));
        java.extend(
            ["-Djdk.attach.allowAttachSelf=true", "-Dio.netty.tryReflectionSetAccessible=true"].map(str::to_owned),
        );
        java.extend(["-Xms256m", "-Xmx256m", "-Xss512k", "-XX:+UseSerialGC"].map(str::to_owned));
        java.extend(["-XX:TieredStopAtLevel=1", "-XX:+ExitOnOutOfMemoryError"].map(str::to_owned));
        java.extend(["-cp".to_owned(), format!("{library}/*"), format!("-javaagent:{library}/jamm-0.4.0.jar")]);
        java.extend([
            format!("-Dlogback.configurationFile=file:{home}/logback.xml"),
            format!("-Duser.home={home}"),
            format!("-Dcassandra.config=file:{home}/cassandra.yaml"),
            format!("-Dcassandra.storagedir={home}/data"),
            format!("-Dcassandra.logdir={home}/logs"),
            format!("-Dcassandra.triggers_dir={home}/triggers"),
        ]);
        let quick =
            ["skip_wait_for_gossip_to_settle", "ring_delay_ms", "shutdown_announce_in_ms", "superuser_setup_delay_ms"];
        java.extend(quick.map(|name| format!("-Dcassandra.{name}=0")));
        java.extend(more.iter().map(|&option| option.to_owned()));
        java.extend(["-Dcassandra-foreground=yes", "org.apache.cassandra.service.CassandraDaemon"].map(str::to_owned));
        let directory = Process::directory_for("cassandra");
        if rustix::process::geteuid().is_root() {
            // With the right to, it locks its whole heap into memory.
            let without = ["--bounding-set=-ipc_lock", "--inh-caps=-ipc_lock", "--"].map(str::to_owned);
            java.splice(0..0, without);
            return Process::start("setpriv", "util-linux", &java, directory);
        }
        Process::start("java", "maven", &java[1..], directory)
    }
}

fn await_answer(process: &Process, node: &Node) -> Result<(), String> {
    process.try_wait_until("answering", PATIENCE, || says_supported(node).unwrap_or(false))?;
    if process.is_running() { Ok(()) } else { Err(format!("port {} is somebody else's", node.port)) }
}

/// Whether OPTIONS is answered with SUPPORTED, which comes once everything else is there.
fn says_supported(node: &Node) -> std::io::Result<bool> {
    let mut connection = TcpStream::connect((node.ip, node.port))?;
    connection.set_read_timeout(Some(Duration::from_secs(2)))?;
    connection.write_all(&[4, 0, 0, 0, 5, 0, 0, 0, 0])?;
    let mut answer = [0; 5];
    connection.read_exact(&mut answer)?;
    Ok(answer == [0x84, 0, 0, 0, 6])
}

/// The directory with the artifacts; downloads them if they are not there. One at a time on a machine.
fn fetch() -> PathBuf {
    for program in ["java", "mvn"] {
        assert!(find(program).is_some(), "{program} is not installed: run ./test, or apt-get install maven");
    }
    let cache = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/cassandra");
    fs::create_dir_all(&cache).expect("a directory for cassandra");
    let cache = cache.canonicalize().expect("a directory for cassandra");
    let lock = File::create(cache.join(".lock")).expect("a lock file");
    flock(&lock, FlockOperation::LockExclusive).expect("the lock of cassandra's directory");
    let (library, mark) = (cache.join("lib"), cache.join("lib/.pom"));
    if fs::read_to_string(&mark).is_ok_and(|pom| pom == POM) {
        return library;
    }
    let _ = fs::remove_dir_all(&library);
    fs::write(cache.join("pom.xml"), POM).expect("a pom.xml");
    // Without the network first: a machine that has them all needs none.
    let log = download(&cache, &["-o"]).or_else(|_| download(&cache, &[]));
    log.unwrap_or_else(|log| panic!("cassandra's artifacts cannot be downloaded by mvn:\n{log}"));
    fs::write(mark, POM).expect("a mark");
    library
}

fn download(cache: &Path, options: &[&str]) -> Result<(), String> {
    let goal = "org.apache.maven.plugins:maven-dependency-plugin:3.10.0:copy-dependencies";
    let file = cache.join("pom.xml").display().to_string();
    let output = format!("-DoutputDirectory={}/lib", cache.display());
    let arguments: Vec<String> =
        options.iter().chain(&["-q", "-B", "-f", &file, &output, goal]).map(|&argument| argument.to_owned()).collect();
    let output = tied(Path::new("mvn"), &arguments).output();
    let output = output.map_err(|error| error.to_string())?;
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stdout).into_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_killed_node_comes_back() {
        let server = CassandraServer::start();
        server.kill();
        assert!(says_supported(&server.node).is_err());
        server.restart();
        assert!(says_supported(&server.node).expect("an answer"));
    }
}
