//! Pairs of friends: one of the two sends all the time, the other notes what arrives and when. How long nothing came is
//! how long an outage was; nothing is taken from a server's word.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use loadtest::address::Address;
use loadtest::rest::Rest;
use loadtest::socket::{Incoming, Socket};
use loadtest::token::Tokens;
use loadtest::wire::{self, Frame, Shown};
use model::{Position, UserId};
use parking_lot::Mutex;
use servers::fleet::Fleet;
use tokio::sync::watch;
use tokio::task::LocalSet;
use tokio::time::{interval, sleep, timeout};

use crate::acquaint::acquaint_over;
use crate::http::insist;
use crate::shared_fleet::{fresh_users, tokens};
use crate::times::{percentile, until, wall_ms};

/// How many pairs there are.
const PAIRS: usize = 20;
/// How often who sends does.
const EVERY: Duration = Duration::from_millis(100);
/// A server that takes longer for a handshake is not there.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often it is looked whether this process is run in time.
const STALL_LOOK: Duration = Duration::from_millis(20);
/// Between two attempts to come back.
const RETRY: Duration = Duration::from_millis(100);

/// A position that arrived.
#[derive(Clone, Copy, Debug)]
struct Arrival {
    pair: usize,
    /// When it was sent.
    ts: u64,
    at: u64,
}

/// A connection that was lost and made again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Return {
    /// When it was lost,
    pub(crate) lost: u64,
    /// and when the new one had its first page.
    pub(crate) back: u64,
    /// What the server said at its end.
    pub(crate) code: Option<u16>,
}

#[derive(Default)]
struct Log {
    arrivals: Vec<Arrival>,
    /// The newest that each sender sent.
    sent: [u64; PAIRS],
    /// What each viewer is shown now, by the time of its sending.
    shown: BTreeMap<usize, u64>,
    returns: Vec<Return>,
    connected: usize,
    /// How late this process's own timer was, and when: what a machine without time to spare adds to everything.
    stalls: Vec<(u64, u64)>,
    wrong: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Act {
    Sends,
    Rests,
    Leaves,
}

/// What arrived in a time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    /// The longest time that any pair saw nothing, in ms.
    pub(crate) silence_ms: u64,
    /// The longest that this very process was not run meanwhile, in ms.
    pub(crate) stall_ms: u64,
    /// From sending to arrival, in ms.
    pub(crate) p50: u64,
    pub(crate) p99: u64,
    /// How many arrived.
    pub(crate) arrivals: usize,
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Window { silence_ms, stall_ms, p50, p99, arrivals } = self;
        write!(f, "{arrivals} pushes, age p50 {p50} ms, p99 {p99} ms, longest silence {silence_ms} ms")?;
        write!(f, " (own stalls up to {stall_ms} ms)")
    }
}

/// Pairs at work; they leave when dropped.
pub(crate) struct Pairs {
    base: u64,
    log: Arc<Mutex<Log>>,
    act: watch::Sender<Act>,
    thread: Option<JoinHandle<()>>,
}

