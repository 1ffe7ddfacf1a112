//! `etcd`, alone or three of them. Killed, one comes back with its data.

use std::time::Duration;

use parking_lot::Mutex;

use crate::http::exchange;
use crate::process::{Data, Process, Status, free_port};

const PATIENCE: Duration = Duration::from_secs(20);

/// One member.
pub struct EtcdServer {
    place: Place,
    process: Mutex<Process>,
    // Dropped after the process that writes to it.
    data: Data,
}

/// Where a member is found; its peers find it 10,000 ports above.
struct Place {
    name: String,
    port: u16,
    /// All members of its cluster, as etcd's `--initial-cluster`.
    cluster: String,
}

impl EtcdServer {
    /// Starts one that is a cluster by itself.
    ///
    /// # Panics
    ///
    /// If it cannot be started.
    pub fn start() -> EtcdServer {
        let mut last = String::new();
        for _ in 0..5 {
            let server = match EtcdServer::launch(places(1).remove(0)) {
                Ok(server) => server,
                Err(failure) => {
                    last = failure;
                    continue;
                }
            };
            match server.await_health() {
                Ok(()) => return server,
                Err(failure) => last = failure,
            }
        }
        panic!("{last}");
    }

    /// `http://127.0.0.1:port`.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.place.port)
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

    /// Starts a killed one again, with its data, on the same port, and waits until its cluster has a leader.
    ///
    /// # Panics
    ///
    /// If it cannot be started.
    pub fn restart(&self) {
        {
            let mut process = self.process.lock();
            process.kill();
            *process = self.place.run(&self.data);
        }
        self.await_health().unwrap_or_else(|failure| panic!("{failure}"));
    }

    /// Asks the JSON gateway, for what a test does behind a backend's back.
    ///
    /// # Panics
    ///
    /// If it does not answer with 200.
    pub fn ask(&self, path: &str, question: &str) -> String {
        let request =
            format!("POST {path} HTTP/1.0\r\nHost: etcd\r\nContent-Length: {}\r\n\r\n{question}", question.len());
        let answer = exchange(self.place.port, &request).unwrap_or_else(|error| panic!("{path}: {error}"));
        let (head, body) = answer.split_once("\r\n\r\n").expect("an answer with a head");
        assert!(head.lines().next().is_some_and(|status| status.contains(" 200 ")), "{path}: {answer}");
        body.to_owned()
    }

    fn launch(place: Place) -> Result<EtcdServer, String> {
        let data = Data(Process::directory_for("etcd-data"));
        let process = Mutex::new(place.run(&data));
        Ok(EtcdServer { place, process, data })
    }

    fn await_health(&self) -> Result<(), String> {
        let process = self.process.lock();
        process.try_wait_until("healthy", PATIENCE, || {
            exchange(self.place.port, "GET /health HTTP/1.0\r\nHost: etcd\r\n\r\n")
                .is_ok_and(|answer| answer.contains(r#""health":"true""#))
        })?;
        if process.is_running() { Ok(()) } else { Err(format!("port {} is somebody else's", self.place.port)) }
    }
}

/// Three members of one cluster.
pub struct EtcdCluster {
    /// The members.
    pub members: Vec<EtcdServer>,
}

impl EtcdCluster {
    /// Starts three and waits until each knows a leader.
    ///
    /// # Panics
    ///
    /// If one cannot be started.
    pub fn start() -> EtcdCluster {
        let members: Result<Vec<EtcdServer>, String> = places(3).into_iter().map(EtcdServer::launch).collect();
        let members = members.unwrap_or_else(|failure| panic!("{failure}"));
        for member in &members {
            member.await_health().unwrap_or_else(|failure| panic!("{failure}"));
        }
        EtcdCluster { members }
    }

    /// Of all members.
    pub fn endpoints(&self) -> Vec<String> {
        self.members.iter().map(EtcdServer::endpoint).collect()
    }

    /// Which member leads, if one does.
    pub fn leader(&self) -> Option<usize> {
        self.members.iter().position(|member| {
            let status = member.ask("/v3/maintenance/status", "{}");
            let field = |name: &str| {
                let (_, rest) = status.split_once(&format!("\"{name}\":\""))?;
                rest.split('"').next().map(str::to_owned)
            };
            field("leader").is_some() && field("leader") == field("member_id")
        })
    }
}

impl Place {
    fn run(&self, data: &Data) -> Process {
        let client = format!("http://127.0.0.1:{}", self.port);
        let peer = format!("http://127.0.0.1:{}", peer_port(self.port));
        let options = [
            ("--name", self.name.as_str()),
            ("--data-dir", &data.0.display().to_string()),
            ("--listen-client-urls", &client),
            ("--advertise-client-urls", &client),
            ("--listen-peer-urls", &peer),
            ("--initial-advertise-peer-urls", &peer),
            ("--initial-cluster", &self.cluster),
        ];
        let arguments: Vec<String> =
            options.iter().flat_map(|(option, value)| [(*option).to_owned(), (*value).to_owned()]).collect();
        Process::start("etcd", "etcd-server", &arguments, Process::directory_for("etcd"))
    }
}

fn places(members: usize) -> Vec<Place> {
    let ports: Vec<u16> = (0..members).map(|_| free_port()).collect();
    let named = ports.iter().enumerate().map(|(n, port)| format!("n{n}=http://127.0.0.1:{}", peer_port(*port)));
    let cluster = named.collect::<Vec<String>>().join(",");
    let place = |(n, port)| Place { name: format!("n{n}"), port, cluster: cluster.clone() };
    ports.into_iter().enumerate().map(place).collect()
}

fn peer_port(port: u16) -> u16 {
    port + 10_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_killed_server_comes_back_with_its_data() {
        let server = EtcdServer::start();
        server.ask("/v3/kv/put", r#"{"key":"bmFtZQ==","value":"dmFsdWU="}"#);
        server.kill();
        server.restart();
        assert!(server.ask("/v3/kv/range", r#"{"key":"bmFtZQ=="}"#).contains(r#""value":"dmFsdWU=""#));
    }

    #[test]
    fn three_have_a_leader() {
        assert!(EtcdCluster::start().leader().is_some());
    }
}
