//! `idle`: what connections cost that do nothing.
//!
//! People stand in a ring, each a friend of the next `friends / 2` on either side, and at a fixed distance from their
//! neighbours: with 400 friends and 400 m, about 40 of them are near, as the design expects of a user.

use std::cell::Cell;
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;
use model::{Position, UserId};
use serde::Serialize;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::clock::wall_ms;
use crate::process::{self, Role, Used};
use crate::replay::{Server, bar, note};
use crate::report::{megabytes, rounded, row};
use crate::rest::Rest;
use crate::socket::{Incoming, Socket};
use crate::token::Tokens;
use crate::wire::{self, Frame};

/// A server that does not answer for so long is not there.
const ANSWER: Duration = Duration::from_secs(30);
/// A degree of latitude.
const DEGREE_M: f64 = 111_195.0;

/// How many, and how befriended.
#[derive(Args, Debug, Clone)]
pub struct Options {
    /// The server.
    #[command(flatten)]
    pub server: Server,
    /// Connections to open.
    #[arg(long, default_value_t = 1_000)]
    pub connections: u32,
    /// Friends of each, connected or not; an even number.
    #[arg(long, default_value_t = 40)]
    pub friends: u32,
    /// The share of all people who are connected.
    #[arg(long, default_value_t = 1.0)]
    pub online_share: f64,
    /// Between neighbours, in metres.
    #[arg(long, default_value_t = 400.0)]
    pub spacing_m: f64,
    /// How long to look on, in seconds.
    #[arg(long, default_value_t = 30)]
    pub window: u64,
    /// How long to let the server come to rest first, in seconds.
    #[arg(long, default_value_t = 5)]
    pub settle: u64,
}

/// The people of the ring.
#[derive(Clone, Copy, Debug)]
struct Ring {
    base: u64,
    people: u32,
    friends: u32,
    online_share: f64,
    spacing_m: f64,
}

impl Ring {
    fn user(&self, person: u32) -> UserId {
        UserId(self.base + u64::from(person))
    }

    /// Whether this person connects: the connected are spread evenly.
    fn is_online(&self, person: u32) -> bool {
        let until = |person: f64| (person * self.online_share + 1e-9).floor();
        until(f64::from(person) + 1.0) > until(f64::from(person))
    }

    /// Friendships, each once; those between two people who never connect change nothing and are left out.
    fn friendships(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        let ahead = move |person| (1..=self.friends / 2).map(move |step| (person, (person + step) % self.people));
        (0..self.people).flat_map(ahead).filter(|&(person, friend)| self.is_online(person) || self.is_online(friend))
    }

    /// A line northwards, and the next beside it when it gets too far.
    fn position(&self, person: u32) -> Result<Position> {
        let north = f64::from(person) * self.spacing_m / DEGREE_M;
        Position::new(-60.0 + north % 120.0, (north / 120.0).floor() % 180.0).context("no such place (--spacing-m)")
    }
}

/// What was found.
#[derive(Clone, Debug, Serialize)]
pub struct Findings {
    /// Connections open.
    pub connections: u32,
    /// Friends of each.
    pub friends: u32,
    /// Of all people.
    pub online_share: f64,
    /// Friendships made.
    pub friendships: usize,
    /// What making users and friendships took.
    pub setup_s: f64,
    /// What connecting took.
    pub connect_s: f64,
    /// Friends on all pages received.
    pub shown: u64,
    /// Connections that the server ended.
    pub lost: u32,
    /// The part of each role of the server, of those that are known.
    pub servers: Vec<Idle>,
}

/// What idle connections cost the processes of one role, together.
#[derive(Clone, Debug, Serialize)]
pub struct Idle {
    /// Which.
    pub role: String,
    /// Resident memory before the first connection.
    pub rss_before_bytes: u64,
    /// And with all of them.
    pub rss_after_bytes: u64,
    /// The difference for each; what the kernel holds is not in it.
    pub rss_per_connection_bytes: f64,
    /// The same for those of the second half, who find the server's own caches filled: what each more will take.
    pub rss_per_further_connection_bytes: f64,
    /// CPU for opening one.
    pub connect_us: f64,
    /// CPU of one in a second.
    pub idle_us_per_s: f64,
}

/// What all connections share.
struct Crowd {
    ring: Ring,
    options: Options,
    tokens: Tokens,
    gate: Semaphore,
    listed: Cell<u32>,
    shown: Cell<u64>,
    lost: Cell<u32>,
}