impl Pairs {
    /// Makes the users, connects them through HAProxy, and waits until every pair works.
    pub(crate) fn start(fleet: &Fleet) -> Pairs {
        let base = fresh_users();
        let (act, acts) = watch::channel(Act::Sends);
        let log = Arc::new(Mutex::new(Log::default()));
        let company =
            Company { base, address: address(fleet), tokens: tokens(fleet), log: log.clone(), acts, torn: Vec::new() };
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            LocalSet::new().block_on(&runtime, company.live());
        });
        let pairs = Pairs { base, log, act, thread: Some(thread) };
        until("all pairs at work", 60.0, || pairs.log.lock().shown.len() == PAIRS);
        pairs
    }

    /// Who sends; each is the friend of the one with the next id.
    pub(crate) fn senders(&self) -> impl Iterator<Item = UserId> {
        (0..PAIRS).map(|pair| sender(self.base, pair))
    }

    /// What arrived between these times. A silence at either end counts.
    pub(crate) fn window(&self, from: u64, to: u64) -> Window {
        let log = self.log.lock();
        let arrived: Vec<&Arrival> = log.arrivals.iter().filter(|one| (from..to).contains(&one.at)).collect();
        let silence = |pair: usize| {
            let times = arrived.iter().filter(|one| one.pair == pair).map(|one| one.at);
            let times: Vec<u64> = [from].into_iter().chain(times).chain([to]).collect();
            times.windows(2).map(|two| two[1].saturating_sub(two[0])).max().unwrap_or(0)
        };
        let ages: Vec<u64> = arrived.iter().map(|one| one.at.saturating_sub(one.ts)).collect();
        let stalls = log.stalls.iter().filter(|(at, _)| (from..to).contains(at));
        Window {
            silence_ms: (0..PAIRS).map(silence).max().unwrap_or(0),
            stall_ms: stalls.map(|(_, late)| *late).max().unwrap_or(0),
            p50: percentile(&ages, 50.0),
            p99: percentile(&ages, 99.0),
            arrivals: arrived.len(),
        }
    }

    /// When the last position before this time arrived, of any pair, or the first after it.
    pub(crate) fn last_before(&self, time: u64) -> Option<u64> {
        self.log.lock().arrivals.iter().map(|one| one.at).filter(|at| *at < time).max()
    }

    /// From this time until every pair has got something that was sent after it.
    pub(crate) fn restored_after(&self, time: u64) -> Option<u64> {
        let log = self.log.lock();
        let first = |pair| log.arrivals.iter().find(|one| one.pair == pair && one.ts >= time).map(|one| one.at - time);
        (0..PAIRS).map(first).collect::<Option<Vec<u64>>>()?.into_iter().max()
    }

    /// The connections that were lost after this time.
    pub(crate) fn returns_after(&self, time: u64) -> Vec<Return> {
        self.log.lock().returns.iter().filter(|one| one.lost >= time).copied().collect()
    }

    /// Nobody sends any more. Panics unless everybody is there and holds the very last position.
    pub(crate) fn rest(&self) {
        until("all pairs connected", 15.0, || self.log.lock().connected == 2 * PAIRS);
        crate::times::pass(0.3);
        self.act.send_replace(Act::Rests);
        crate::times::pass(0.3);
        let missing = || {
            let log = self.log.lock();
            let missing = |pair: &usize| log.shown.get(pair) != Some(&log.sent[*pair]);
            (0..PAIRS).filter(missing).map(|pair| (pair, log.sent[pair], log.shown.get(&pair).copied())).collect()
        };
        let begun = wall_ms();
        loop {
            let lost: Vec<(usize, u64, Option<u64>)> = missing();
            if lost.is_empty() {
                break;
            }
            assert!(wall_ms() - begun < 3_000, "last values lost: {lost:?}");
            crate::times::pass(0.05);
        }
        let wrong = self.log.lock().wrong.clone();
        assert!(wrong.is_empty(), "{wrong:?}");
    }

    /// How many positions of the first few senders were seen by their friends, and how many of theirs are in the history.
    pub(crate) fn seen_and_kept(&self, fleet: &Fleet) -> Vec<(usize, usize)> {
        let kept = |pair: usize| {
            let user = sender(self.base, pair);
            let path = format!("/v1/users/{user}/history?limit=1000");
            let answer = insist(&fleet.address(), "GET", &path, &tokens(fleet).user(user).unwrap(), "").unwrap();
            let page: serde_json::Value = serde_json::from_str(&answer.body).unwrap_or_else(|_| panic!("{answer:?}"));
            page["items"].as_array().unwrap_or_else(|| panic!("{answer:?}")).len()
        };
        let log = self.log.lock();
        let seen = |pair: usize| -> BTreeSet<u64> {
            log.arrivals.iter().filter(|one| one.pair == pair).map(|one| one.ts).collect()
        };
        (0..3).map(|pair| (seen(pair).len(), kept(pair))).collect()
    }
}

impl Drop for Pairs {
    fn drop(&mut self) {
        self.act.send_replace(Act::Leaves);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
            && !thread::panicking()
        {
            panic!("the pairs' thread");
        }
    }
}

/// Of HAProxy.
pub(crate) fn address(fleet: &Fleet) -> Address {
    format!("ws://{}/v1/ws", fleet.address()).parse().unwrap()
}

fn sender(base: u64, pair: usize) -> UserId {
    UserId(base + 2 * pair as u64)
}

/// Where a pair is: far from all others.
pub(crate) fn place(pair: usize, step: u64) -> Position {
    Position::new(10.0 + pair as f64, 20.0 + (step % 1_000) as f64 * 1e-6).unwrap()
}

/// Everybody, on one thread.
struct Company {
    base: u64,
    address: Address,
    tokens: Tokens,
    log: Arc<Mutex<Log>>,
    acts: watch::Receiver<Act>,
    torn: Vec<tokio::task::JoinHandle<()>>,
}

