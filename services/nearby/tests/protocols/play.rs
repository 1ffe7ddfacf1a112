//! One run: people who come and go, an application that makes and ends friendships, and faults; then all becomes quiet,
//! and everybody has to hold the truth.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::http::{Method, StatusCode};
use model::{Motion, UserId};
use parking_lot::Mutex;
use protocol::client::Report;
use rand::RngExt;
use tokio::runtime::Builder;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use crate::chaos::Chaos;
use crate::connection::{Line, Numbered, Served};
use crate::faults::{self, Fault};
use crate::fleet::{Fleet, Planted};
use crate::judge::{Judge, Tally, position};

/// Two a friendship.
pub(crate) const PEOPLE: usize = 6;

/// Which protocol is tried, and how.
#[derive(Clone, Copy)]
pub(crate) struct Play {
    pub(crate) name: &'static str,
    /// How long faults last, seconds.
    pub(crate) stormy_s: u64,
    /// How long healing takes at most, seconds.
    pub(crate) healing_s: u64,
    pub(crate) faults: &'static [Fault],
    /// Milliseconds between two things that a person does, at most.
    pub(crate) pause_ms: u64,
    /// Things that a person does on a connection before the next one, at most.
    pub(crate) stay: u32,
    /// Positions are also posted without a connection.
    pub(crate) posts: bool,
    /// Processes of the application that change each pair at the same time, and hang between their steps; 0: one, which
    /// waits for each answer and begins anew when there is none.
    pub(crate) processes: usize,
}

/// What a run came to.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Outcome {
    pub(crate) violation: Option<String>,
    pub(crate) trace: u64,
    pub(crate) tally: Tally,
}

impl Play {
    /// The same seed is the same run.
    pub(crate) fn run(self, seed: u64, planted: Planted) -> Outcome {
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let world = World::new(self, seed, planted).await;
            world.clone().play().await;
            Outcome { violation: world.judge.violation(), trace: world.chaos.trace(), tally: world.judge.tally() }
        })
    }
}

pub(crate) struct World {
    play: Play,
    pub(crate) fleet: Fleet,
    pub(crate) chaos: Arc<Chaos>,
    pub(crate) judge: Arc<Judge>,
    people: Vec<Person>,
    /// Of 100 things that a person does, how many are moves.
    active: u32,
    storm_ends: Instant,
}

struct Person {
    user: UserId,
    connections: Mutex<Connections>,
}

#[derive(Default)]
struct Connections {
    /// Shares.
    main: Option<Arc<Line>>,
    /// Another device, which watches.
    watching: Option<Arc<Line>>,
    /// The next main connection is being made: a phone sends nothing on the one before.
    is_connecting: bool,
    /// How many positions there were.
    numbered: u64,
    /// A position from before the main connection's first.
    left_over: Option<Numbered>,
}

impl World {
    async fn new(play: Play, seed: u64, planted: Planted) -> Arc<World> {
        let nodes = 2 + usize::from(seed % 4 == 3);
        let chaos = Chaos::new(seed, nodes);
        let judge = Arc::new(Judge::default());
        let active = [5, 30, 74][chaos.pick(|rng| rng.random_range(0..3))];
        let kept = if chaos.chance(25) { 3 } else { 1_000 };
        let fleet = Fleet::start(nodes, kept, planted, &chaos, &judge).await;
        let people =
            (0..PEOPLE).map(|person| Person { user: UserId(person as u64 + 1), connections: Mutex::default() });
        Arc::new(World {
            play,
            fleet,
            chaos,
            judge,
            people: people.collect(),
            active,
            storm_ends: Instant::now() + Duration::from_secs(play.stormy_s),
        })
    }

    /// Part of the time in which faults happen that has passed, of 100.
    pub(crate) fn progress(&self) -> u64 {
        let left = self.storm_ends.saturating_duration_since(Instant::now()).as_millis() as u64;
        100 - (left / (10 * self.play.stormy_s)).min(100)
    }

    async fn play(self: Arc<World>) {
        self.chaos.begin();
        let mut tasks = JoinSet::new();
        for person in 0..PEOPLE {
            tasks.spawn(self.clone().live(person));
        }
        for one in (0..PEOPLE).step_by(2) {
            if self.play.processes == 0 {
                tasks.spawn(self.clone().befriend_and_revoke(one, one + 1));
            }
            for _ in 0..self.play.processes {
                tasks.spawn(self.clone().change_again_and_again(one, one + 1));
            }
        }
        if self.play.processes > 0 {
            self.chaos.let_processes_hang();
            self.chaos.spawn(self.clone().announce_left_behind());
        }
        tasks.spawn(faults::run(self.clone(), self.play.faults));
        while !self.chaos.is_calm() {
            if self.judge.violation().is_some() {
                return;
            }
            if Instant::now() >= self.storm_ends {
                self.chaos.end();
            }
            sleep(Duration::from_millis(500)).await;
        }
        let healed = Instant::now() + Duration::from_secs(self.play.healing_s);
        while let Some(task) = tasks.join_next().await {
            task.unwrap();
        }
        sleep_until(healed).await;
        for _ in 0..2 {
            for person in 0..PEOPLE {
                self.reconnect_if_lost(person).await;
            }
            sleep(Duration::from_secs(4)).await;
        }
        self.look();
    }

