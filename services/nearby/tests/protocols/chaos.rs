//! Where every decision of a run comes from: one generator, which its seed determines, and what is broken at the moment.

use std::collections::hash_map::DefaultHasher;
use std::fmt::Debug;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use node::Freezer;
use parking_lot::Mutex;
use ports::PortError;
use ports::control::RIGHT_TO_SEND;
use ports::discovery::LEASE;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::task::yield_now;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

/// What a node's calls go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Port {
    Broker,
    Cache,
    Friendships,
    Sessions,
    /// The control log, but for reading it.
    Control,
    /// Reading the control log.
    Poll,
    Discovery,
}

/// Whose calls: a node's, by its place, or those of the application's backend, which is no node.
pub(crate) type Caller = Option<usize>;

/// How a backend is out of reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sickness {
    /// Refuses at once.
    Refuses,
    /// Gets what is asked when it is well again.
    Hangs,
    /// Does what is asked, and the answer comes when it is well again.
    IsMute,
}

#[derive(Clone, Copy)]
struct Outage {
    until: Instant,
    sickness: Sickness,
}

/// A node is stopped when its next read of the control log has been served, before it has the answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Trap {
    pub(crate) node: usize,
    /// Only when the lease is this old by then.
    pub(crate) lease_age: Duration,
    pub(crate) how_long: Duration,
}

/// What becomes of a call.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Answered,
    /// It fails, and nothing happened.
    Lost,
    /// It fails, and happened.
    AnswerLost,
}

/// What a run is made of. It differs from seed to seed, so that some runs are calm but for one thing.
#[derive(Clone, Copy, Debug)]
struct Weather {
    /// Of 100 moments, how many pass without any delay.
    prompt: u32,
    /// Of 100 delays, how many are long.
    long: u32,
    /// Of 1,000 calls, how many fail.
    failing: u32,
    /// Of 100 writes to a socket, how many meet a client that reads slowly.
    slow_readers: u32,
}

pub(crate) struct Chaos {
    rng: Mutex<StdRng>,
    weather: Weather,
    began: Instant,
    trace: Mutex<DefaultHasher>,
    freezers: Vec<&'static Freezer>,
    /// By caller's node and port.
    outages: Mutex<Vec<((usize, Port), Outage)>>,
    traps: Mutex<Vec<Trap>>,
    /// By node: since when the lease counts that it has.
    leases: Mutex<Vec<Instant>>,
    /// Moments at which a right to send, a lease or a fault ends: the application likes to revoke around them.
    edges: Mutex<Vec<Instant>>,
    is_calm: AtomicBool,
    /// The application's processes hang between two steps of a change, and repeat some.
    processes_hang: AtomicBool,
    tasks: TaskTracker,
}

