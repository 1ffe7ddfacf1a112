//! What a process has used, from `/proc`.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

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
    fn knows_this_process_and_not_another() {
        assert!(Used::by(std::process::id()).unwrap().rss_bytes > 0);
        assert!(Used::by(u32::MAX).unwrap_err().to_string().contains("--server-pid"));
    }
}
