//! The file that `./fleet` writes about what it runs.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::address::Address;
use crate::process::Role;

/// A running fleet, as it describes itself.
#[derive(Debug, Deserialize)]
pub struct FleetFile {
    url: String,
    #[serde(default)]
    secret_file: Option<PathBuf>,
    /// What another process of `nearby` has to have in its environment to be one of this fleet.
    #[serde(default)]
    pub variables: BTreeMap<String, String>,
    processes: BTreeMap<String, Vec<FleetProcess>>,
}

#[derive(Debug, Deserialize)]
struct FleetProcess {
    #[serde(default)]
    address: String,
    pid: u32,
}

impl FleetFile {
    /// Reads it; an error if it is not there, as when the fleet does not run.
    pub fn read(path: &Path) -> Result<FleetFile> {
        let read = || anyhow::Ok(serde_json::from_str(&fs::read_to_string(path)?)?);
        read().with_context(|| format!("{} (--fleet): is the fleet running?", path.display()))
    }

    /// The file with the secret that tokens are signed with.
    pub fn secret_file(&self) -> Option<&Path> {
        self.secret_file.as_deref()
    }

    /// Every kind of process, with all of its kind.
    pub fn roles(&self) -> Vec<Role> {
        let pids = |of: &[FleetProcess]| of.iter().map(|process| process.pid).collect();
        self.processes.iter().map(|(name, of)| Role { name: name.clone(), pids: pids(of) }).collect()
    }

    /// Where the balancer takes connections and requests.
    pub fn front(&self) -> Result<Address> {
        websocket(self.url.trim_start_matches("http://"))
    }

    /// Every gateway itself, past the balancer.
    pub fn gateways(&self) -> Result<Vec<Address>> {
        self.addresses("gateway").map(websocket).collect()
    }

    /// `host:port` of every process of a kind.
    pub fn addresses(&self, role: &str) -> impl Iterator<Item = &str> {
        self.processes.get(role).into_iter().flatten().map(|process| process.address.as_str())
    }
}

fn websocket(authority: &str) -> Result<Address> {
    format!("ws://{authority}/v1/ws").parse().map_err(anyhow::Error::msg)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fleet_says_where_everything_is() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let text = r#"{"url": "http://127.0.0.1:1", "secret_file": "s", "variables": {"NEARBY_A": "b"}, "processes": {
            "gateway": [{"name": "gateway-1", "address": "127.0.0.1:2", "pid": 3},
                        {"name": "gateway-2", "address": "127.0.0.1:4", "pid": 5}],
            "pubsub": [{"name": "pubsub-1", "address": "127.0.0.1:6", "pid": 7}]}}"#;
        fs::write(file.path(), text).unwrap();
        let fleet = FleetFile::read(file.path()).unwrap();
        assert_eq!(fleet.roles(), ["gateway=3,5".parse().unwrap(), "pubsub=7".parse().unwrap()]);
        assert_eq!(fleet.front().unwrap().to_string(), "ws://127.0.0.1:1/v1/ws");
        let gateways: Vec<String> = fleet.gateways().unwrap().iter().map(Address::to_string).collect();
        assert_eq!(gateways, ["ws://127.0.0.1:2/v1/ws", "ws://127.0.0.1:4/v1/ws"]);
        assert_eq!(fleet.addresses("pubsub").collect::<Vec<_>>(), ["127.0.0.1:6"]);
        assert_eq!(fleet.addresses("none").count(), 0);
        assert_eq!(fleet.secret_file(), Some(Path::new("s")));
        assert_eq!(fleet.variables["NEARBY_A"], "b");
    }

    #[test]
    fn who_has_no_fleet_is_asked_whether_it_runs() {
        let error = FleetFile::read(Path::new("/nonexistent")).unwrap_err();
        assert!(format!("{error:#}").contains("is the fleet running?"));
    }
}