    /// When all is quiet everybody holds exactly their friends' last positions.
    fn look(&self) {
        for viewer in 0..PEOPLE {
            let mut expected = BTreeMap::new();
            for friend in self.people.iter().filter(|friend| self.are_friends(&self.people[viewer], friend)) {
                if let Some(line) = &friend.connections.lock().main {
                    expected.insert(friend.user, line.taken());
                }
            }
            let connections = self.people[viewer].connections.lock();
            for line in [&connections.main, &connections.watching].into_iter().flatten().filter(|line| line.is_live()) {
                let held = line.view();
                if held != expected {
                    self.judge.found(format!("{:?} holds {held:?} instead of {expected:?}", line.user));
                }
            }
        }
    }

    async fn live(self: Arc<World>, who: usize) {
        while !self.chaos.is_calm() {
            self.connect(who).await;
            // Some stay until they are thrown out.
            let stay = if self.chaos.chance(30) {
                u32::MAX
            } else {
                self.chaos.pick(|rng| rng.random_range(1..=self.play.stay))
            };
            for _ in 0..stay {
                sleep(self.chaos.millis(1..self.play.pause_ms)).await;
                if self.chaos.is_calm() || self.is_lost(who) {
                    break;
                }
                self.do_something(who).await;
            }
        }
    }

    async fn do_something(self: &Arc<World>, who: usize) {
        match self.chaos.pick(|rng| rng.random_range(0..100)) {
            0..9 => self.call(who),
            9..16 => self.watch(who),
            16..26 if self.play.posts => self.post(who).await,
            drawn if drawn < 26 + self.active => self.move_on(who),
            _ => {}
        }
    }

    /// The next position of a person, by the clock of a device.
    fn next(&self, who: usize) -> Numbered {
        let mut connections = self.people[who].connections.lock();
        connections.numbered += 1;
        (connections.numbered, self.report(connections.numbered))
    }

    fn report(&self, number: u64) -> Report {
        Report { position: position(number), ts: self.fleet.clock.wall(), motion: Motion::UNKNOWN, sent_at: None }
    }

    fn move_on(&self, who: usize) {
        let next = self.next(who);
        if let Some(line) = &self.people[who].connections.lock().main {
            line.send(next);
        }
    }

    /// Each at a moment of their own, or when they are connected.
    pub(crate) fn everybody_moves(self: &Arc<World>) {
        for who in 0..PEOPLE {
            let (world, at) = (self.clone(), self.chaos.millis(1..1_500));
            self.chaos.spawn(async move {
                sleep(at).await;
                while world.is_lost(who) {
                    sleep(Duration::from_millis(50)).await;
                }
                world.move_on(who);
            });
        }
    }