/// Opens the connections, looks on, and reports.
pub async fn run(options: Options) -> Result<Findings> {
    ensure!(options.online_share > 0.0 && options.online_share <= 1.0, "--online-share must be above 0 and at most 1");
    ensure!(
        options.connections > 0 && options.friends.is_multiple_of(2),
        "--connections must be above 0, --friends even"
    );
    let people = (f64::from(options.connections) / options.online_share).ceil() as u32;
    ensure!(options.friends < people, "--friends must be fewer than the {people} people there are");
    let Options { friends, online_share, spacing_m, .. } = options;
    let ring = Ring { base: options.server.access.user_base, people, friends, online_share, spacing_m };
    let tokens = options.server.access.tokens()?;
    process::allow_sockets(options.connections as usize)?;
    let began = Instant::now();
    let friendships = set_up(&options, &ring, &tokens).await?;
    let setup_s = rounded(began.elapsed().as_secs_f64());
    let gate = Semaphore::new(options.server.access.at_once.into());
    let crowd = Crowd { ring, tokens, gate, options, listed: Cell::new(0), shown: Cell::new(0), lost: Cell::new(0) };
    observe(Rc::new(crowd), friendships, setup_s).await
}

async fn set_up(options: &Options, ring: &Ring, tokens: &Tokens) -> Result<usize> {
    let friendships = ring.friendships().count();
    note(&format!("{} people, {} connections, {friendships} friendships", ring.people, options.connections));
    if options.server.access.skip_setup {
        return Ok(friendships);
    }
    let began = Instant::now();
    let rest = Rest::new(options.server.url.clone(), &tokens.backend()?);
    let at_once = options.server.access.at_once.into();
    let users = bar(ring.people.into(), "users {bar:40} {pos}/{len}, {per_sec}");
    rest.put_users((0..ring.people).map(|person| ring.user(person)), at_once, &users).await?;
    users.finish_and_clear();
    let made = bar(friendships as u64, "friendships {bar:40} {pos}/{len}, {per_sec}, {eta} left");
    let pairs = ring.friendships().map(|(person, friend)| (ring.user(person), ring.user(friend)));
    rest.befriend_all(pairs, at_once, &made).await?;
    made.finish_and_clear();
    note(&format!("made in {:.1} s", began.elapsed().as_secs_f64()));
    Ok(friendships)
}

async fn observe(crowd: Rc<Crowd>, friendships: usize, setup_s: f64) -> Result<Findings> {
    let options = &crowd.options;
    let roles = options.server.access.watched.roles()?;
    let used = || roles.iter().map(Role::used).collect::<Result<Vec<Used>>>();
    let before = used()?;
    let began = Instant::now();
    let (over, watching) = watch::channel(false);
    let mut connections = JoinSet::new();
    let online = (0..crowd.ring.people).filter(|&person| crowd.ring.is_online(person));
    for person in online.take(options.connections as usize) {
        connections.spawn_local(sit(crowd.clone(), person, watching.clone()));
    }
    let opened = connections.len() as u32;
    let open = bar(opened.into(), "connecting {bar:40} {pos}/{len}, {per_sec}");
    let mut half_way = None;
    while crowd.listed.get() < opened {
        if half_way.is_none() && crowd.listed.get() >= opened / 2 {
            half_way = Some((crowd.listed.get(), used()?));
        }
        open.set_position(crowd.listed.get().into());
        tokio::select! {
            () = sleep(Duration::from_millis(10)) => {}
            Some(ended) = connections.join_next() => ended?.context("a person could not connect")?,
        }
    }
    open.finish_and_clear();
    let connect_s = rounded(began.elapsed().as_secs_f64());
    sleep(Duration::from_secs(options.settle)).await;
    let settled = used()?;
    note(&format!("{opened} connections open; looking on for {} s", options.window));
    let window = Instant::now();
    sleep(Duration::from_secs(options.window)).await;
    let (after, window) = (used()?, window.elapsed());
    let lost = crowd.lost.get();
    over.send_replace(true);
    while let Some(ended) = connections.join_next().await {
        ended??;
    }
    // All may have come between two looks.
    let (early, half_way) = half_way.unwrap_or_else(|| (0, before.clone()));
    let looks = [before, half_way, settled, after];
    let servers = roles.into_iter().enumerate();
    let servers = servers.map(|(at, role)| cost(role, early, opened, looks.each_ref().map(|look| look[at]), window));
    let servers = servers.collect();
    let (friends, online_share) = (crowd.ring.friends, crowd.ring.online_share);
    let shown = crowd.shown.get();
    Ok(Findings { connections: opened, friends, online_share, friendships, setup_s, connect_s, shown, lost, servers })
}

/// By what was used before the first of the connections, when the `early` ones were open, when all were, and after a
/// while of nothing.
fn cost(role: Role, early: u32, all: u32, used: [Used; 4], window: Duration) -> Idle {
    let [before, half_way, settled, after] = used;
    let each = |cpu: Duration| cpu.as_secs_f64() * 1e6 / f64::from(all);
    let growth = |since: Used, of: u32| (after.rss_bytes as f64 - since.rss_bytes as f64) / f64::from(of);
    Idle {
        role: role.name,
        rss_before_bytes: before.rss_bytes,
        rss_after_bytes: after.rss_bytes,
        rss_per_connection_bytes: growth(before, all),
        rss_per_further_connection_bytes: growth(half_way, all - early),
        connect_us: rounded(each(settled.cpu.saturating_sub(before.cpu))),
        idle_us_per_s: rounded(each(after.cpu.saturating_sub(settled.cpu)) / window.as_secs_f64().max(0.001)),
    }
}

