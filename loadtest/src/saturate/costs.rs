//! What the processes under load used, and the kernel for their sockets.

use std::fs;
use std::time::Duration;

use serde::Serialize;

use crate::process::{Role, Used};
use crate::report::rounded;

/// What a role used in a window.
#[derive(Clone, Debug, Serialize)]
pub struct Spent {
    /// Which.
    pub role: String,
    /// CPU seconds, user and kernel, of all its threads.
    pub cpu_s: f64,
    /// Of one core.
    pub cpu_percent: f64,
    /// All of its CPU time, divided by the updates sent.
    pub us_per_update: f64,
    /// The same, divided by the `friend` and `gone` frames received, if there were any: what an update costs by itself is
    /// in it.
    pub us_per_push: Option<f64>,
    /// Resident memory at the end.
    pub rss_bytes: u64,
}

impl Spent {
    pub(crate) fn new(role: &Role, before: Used, after: Used, window: Duration, updates: u64, pushes: u64) -> Spent {
        let cpu_s = after.cpu.saturating_sub(before.cpu).as_secs_f64();
        let per = |count: u64| rounded(cpu_s * 1e6 / count.max(1) as f64);
        Spent {
            role: role.name.clone(),
            cpu_s: rounded(cpu_s),
            cpu_percent: rounded(100.0 * cpu_s / window.as_secs_f64().max(0.001)),
            us_per_update: per(updates),
            us_per_push: (pushes > 0).then(|| per(pushes)),
            rss_bytes: after.rss_bytes,
        }
    }
}

/// Kernel objects of a socket: the socket, its file, its place in an epoll, small heads of packets.
const SLABS: [&str; 9] = [
    "TCP",
    "TCPv6",
    "sock_inode_cache",
    "filp",
    "eventpoll_epi",
    "eventpoll_pwq",
    "ep_head",
    "skbuff_head_cache",
    "skbuff_small_head",
];
const PAGE_BYTES: u64 = 4_096;

/// Memory that the kernel holds for all sockets of this machine; `None` if this process may not know (only root may).
/// Both ends are in it when both are here.
pub(crate) fn kernel_socket_bytes() -> Option<u64> {
    let slabs = fs::read_to_string("/proc/slabinfo").ok()?;
    let sockets = fs::read_to_string("/proc/net/sockstat").ok()?;
    Some(slab_bytes(&slabs) + buffer_bytes(&sockets)?)
}

fn slab_bytes(slabinfo: &str) -> u64 {
    let bytes = |line: &str| {
        let mut fields = line.split_whitespace();
        let known = fields.next().is_some_and(|name| SLABS.contains(&name));
        let objects: u64 = fields.nth(1)?.parse().ok()?;
        let size: u64 = fields.next()?.parse().ok()?;
        known.then_some(objects * size)
    };
    slabinfo.lines().filter_map(bytes).sum()
}

fn buffer_bytes(sockstat: &str) -> Option<u64> {
    let line = sockstat.lines().find_map(|line| line.strip_prefix("TCP:"))?;
    let pages = line.split_whitespace().skip_while(|&word| word != "mem").nth(1)?;
    Some(pages.parse::<u64>().ok()? * PAGE_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_in_the_kernel_are_counted_by_their_objects_and_buffers() {
        let slabs = "slabinfo - version: 2.1\n# name <active_objs> <num_objs> <objsize>\n\
            TCP 3 10 2000 13 8 : tunables\nfilp 1 100 192 16\nvm_area_struct 9 9 9 9\n";
        assert_eq!(slab_bytes(slabs), 10 * 2_000 + 100 * 192);
        assert_eq!(buffer_bytes("sockets: used 1\nTCP: inuse 1 orphan 0 tw 2 alloc 5 mem 7\n"), Some(7 * 4_096));
    }
}
