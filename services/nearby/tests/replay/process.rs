//! A process of the executable.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use crate::TTL_S;

/// A server, killed when dropped.
pub(crate) struct Nearby {
    process: Child,
    pub(crate) address: String,
}

impl Nearby {
    /// Serves on a free port.
    pub(crate) fn serve(arguments: &[&str]) -> Nearby {
        let mut process = Command::new(env!("CARGO_BIN_EXE_nearby"))
            .env("NEARBY_LOCATION__TTL_S", TTL_S)
            .env("NEARBY_LIMITS__UPDATES_PER_SECOND", "100")
            .args(["serve", "--listen", "127.0.0.1:0"])
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.split("http://").nth(1).and_then(|rest| rest.split(' ').next()).expect("an address");
        Nearby { address: address.to_owned(), process }
    }
}

impl Drop for Nearby {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