thread_local! {
    /// Settings hold them by reference: made once a thread, and taken by one run after the other.
    static FREEZERS: [&'static Freezer; 4] = std::array::from_fn(|_| &*Box::leak(Box::default()));
}

impl Chaos {
    pub(crate) fn new(seed: u64, nodes: usize) -> Arc<Chaos> {
        let mut rng = StdRng::seed_from_u64(seed);
        let weather = Weather {
            prompt: rng.random_range(20..95),
            long: [0, 2, 10][rng.random_range(0..3)],
            failing: [0, 10, 80][rng.random_range(0..3)],
            slow_readers: [2, 10, 40][rng.random_range(0..3)],
        };
        let freezers = FREEZERS.with(|all| all[..nodes].to_vec());
        freezers.iter().for_each(|freezer| freezer.thaw());
        Arc::new(Chaos {
            rng: Mutex::new(rng),
            weather,
            began: Instant::now(),
            trace: Mutex::default(),
            freezers,
            outages: Mutex::default(),
            traps: Mutex::default(),
            leases: Mutex::new(vec![Instant::now(); nodes]),
            edges: Mutex::default(),
            is_calm: AtomicBool::new(true),
            processes_hang: AtomicBool::new(false),
            tasks: TaskTracker::new(),
        })
    }

    /// One decision.
    pub(crate) fn pick<T>(&self, decide: impl FnOnce(&mut StdRng) -> T) -> T {
        decide(&mut self.rng.lock())
    }

    pub(crate) fn chance(&self, of_100: u32) -> bool {
        self.pick(|rng| rng.random_range(0..100) < of_100)
    }

    /// So many ms.
    pub(crate) fn millis(&self, range: std::ops::Range<u64>) -> Duration {
        Duration::from_millis(self.pick(|rng| rng.random_range(range)))
    }

    /// Faults and delays begin; until then all is calm, so that a fleet can start.
    pub(crate) fn begin(&self) {
        self.is_calm.store(false, Ordering::Relaxed);
    }

    /// Faults and delays end.
    pub(crate) fn end(&self) {
        self.is_calm.store(true, Ordering::Relaxed);
        self.outages.lock().clear();
        self.traps.lock().clear();
        self.freezers.iter().for_each(|freezer| freezer.thaw());
    }

    pub(crate) fn is_calm(&self) -> bool {
        self.is_calm.load(Ordering::Relaxed)
    }

    /// Remembers that something happened: two runs of a seed have the same trace.
    pub(crate) fn note(&self, event: impl Hash + Debug) {
        if *crate::LOUD {
            println!("{:>6} ms {event:?}", self.began.elapsed().as_millis());
        }
        (self.began.elapsed().as_millis(), event).hash(&mut *self.trace.lock());
    }

    pub(crate) fn trace(&self) -> u64 {
        self.trace.lock().finish()
    }

    pub(crate) fn freezer(&self, node: usize) -> &'static Freezer {
        self.freezers[node]
    }

    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(task);
    }

    /// Cuts a node off from a backend for a while.
    pub(crate) fn cut_off(&self, node: usize, port: Port, sickness: Sickness, how_long: Duration) {
        let outage = Outage { until: Instant::now() + how_long, sickness };
        let mut outages = self.outages.lock();
        outages.retain(|(whose, _)| *whose != (node, port));
        outages.push(((node, port), outage));
    }

    /// Stops a node's process for a while.
    pub(crate) fn freeze(&self, node: usize, how_long: Duration) {
        let freezer = self.freezers[node];
        if freezer.is_frozen() {
            return;
        }
        self.note(("frozen", node, how_long));
        self.remember_edges(node, how_long);
        freezer.freeze();
        self.spawn(async move {
            sleep(how_long).await;
            freezer.thaw();
        });
    }

    pub(crate) fn set_trap(&self, trap: Trap) {
        let mut traps = self.traps.lock();
        traps.retain(|other| other.node != trap.node);
        traps.push(trap);
    }

    /// A read of the control log was served.
    fn spring_trap(&self, node: usize) {
        let lease_age = self.leases.lock()[node].elapsed();
        let sprung = |trap: &Trap| trap.node == node && trap.lease_age <= lease_age;
        let sprung = {
            let mut traps = self.traps.lock();
            traps.iter().position(sprung).map(|at| traps.remove(at))
        };
        if let Some(trap) = sprung {
            self.freeze(node, trap.how_long);
        }
    }

    /// A node is cut off from now on: when what it was given before ends, and when it is back.
    pub(crate) fn remember_edges(&self, node: usize, how_long: Duration) {
        let now = Instant::now();
        let mut edges = self.edges.lock();
        edges.retain(|edge| *edge > now);
        edges.extend([now + RIGHT_TO_SEND, self.leases.lock()[node] + LEASE, now + how_long]);
    }

    /// One of the moments that are to come.
    pub(crate) fn edge(&self) -> Option<Instant> {
        let now = Instant::now();
        let edges: Vec<Instant> = self.edges.lock().iter().copied().filter(|edge| *edge > now).collect();
        (!edges.is_empty()).then(|| edges[self.pick(|rng| rng.random_range(0..edges.len()))])
    }

    /// A lease begins to count.
    pub(crate) fn leased(&self, caller: Caller) {
        if let Some(node) = caller {
            self.leases.lock()[node] = Instant::now();
        }
    }

    fn outage(&self, caller: Caller, port: Port) -> Option<Outage> {
        let caller = caller?;
        let outages = self.outages.lock();
        let found = outages.iter().find(|(whose, _)| *whose == (caller, port)).map(|(_, outage)| *outage);
        found.filter(|outage| outage.until > Instant::now())
    }

    /// Waits until a caller is not cut off any more.
    pub(crate) async fn reached(&self, caller: Caller, port: Port) {
        while let Some(outage) = self.outage(caller, port) {
            // Faults may end before.
            sleep_until(outage.until.min(Instant::now() + Duration::from_millis(500))).await;
        }
    }

    /// A moment passes, or none.
    pub(crate) async fn delay(&self) {
        if self.is_calm() {
            return;
        }
        let Weather { prompt, long, .. } = self.weather;
        let (turns, pause) = self.pick(|rng| match rng.random_range(0..100) {
            drawn if drawn < prompt => (0, 0),
            drawn if drawn % 3 == 0 => (rng.random_range(1..4), 0),
            _ if rng.random_range(0..100) < long => (0, rng.random_range(150..2_900)),
            _ => (0, [1, 2, 5, 20, 120][rng.random_range(0..5)]),
        });
        for _ in 0..turns {
            yield_now().await;
        }
        if pause > 0 {
            sleep(Duration::from_millis(pause)).await;
        }
    }

    /// From now on the application's processes hang now and then.
    pub(crate) fn let_processes_hang(&self) {
        self.processes_hang.store(true, Ordering::Relaxed);
    }

    /// A process that hangs now, and for how long.
    pub(crate) fn hang(&self) -> Option<Duration> {
        let hangs = !self.is_calm() && self.processes_hang.load(Ordering::Relaxed) && self.chance(40);
        hangs.then(|| self.millis(1..5_000))
    }

    /// After what time a socket takes what is written to it.
    pub(crate) fn socket_delay(&self) -> Duration {
        if self.is_calm() || !self.chance(self.weather.slow_readers) {
            return Duration::ZERO;
        }
        match self.pick(|rng| rng.random_range(0..10)) {
            0..6 => self.millis(1..100),
            6..9 => self.millis(100..3_000),
            _ => self.millis(3_000..14_000),
        }
    }

    fn fate(&self) -> Fate {
        if self.is_calm() {
            return Fate::Answered;
        }
        match self.pick(|rng| rng.random_range(0..1_000)) {
            drawn if drawn >= self.weather.failing => Fate::Answered,
            drawn if drawn % 2 == 0 => Fate::Lost,
            _ => Fate::AnswerLost,
        }
    }

    /// A call whose answer may come late or never. It takes effect also when the caller has given up meanwhile, as a
    /// request does that is on its way.
    pub(crate) async fn call<T: Send + 'static, E: Send + 'static>(
        self: &Arc<Chaos>,
        (caller, port): (Caller, Port),
        sick: impl FnOnce() -> E + Send + 'static,
        call: impl Future<Output = Result<T, E>> + Send + 'static,
    ) -> Result<T, E> {
        let served = self.tasks.spawn(self.clone().serve(caller, port, sick, call));
        self.answered(caller, served).await
    }

    /// The same for what does not happen any more once the caller has given up.
    pub(crate) async fn ask<T: Send + 'static, E: Send + 'static>(
        self: &Arc<Chaos>,
        (caller, port): (Caller, Port),
        sick: impl FnOnce() -> E + Send + 'static,
        call: impl Future<Output = Result<T, E>> + Send + 'static,
    ) -> Result<T, E> {
        let served = AbortOnDropHandle::new(self.tasks.spawn(self.clone().serve(caller, port, sick, call)));
        self.answered(caller, served).await
    }

    async fn answered<T, E>(
        &self,
        caller: Caller,
        served: impl Future<Output = Result<Result<T, E>, tokio::task::JoinError>>,
    ) -> Result<T, E> {
        let answer = match caller {
            Some(node) => self.freezer(node).around(served).await,
            None => served.await,
        };
        answer.expect("a backend does not panic")
    }

    async fn serve<T, E>(
        self: Arc<Chaos>,
        caller: Caller,
        port: Port,
        sick: impl FnOnce() -> E,
        call: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        match self.outage(caller, port).map(|outage| outage.sickness) {
            Some(Sickness::Refuses) => return Err(sick()),
            Some(Sickness::Hangs) => self.reached(caller, port).await,
            Some(Sickness::IsMute) | None => {}
        }
        self.delay().await;
        let fate = self.fate();
        self.note((caller, port, fate == Fate::Lost));
        if fate == Fate::Lost {
            return Err(sick());
        }
        let answer = call.await;
        if let (Some(node), Port::Poll) = (caller, port) {
            self.spring_trap(node);
        }
        self.delay().await;
        if self.outage(caller, port).is_some_and(|outage| outage.sickness == Sickness::IsMute) {
            self.reached(caller, port).await;
        }
        if fate == Fate::AnswerLost { Err(sick()) } else { answer }
    }
}

pub(crate) fn sick() -> PortError {
    PortError::Unavailable { backend: "chaos", reason: "as the seed wanted it".to_owned() }
}
