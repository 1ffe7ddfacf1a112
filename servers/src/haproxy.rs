//! HAProxy in front of a fleet, with the very configuration that a container deployment has, but for where it listens
//! and what stands behind it.

use std::fs;
use std::time::Duration;

use crate::http;
use crate::process::{Process, free_port};

const PATIENCE: Duration = Duration::from_secs(10);

/// What a container deployment mounts.
const DEPLOYED: &str = include_str!("../../deploy/haproxy.cfg");

/// One that stands behind it: a name and `host:port`.
#[derive(Clone, Debug)]
pub struct Behind {
    /// As in its configuration and statistics.
    pub name: String,
    /// Where it listens.
    pub address: String,
}

/// A running HAProxy.
pub struct Haproxy {
    port: u16,
    operations: u16,
    process: Process,
}

impl Haproxy {
    /// Starts one on this port of 127.0.0.1, or on a free one.
    ///
    /// # Errors
    ///
    /// With the end of its log, if it does not start.
    ///
    /// # Panics
    ///
    /// If it is not installed.
    pub fn start(port: Option<u16>, gateways: &[Behind], apis: &[Behind]) -> Result<Haproxy, String> {
        let (port, operations) = (port.unwrap_or_else(free_port), free_port());
        let directory = Process::directory_for("haproxy");
        let file = directory.join("haproxy.cfg");
        fs::write(&file, configuration(DEPLOYED, [port, operations], [gateways, apis]))
            .expect("a configuration of haproxy");
        let arguments = ["-db", "-f", &file.display().to_string()].map(str::to_owned);
        let process = Process::start("haproxy", "haproxy", &arguments, directory);
        process.try_wait_until("answering", PATIENCE, || http::get(operations, "/;csv").is_some())?;
        if process.is_running() {
            Ok(Haproxy { port, operations, process })
        } else {
            Err(format!("port {port} or {operations} is somebody else's"))
        }
    }

    /// `127.0.0.1:port`, where clients connect.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// `http://127.0.0.1:port`, where it says how everybody is.
    pub fn operations_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.operations)
    }

    /// Whether it sends new connections there.
    pub fn sends_to(&self, name: &str) -> bool {
        let statistics = http::get(self.operations, "/;csv").unwrap_or_default();
        let mut lines = statistics.lines().map(|line| line.split(',').collect::<Vec<_>>());
        let Some(status) = lines.next().and_then(|head| head.iter().position(|column| *column == "status")) else {
            return false;
        };
        let line = lines.find(|line| line.get(1) == Some(&name));
        line.and_then(|line| line.get(status).copied()).is_some_and(|status| status.starts_with("UP"))
    }

    /// The process.
    pub fn process(&self) -> &Process {
        &self.process
    }
}

/// The deployed text with other `bind` lines, in order, and each backend's `server` lines.
fn configuration(deployed: &str, ports: [u16; 2], behind: [&[Behind]; 2]) -> String {
    let mut text = String::new();
    let mut ports = ports.into_iter();
    let mut backends = behind.into_iter();
    let mut servers: &[Behind] = &[];
    for line in deployed.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["bind", ..] => {
                let port = ports.next().expect("a port for each bind line");
                text.push_str(&format!("    bind 127.0.0.1:{port}\n"));
                continue;
            }
            ["backend", _] => servers = backends.next().expect("servers for each backend"),
            ["server", ..] => {
                for server in std::mem::take(&mut servers) {
                    text.push_str(&format!("    server {} {}\n", server.name, server.address));
                }
                continue;
            }
            _ => {}
        }
        text.push_str(line);
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn behind(names: &[&str], port: u16) -> Vec<Behind> {
        let behind = |name: &&str| Behind { name: (*name).to_owned(), address: format!("127.0.0.1:{port}") };
        names.iter().map(behind).collect()
    }

    #[test]
    fn only_places_differ_from_what_is_deployed() {
        let (gateways, apis) = (behind(&["gateway-1", "gateway-2"], 1), behind(&["api-1"], 2));
        let ours = configuration(DEPLOYED, [3, 4], [&gateways, &apis]);
        let is_place = |line: &&str| ["bind ", "server "].iter().any(|word| line.trim_start().starts_with(word));
        let places: Vec<&str> = ours.lines().filter(is_place).map(str::trim).collect();
        let expected = [
            "bind 127.0.0.1:3",
            "server gateway-1 127.0.0.1:1",
            "server gateway-2 127.0.0.1:1",
            "server api-1 127.0.0.1:2",
            "bind 127.0.0.1:4",
        ];
        assert_eq!(places, expected);
        let rest = |text: &'static str| text.lines().filter(|line| !is_place(line));
        assert!(rest(DEPLOYED).eq(rest(ours.leak())));
    }

    #[test]
    fn nobody_is_sent_where_nobody_listens() {
        let port = free_port();
        let haproxy = Haproxy::start(None, &behind(&["gateway-1"], port), &behind(&["api-1"], port)).expect("a start");
        let gone = || !haproxy.sends_to("gateway-1") && !haproxy.sends_to("api-1");
        haproxy.process().wait_until("without anybody behind it", PATIENCE, gone);
        assert!(http::get(haproxy.port, "/readyz").is_none());
    }
}