impl Company {
    async fn live(mut self) {
        let rest = Rest::new(self.address.clone(), &self.tokens.backend().unwrap());
        let users: Vec<UserId> = (0..2 * PAIRS as u64).map(|at| UserId(self.base + at)).collect();
        let friends: Vec<(UserId, UserId)> = users.chunks(2).map(|pair| (pair[0], pair[1])).collect();
        acquaint_over(&rest, &users, &friends).await;
        for pair in 0..PAIRS {
            for sends in [true, false] {
                let user = UserId(sender(self.base, pair).0 + u64::from(!sends));
                let person = Person {
                    pair,
                    sends,
                    token: self.tokens.user(user).unwrap(),
                    address: self.address.clone(),
                    log: self.log.clone(),
                    acts: self.acts.clone(),
                };
                self.torn.push(tokio::task::spawn_local(Rc::new(person).live()));
            }
        }
        let log = self.log.clone();
        let stalls = tokio::task::spawn_local(note_stalls(log));
        for person in self.torn {
            person.await.unwrap();
        }
        stalls.abort();
    }
}

async fn note_stalls(log: Arc<Mutex<Log>>) {
    loop {
        let before = wall_ms();
        sleep(STALL_LOOK).await;
        let late = wall_ms().saturating_sub(before + STALL_LOOK.as_millis() as u64);
        if late > 10 {
            log.lock().stalls.push((before, late));
        }
    }
}

struct Person {
    pair: usize,
    sends: bool,
    token: String,
    address: Address,
    log: Arc<Mutex<Log>>,
    acts: watch::Receiver<Act>,
}

impl Person {
    async fn live(self: Rc<Self>) {
        let mut acts = self.acts.clone();
        let mut lost = None;
        loop {
            let session = self.session(&mut lost);
            tokio::select! {
                () = session => {}
                _ = acts.wait_for(|act| *act == Act::Leaves) => return,
            }
            sleep(RETRY).await;
        }
    }

    /// From a handshake until the connection is lost, if there is one.
    async fn session(&self, lost: &mut Option<(u64, Option<u16>)>) {
        let Ok(Ok(mut socket)) = timeout(PATIENCE, Socket::open(&self.address, &self.token)).await else { return };
        let ts = self.stamp();
        if socket.init(place(self.pair, ts), ts, None).await.is_err() {
            return;
        }
        let mut is_listed = false;
        let code = self.converse(&mut socket, lost, &mut is_listed).await;
        // One who never had a page has only tried to come back.
        lost.get_or_insert((wall_ms(), code));
        if is_listed {
            let mut log = self.log.lock();
            log.connected -= 1;
            if !self.sends {
                log.shown.remove(&self.pair);
            }
        }
    }

    async fn converse(
        &self,
        socket: &mut Socket,
        lost: &mut Option<(u64, Option<u16>)>,
        is_listed: &mut bool,
    ) -> Option<u16> {
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                incoming = socket.next() => match incoming {
                    Incoming::Text(text) => self.hear(&text, lost, is_listed),
                    Incoming::NotText => {}
                    Incoming::Closed(code) => return code,
                },
                _ = ticks.tick(), if self.sends && *is_listed && *self.acts.borrow() == Act::Sends => {
                    let ts = self.stamp();
                    if !matches!(timeout(PATIENCE, socket.location(place(self.pair, ts), ts)).await, Ok(Ok(()))) {
                        return None;
                    }
                }
            }
        }
    }

    /// The time of what is sent next: never the same twice.
    fn stamp(&self) -> u64 {
        let mut log = self.log.lock();
        let ts = wall_ms();
        if self.sends {
            log.sent[self.pair] = ts.max(log.sent[self.pair] + 1);
            return log.sent[self.pair];
        }
        ts
    }

    fn hear(&self, text: &str, lost: &mut Option<(u64, Option<u16>)>, is_listed: &mut bool) {
        let now = wall_ms();
        let mut log = self.log.lock();
        match wire::read(text) {
            Some(Frame::Nearby(page)) => {
                if !std::mem::replace(is_listed, true) {
                    log.connected += 1;
                    if let Some((lost, code)) = lost.take() {
                        log.returns.push(Return { lost, back: now, code });
                    }
                }
                page.friends.iter().for_each(|shown| self.see(&mut log, shown, now));
            }
            Some(Frame::Friend(shown)) => self.see(&mut log, &shown, now),
            Some(Frame::Gone(..)) if !self.sends => {
                log.shown.remove(&self.pair);
            }
            // People who come to look become friends of who sends.
            Some(Frame::Gone(..) | Frame::Drain | Frame::FriendAdded(_)) => {}
            other => {
                let what = format!("pair {}: {other:?}", self.pair);
                log.wrong.push(what);
            }
        }
    }

    fn see(&self, log: &mut Log, shown: &Shown, now: u64) {
        if self.sends {
            return;
        }
        if log.shown.get(&self.pair).is_some_and(|before| *before > shown.ts) {
            log.wrong.push(format!("pair {}: went back", self.pair));
        }
        log.shown.insert(self.pair, shown.ts);
        log.arrivals.push(Arrival { pair: self.pair, ts: shown.ts, at: now });
    }
}