/// One connection: says where it is, reads its whole list, then only listens.
async fn sit(crowd: Rc<Crowd>, person: u32, mut over: watch::Receiver<bool>) -> Result<()> {
    let token = crowd.tokens.user(crowd.ring.user(person))?;
    let mut socket = {
        let _permit = crowd.gate.acquire().await?;
        let mut socket = timeout(ANSWER, Socket::open(&crowd.options.server.url, &token)).await??;
        socket.init(crowd.ring.position(person)?, wall_ms(), None).await?;
        timeout(ANSWER, read_list(&crowd, &mut socket)).await.context("no answer to `init`")??;
        socket
    };
    crowd.listed.update(|listed| listed + 1);
    loop {
        tokio::select! {
            incoming = socket.next() => if let Incoming::Closed(_) = incoming {
                crowd.lost.update(|lost| lost + 1);
                return Ok(());
            },
            _ = over.changed() => return Ok(()),
        }
    }
}

async fn read_list(crowd: &Crowd, socket: &mut Socket) -> Result<()> {
    loop {
        let Incoming::Text(text) = socket.next().await else {
            anyhow::bail!("the server ended a connection that had just begun");
        };
        match wire::read(&text) {
            Some(Frame::Nearby(page)) => {
                crowd.shown.update(|shown| shown + page.friends.len() as u64);
                match page.next_cursor {
                    Some(cursor) => socket.more(&cursor).await?,
                    None => return Ok(()),
                }
            }
            Some(Frame::Error(code)) => anyhow::bail!("the server answered `init` with the error {code}"),
            _ => {}
        }
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        row(f, "connections", self.connections)?;
        row(f, "friends of each", self.friends)?;
        row(f, "share connected", self.online_share)?;
        row(f, "friendships", format!("{}, made in {} s", self.friendships, self.setup_s))?;
        row(f, "connected in", format!("{} s", self.connect_s))?;
        row(f, "friends on pages", self.shown)?;
        row(f, "connections lost", self.lost)?;
        if self.servers.is_empty() {
            row(f, "server", "unknown: give --server-pid or --fleet")?;
        }
        for server in &self.servers {
            row(f, &format!("{} memory", server.role), megabytes(server.rss_before_bytes, server.rss_after_bytes))?;
            row(f, "  per connection", format!("{:.1} KiB", server.rss_per_connection_bytes / 1024.0))?;
            let further = server.rss_per_further_connection_bytes / 1024.0;
            row(f, "  of the second half", format!("{further:.1} KiB"))?;
            row(f, "  CPU to connect", format!("{} us", server.connect_us))?;
            row(f, "  CPU idle", format!("{} us per connection and second", server.idle_us_per_s))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring(people: u32, friends: u32, online_share: f64) -> Ring {
        Ring { base: 0, people, friends, online_share, spacing_m: 400.0 }
    }

    #[test]
    fn what_fills_a_cache_once_is_not_in_the_memory_of_further_connections() {
        let used = |kib: u64, ms| Used { cpu: Duration::from_millis(ms), rss_bytes: kib * 1_024 };
        let role = Role { name: "gateway".to_owned(), pids: Vec::new() };
        let (before, half_way) = (used(1_000, 10), used(1_500, 40));
        let cost = cost(role, 40, 100, [before, half_way, used(1_620, 60), used(1_620, 70)], Duration::from_secs(10));
        assert_eq!(
            (cost.rss_per_connection_bytes, cost.rss_per_further_connection_bytes),
            (6.2 * 1_024.0, 2.0 * 1_024.0)
        );
        assert_eq!((cost.connect_us, cost.idle_us_per_s), (500.0, 10.0));
    }

    #[test]
    fn everybody_has_as_many_friends_as_asked_for_each_once() {
        let ring = ring(20, 6, 1.0);
        let mut friends = [0; 20];
        let mut seen = rustc_hash::FxHashSet::default();
        for (person, friend) in ring.friendships() {
            assert!(seen.insert((person.min(friend), person.max(friend))));
            friends[person as usize] += 1;
            friends[friend as usize] += 1;
        }
        assert_eq!(friends, [6; 20]);
    }

    #[test]
    fn as_many_are_online_as_asked_for() {
        let ring = ring(1_000, 40, 0.1);
        assert_eq!((0..1_000).filter(|&person| ring.is_online(person)).count(), 100);
        assert!(ring.friendships().all(|(person, friend)| ring.is_online(person) || ring.is_online(friend)));
    }

    #[test]
    fn neighbours_stand_as_far_apart_as_asked_for() {
        let ring = ring(200_000, 40, 1.0);
        let far = model::haversine(ring.position(5).unwrap(), ring.position(6).unwrap()).0;
        assert!((far - 400.0).abs() < 1.0, "{far}");
        assert!((0..200_000).all(|person| ring.position(person).is_ok()));
    }
}