    /// A node that runs at the moment.
    async fn awake(&self) -> usize {
        loop {
            let node = self.chaos.pick(|rng| rng.random_range(0..self.fleet.nodes.len()));
            if !self.chaos.freezer(node).is_frozen() {
                return node;
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    fn serve(&self, line: &Arc<Line>) -> Served {
        let node = self.fleet.nodes[line.node].clone();
        Served { line: line.clone(), node, chaos: self.chaos.clone(), judge: self.judge.clone() }
    }

    /// Connects the device that shares, wherever it goes now; the connection before may be left as it is for a while.
    async fn connect(self: &Arc<World>, who: usize) {
        let before = {
            let mut connections = self.people[who].connections.lock();
            connections.is_connecting = true;
            connections.main.clone()
        };
        let leaves_first = self.chaos.chance(70);
        if let Some(before) = before.as_ref().filter(|_| leaves_first) {
            before.close();
        }
        loop {
            let line = Line::new(self.people[who].user, self.awake().await);
            let left_over = self.next(who);
            sleep(Duration::from_millis(1)).await;
            let first = self.next(who);
            self.chaos.spawn(self.serve(&line).run(Some(first)));
            if line.live().await {
                let mut connections = self.people[who].connections.lock();
                connections.is_connecting = false;
                connections.main = Some(line);
                connections.left_over = Some(left_over);
                break;
            }
            sleep(self.chaos.millis(20..300)).await;
        }
        if let Some(before) = before {
            before.close();
        }
    }

    fn is_lost(&self, who: usize) -> bool {
        let connections = self.people[who].connections.lock();
        connections.is_connecting || connections.main.as_ref().is_none_or(|line| !line.is_live() || line.is_displaced())
    }

    async fn reconnect_if_lost(self: &Arc<World>, who: usize) {
        if self.is_lost(who) {
            self.connect(who).await;
        }
    }

    /// Another device begins to watch, or stops.
    fn watch(self: &Arc<World>, who: usize) {
        let node = self.chaos.pick(|rng| rng.random_range(0..self.fleet.nodes.len()));
        let line = Line::new(self.people[who].user, node);
        let mut connections = self.people[who].connections.lock();
        if let Some(before) = connections.watching.take() {
            before.close();
        } else {
            connections.watching = Some(line.clone());
            self.chaos.spawn(self.serve(&line).run(None));
        }
    }

    /// Asks once who is near.
    fn call(self: &Arc<World>, who: usize) {
        let node = self.chaos.pick(|rng| rng.random_range(0..self.fleet.nodes.len()));
        self.chaos.spawn(self.serve(&Line::new(self.people[who].user, node)).call());
    }

    /// A position that waited on the phone since before it connected comes without a connection. The phone waits for the
    /// answer: what it posts after it has connected anew would be in the new connection's sequence.
    async fn post(&self, who: usize) {
        let Some((number, report)) = self.people[who].connections.lock().left_over.take() else { return };
        self.judge.posting(self.people[who].user, number);
        let node = self.chaos.pick(|rng| rng.random_range(0..self.fleet.nodes.len()));
        let (freezer, node) = (self.chaos.freezer(node), &self.fleet.nodes[node]);
        let began = node.clock().monotonic();
        // It may fail: then it is not there, which nobody will miss.
        let posted = freezer.around(node.record(self.people[who].user, &[report], began)).await;
        self.chaos.note(("posted", self.people[who].user, posted.is_ok()));
    }

    fn are_friends(&self, one: &Person, other: &Person) -> bool {
        self.fleet.friendships.are_friends(one.user, other.user)
    }

    async fn befriend_and_revoke(self: Arc<World>, one: usize, other: usize) {
        let (user, friend) = (self.people[one].user, self.people[other].user);
        let path = format!("/v1/users/{user}/friends/{friend}");
        while !self.chaos.is_calm() {
            while !self.fleet.application.ask(Method::PUT, &path).await.is_success() {
                sleep(self.chaos.millis(1..100)).await;
            }
            self.chaos.note(("friends", user, friend));
            sleep(self.while_friends()).await;
            if self.chaos.is_calm() && self.chaos.chance(60) {
                return;
            }
            let made = self.judge.times_made(user, friend);
            while self.fleet.application.ask(Method::DELETE, &path).await != StatusCode::NO_CONTENT {
                sleep(self.chaos.millis(1..100)).await;
            }
            self.judge.revoked(user, friend, made);
            self.chaos.note(("revoked", user, friend));
            sleep(self.chaos.millis(0..1_000)).await;
        }
    }

    /// One of several processes that make and end one friendship without knowing of each other. A change that failed is
    /// not tried again: it is as if its process had crashed.
    async fn change_again_and_again(self: Arc<World>, one: usize, other: usize) {
        let (user, friend) = (self.people[one].user, self.people[other].user);
        let path = format!("/v1/users/{user}/friends/{friend}");
        while !self.chaos.is_calm() {
            sleep(self.chaos.millis(0..1_500)).await;
            let method = if self.chaos.chance(50) { Method::PUT } else { Method::DELETE };
            let made = self.judge.times_made(user, friend);
            let status = self.fleet.application.ask(method.clone(), &path).await;
            self.chaos.note((method.as_str(), user, friend, status.as_u16()));
            if method == Method::DELETE && status == StatusCode::NO_CONTENT {
                self.judge.revoked(user, friend, made);
            }
        }
    }

    /// What every process of the API does besides, at a quicker pace.
    async fn announce_left_behind(self: Arc<World>) {
        loop {
            sleep(Duration::from_secs(1)).await;
            let announced = api::announce_left_behind(&self.fleet.records, Duration::from_secs(2)).await;
            self.chaos.note(("announced", announced.is_ok()));
        }
    }

    /// How long a friendship lasts: some time, or until about the moment when some right ends.
    fn while_friends(&self) -> Duration {
        let edge = self.chaos.edge().filter(|_| self.chaos.chance(60));
        let Some(edge) = edge else { return self.chaos.millis(1..2_500) };
        // A little before, or up to half a second after.
        let from = edge.saturating_duration_since(Instant::now() + Duration::from_millis(100));
        from + if self.chaos.chance(50) { self.chaos.millis(0..300) } else { self.chaos.millis(0..600) }
    }
}
