//! `redis-server`, alone, watched by sentinels, or as a cluster.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::PathBuf;
use std::time::Duration;

use parking_lot::Mutex;

use crate::process::{Process, Status, free_port};

const PATIENCE: Duration = Duration::from_secs(10);

/// One that keeps nothing on disk.
pub struct RedisServer {
    port: u16,
    more: Vec<String>,
    process: Mutex<Process>,
}

impl RedisServer {
    /// Starts one on a free port.
    pub fn start() -> RedisServer {
        RedisServer::start_with(&[])
    }

    /// Starts one with more arguments, such as `--maxmemory 1mb`.
    ///
    /// # Panics
    ///
    /// If it cannot be started.
    pub fn start_with(more: &[&str]) -> RedisServer {
        let more: Vec<String> = more.iter().map(|&argument| argument.to_owned()).collect();
        let mut last = String::new();
        for _ in 0..5 {
            let port = free_port();
            match launch(port, &more) {
                Ok(process) => return RedisServer { port, more, process: Mutex::new(process) },
                Err(failure) => last = failure,
            }
        }
        panic!("{last}");
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `127.0.0.1:port`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// `redis://127.0.0.1:port`.
    pub fn url(&self) -> String {
        format!("redis://{}", self.address())
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

    /// `kill -9`.
    pub fn kill(&self) {
        self.process.lock().kill();
    }

    /// `SIGTERM`.
    pub fn stop(&self) {
        self.process.lock().stop(PATIENCE);
    }

    /// Starts a killed or stopped one again, empty, on the same port.
    ///
    /// # Panics
    ///
    /// If it cannot be started.
    pub fn restart(&self) {
        let mut process = self.process.lock();
        process.kill();
        *process = launch(self.port, &self.more).unwrap_or_else(|failure| panic!("{failure}"));
    }

    /// Sends one command and returns the answer as it came, for what a test does behind a backend's back.
    ///
    /// # Panics
    ///
    /// If it does not answer.
    pub fn command(&self, words: &[&[u8]]) -> Vec<u8> {
        ask(self.port, words).unwrap_or_else(|error| panic!("redis-server on port {}: {error}", self.port))
    }
}

/// A server, a replica of it, and three sentinels that watch them under the name `main`.
pub struct Sentinels {
    /// The server that is the first one's to write to.
    pub primary: RedisServer,
    /// Its replica.
    pub replica: RedisServer,
    sentinels: Vec<(u16, Process)>,
}

impl Sentinels {
    /// Starts all five, and waits until every sentinel knows the replica and the other sentinels.
    pub fn start() -> Sentinels {
        let primary = RedisServer::start();
        let replica = RedisServer::start_with(&["--replicaof", "127.0.0.1", &primary.port().to_string()]);
        let sentinels = (0..3).map(|_| sentinel(primary.port())).collect();
        let all = Sentinels { primary, replica, sentinels };
        for (port, process) in &all.sentinels {
            process.wait_until("acquainted", PATIENCE, || {
                let known = ask(*port, &[b"INFO", b"sentinel"]).unwrap_or_default();
                String::from_utf8_lossy(&known).contains("slaves=1,sentinels=3")
            });
        }
        all
    }

    /// `redis-sentinel://` with all three and the service's name.
    pub fn url(&self) -> String {
        let first = self.sentinels[0].0;
        let others = self.sentinels[1..].iter().map(|(port, _)| format!("127.0.0.1:{port}"));
        let others: Vec<String> = others.map(|address| format!("node={address}")).collect();
        format!("redis-sentinel://127.0.0.1:{first}?{}&sentinelServiceName=main", others.join("&"))
    }

    /// Has a sentinel make the replica the primary, and the primary a replica, without either of them failing.
    ///
    /// # Panics
    ///
    /// If the sentinel does not begin it.
    pub fn fail_over(&self) {
        let answer = ask(self.sentinels[0].0, &[b"SENTINEL", b"FAILOVER", b"main"]).unwrap_or_default();
        assert!(answer.starts_with(b"+OK"), "{}", String::from_utf8_lossy(&answer));
    }
}

/// Three servers that share the 16,384 slots.
pub struct RedisCluster {
    /// The servers.
    pub servers: Vec<RedisServer>,
}

impl RedisCluster {
    /// Starts three and waits until each says that the cluster is well.
    pub fn start() -> RedisCluster {
        let options = ["--cluster-enabled", "yes", "--cluster-node-timeout", "2000"];
        let servers: Vec<RedisServer> = (0..3).map(|_| RedisServer::start_with(&options)).collect();
        for (server, slots) in servers.iter().zip([("0", "5460"), ("5461", "10922"), ("10923", "16383")]) {
            server.command(&[b"CLUSTER", b"ADDSLOTSRANGE", slots.0.as_bytes(), slots.1.as_bytes()]);
        }
        for other in &servers[1..] {
            servers[0].command(&[b"CLUSTER", b"MEET", b"127.0.0.1", other.port().to_string().as_bytes()]);
        }
        for server in &servers {
            server.process.lock().wait_until("in a cluster that is well", PATIENCE, || {
                let info = ask(server.port, &[b"CLUSTER", b"INFO"]).unwrap_or_default();
                let info = String::from_utf8_lossy(&info).into_owned();
                info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:3")
            });
        }
        RedisCluster { servers }
    }

    /// `redis-cluster://` with one of them.
    pub fn url(&self) -> String {
        format!("redis-cluster://{}", self.servers[0].address())
    }
}

fn launch(port: u16, more: &[String]) -> Result<Process, String> {
    let directory = Process::directory_for("redis");
    let arguments = ["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--port"].map(str::to_owned);
    let place = [port.to_string(), "--dir".to_owned(), directory.display().to_string()];
    let arguments: Vec<String> = arguments.into_iter().chain(place).chain(more.iter().cloned()).collect();
    run(port, &arguments, directory)
}

fn sentinel(primary: u16) -> (u16, Process) {
    let port = free_port();
    let directory = Process::directory_for("sentinel");
    let file = directory.join("sentinel.conf");
    let text = format!(
        "port {port}\nbind 127.0.0.1\ndir {}\nsentinel monitor main 127.0.0.1 {primary} 2\n\
         sentinel down-after-milliseconds main 1000\nsentinel failover-timeout main 5000\n",
        directory.display()
    );
    fs::write(&file, text).expect("a sentinel's configuration");
    let arguments = [file.display().to_string(), "--sentinel".to_owned()];
    (port, run(port, &arguments, directory).unwrap_or_else(|failure| panic!("{failure}")))
}

fn run(port: u16, arguments: &[String], directory: PathBuf) -> Result<Process, String> {
    let process = Process::start("redis-server", "redis-server", arguments, directory);
    // A process that ended in between may have left the port to somebody else: ask, then see that it is ours.
    process
        .try_wait_until("answering", PATIENCE, || ask(port, &[b"PING"]).is_ok_and(|answer| answer == b"+PONG\r\n"))?;
    if process.is_running() { Ok(process) } else { Err(format!("port {port} is somebody else's")) }
}

/// One command on a connection of its own; the answer as it came.
fn ask(port: u16, words: &[&[u8]]) -> std::io::Result<Vec<u8>> {
    let mut connection = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    connection.set_read_timeout(Some(Duration::from_secs(2)))?;
    // The end of the answer is where the answer to a second command begins. Sentinels know few others than PING.
    let end = b"$13\r\nend-of-answer\r\n";
    let mut request = encode(words);
    request.extend(encode(&[b"PING", b"end-of-answer"]));
    connection.write_all(&request)?;
    let mut answer = Vec::new();
    let mut chunk = [0; 4_096];
    while !answer.ends_with(end) {
        match connection.read(&mut chunk)? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            read => answer.extend_from_slice(&chunk[..read]),
        }
    }
    answer.truncate(answer.len() - end.len());
    Ok(answer)
}

fn encode(words: &[&[u8]]) -> Vec<u8> {
    let mut request = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        request.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        request.extend_from_slice(word);
        request.extend_from_slice(b"\r\n");
    }
    request
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_answers_forgets_and_comes_back() {
        let server = RedisServer::start();
        assert_eq!(server.command(&[b"SET", b"name", b"value"]), b"+OK\r\n");
        assert_eq!(server.command(&[b"GET", b"name"]), b"$5\r\nvalue\r\n");
        server.restart();
        assert_eq!(server.command(&[b"GET", b"name"]), b"$-1\r\n");
        server.freeze();
        assert!(ask(server.port(), &[b"PING"]).is_err());
        server.thaw();
        assert_eq!(server.command(&[b"PING"]), b"+PONG\r\n");
        server.stop();
        assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, server.port())).is_err());
    }

    #[test]
    fn a_cluster_and_sentinels_get_well() {
        assert_eq!(RedisCluster::start().servers.len(), 3);
        assert!(Sentinels::start().url().starts_with("redis-sentinel://127.0.0.1:"));
    }
}
