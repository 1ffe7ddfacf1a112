//! What a process has used, from `/proc`.

use std::fs;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::fleet::FleetFile;

/// Files open beside the people's sockets: REST, the runtime, the standard streams.
const OTHER_FILES: u64 = 256;

/// `USER_HZ`: what `/proc` counts CPU time in, 100 on every Linux platform that Rust has.
const TICKS_PER_S: f64 = 100.0;

/// CPU time and memory.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Used {
    /// User and system time of all threads.
    pub cpu: Duration,
    /// Resident memory.
    pub rss_bytes: u64,
}

impl Used {
    /// What this process has used so far.
    pub fn by(pid: u32) -> Result<Used> {
        let read = |what: &str| {
            fs::read_to_string(format!("/proc/{pid}/{what}"))
                .with_context(|| format!("no process {pid} (--server-pid)"))
        };
        let cpu = cpu(&read("stat")?).context("cannot read the CPU time of the process")?;
        let rss_bytes = rss(&read("status")?).context("cannot read the memory of the process")?;
        Ok(Used { cpu, rss_bytes })
    }
}

/// Processes that do the same work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Role {
    /// What they are.
    pub name: String,
    /// Which they are.
    pub pids: Vec<u32>,
}

impl FromStr for Role {
    type Err = String;

    /// `gateway=17,18`, or `17` alone for a server.
    fn from_str(text: &str) -> Result<Role, String> {
        let (name, pids) = text.split_once('=').unwrap_or(("server", text));
        let pids: Result<Vec<u32>, _> = pids.split(',').map(str::parse).collect();
        match pids {
            Ok(pids) if !name.is_empty() => Ok(Role { name: name.to_owned(), pids }),
            _ => Err("must be a process id, or ROLE=PID,PID..".into()),
        }
    }
}

impl Role {
    /// All of its processes together.
    pub fn used(&self) -> Result<Used> {
        let mut all = Used { cpu: Duration::ZERO, rss_bytes: 0 };
        for &pid in &self.pids {
            let used = Used::by(pid)?;
            all.cpu += used.cpu;
            all.rss_bytes += used.rss_bytes;
        }
        Ok(all)
    }
}

/// Whose CPU time and memory are reported.
#[derive(Args, Debug, Clone, Default)]
pub struct Watched {
    /// Processes whose CPU time and memory are reported, each role apart: `gateway=17,18`, or the server's id alone.
    /// May be given several times.
    #[arg(long, value_name = "ROLE=PID,..")]
    pub server_pid: Vec<Role>,
    /// The same for all processes of a fleet: the file that `./fleet` writes.
    #[arg(long, value_name = "FILE", conflicts_with = "server_pid")]
    pub fleet: Option<PathBuf>,
}

impl Watched {
    /// Every role, and an error if one of its processes is not there.
    pub fn roles(&self) -> Result<Vec<Role>> {
        match &self.fleet {
            Some(file) => Ok(FleetFile::read(file)?.roles()),
            None => Ok(self.server_pid.clone()),
        }
    }
}

/// Raises this process's limit of open files, so that so many sockets fit.
pub fn allow_sockets(count: usize) -> Result<()> {
    let limit = getrlimit(Resource::Nofile);
    let needed = count as u64 + OTHER_FILES;
    if limit.current.is_some_and(|current| current < needed) {
        let raised = Rlimit { current: limit.maximum.map(|most| most.max(needed)).or(Some(needed)), ..limit };
        setrlimit(Resource::Nofile, raised)
            .with_context(|| format!("{count} sockets need `ulimit -n {needed}`, for this process and the server"))?;
    }
    Ok(())
}

fn cpu(stat: &str) -> Option<Duration> {
    // The second field is the name in brackets, which may hold anything; the third follows the last bracket.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut times = fields.split_whitespace().skip(11).map(|field| field.parse::<u64>().ok());
    let ticks = times.next()?? + times.next()??;
    Some(Duration::from_secs_f64(ticks as f64 / TICKS_PER_S))
}

fn rss(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_fields_that_proc_5_says() {
        let stat = "42 (a b) c) S 1 42 42 0 -1 4194304 100 0 0 0 250 50 0 0 20 0 3 0 100 1000 10";
        assert_eq!(cpu(stat), Some(Duration::from_secs(3)));
        assert_eq!(rss("Name:\tx\nVmRSS:\t    2048 kB\n"), Some(2 * 1024 * 1024));
    }

    #[test]
    fn roles_are_named_or_the_server() {
        assert_eq!("7".parse(), Ok(Role { name: "server".into(), pids: vec![7] }));
        assert_eq!("redis=1,22".parse(), Ok(Role { name: "redis".into(), pids: vec![1, 22] }));
        for bad in ["", "x", "=1", "a=", "a=1,", "-1"] {
            assert!(bad.parse::<Role>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_role_uses_what_its_processes_use() {
        let role = Role { name: "this".into(), pids: vec![std::process::id()] };
        let twice = Role { pids: vec![std::process::id(); 2], ..role.clone() };
        assert!(twice.used().unwrap().rss_bytes > role.used().unwrap().rss_bytes * 3 / 2);
        assert!(Role { pids: vec![u32::MAX], ..role }.used().is_err());
    }

    #[test]
    fn knows_this_process_and_not_another() {
        assert!(Used::by(std::process::id()).unwrap().rss_bytes > 0);
        assert!(Used::by(u32::MAX).unwrap_err().to_string().contains("--server-pid"));
    }
}
