//! One gateway: a real broker, and of the engine only what the ring change needs. It answers a gap by reading the
//! cache and a republish by publishing again; it puts into the cache before it publishes, and publishes again what is
//! not confirmed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use model::{Fix, Generation, Motion, NodeId, Order, Place, PolicyVersion, Position, TimestampMs, UserId};
use parking_lot::Mutex;
use ports::embedded::EmbeddedCache;
use ports::{Affected, Arrival, Broker, Channel, Clock, Discovery, Inbox, LocationCache, Publication};
use redis_backend::{Break, BrokerSettings, RedisBroker};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::network::Network;

/// After a publication that was not confirmed.
const RETRY: Duration = Duration::from_millis(250);
/// How long one call of the broker may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// A server, and the epoch that it knew.
type TakenBy = (usize, Option<u64>);

/// What all gateways share.
pub(crate) struct World {
    pub(crate) network: Arc<Network>,
    pub(crate) cache: EmbeddedCache,
    pub(crate) clock: Clock,
    /// Which servers took a position, and the epoch that each knew then, by user and time.
    pub(crate) taken: Mutex<BTreeMap<(UserId, u64), Vec<TakenBy>>>,
    /// What broke a promise, first of all.
    pub(crate) violation: Mutex<Option<String>>,
}

#[derive(Default)]
struct Engine {
    watched: BTreeSet<UserId>,
    held: BTreeMap<UserId, u64>,
    /// To be read from the cache.
    owed: BTreeSet<UserId>,
    /// The newest of each user who shares here.
    own: BTreeMap<UserId, Fix>,
    waiting: BTreeMap<UserId, Fix>,
    confirmed: BTreeMap<UserId, u64>,
}

pub(crate) struct Gateway {
    pub(crate) broker: Arc<RedisBroker>,
    world: Arc<World>,
    engine: Mutex<Engine>,
    outgoing: Notify,
    owing: Notify,
}

/// A position that is told from others by its time.
pub(crate) fn fix(user: UserId, ts: u64, clock: Clock) -> Fix {
    Fix {
        user,
        place: Place::new(Position::new(40.0, 116.0).expect("a position")),
        order: Order { generation: Generation(1), ts: TimestampMs(ts), ..Order::default() },
        expires: clock.monotonic().after(Duration::from_secs(600)),
        policy: PolicyVersion(0),
        motion: Motion::UNKNOWN,
    }
}

impl Gateway {
    /// Connects it. Its tasks end with the runtime.
    pub(crate) async fn connect(
        number: usize,
        world: &Arc<World>,
        discovery: Arc<dyn Discovery>,
        planted: Option<Break>,
        tasks: &tokio_util::task::TaskTracker,
    ) -> Arc<Gateway> {
        let settings = BrokerSettings {
            node: NodeId(number as u64 + 1),
            inbox_batches: 64,
            prefix: "n:".to_owned(),
            document: "ring".to_owned(),
            clock: world.clock,
        };
        let dial = world.network.of(number);
        let connected = RedisBroker::simulated(settings, discovery, dial, planted).await;
        let (broker, inbox) = connected.expect("a broker");
        let gateway = Arc::new(Gateway {
            broker,
            world: world.clone(),
            engine: Mutex::default(),
            outgoing: Notify::new(),
            owing: Notify::new(),
        });
        tasks.spawn(gateway.clone().hear(inbox));
        tasks.spawn(gateway.clone().read());
        tasks.spawn(gateway.clone().pump());
        gateway
    }

    /// Subscribes, and then reads the cache.
    pub(crate) async fn watch(&self, users: &[UserId]) {
        self.engine.lock().watched.extend(users);
        let channels: Vec<Channel> = users.iter().map(|user| Channel::User(*user)).collect();
        while !matches!(timeout(PATIENCE, self.broker.subscribe(&channels)).await, Ok(Ok(()))) {
            sleep(RETRY).await;
        }
        self.owe(users.iter().copied());
    }

    pub(crate) async fn unwatch(&self, user: UserId) {
        {
            let mut engine = self.engine.lock();
            engine.watched.remove(&user);
            engine.held.remove(&user);
        }
        while !matches!(timeout(PATIENCE, self.broker.unsubscribe(&[Channel::User(user)])).await, Ok(Ok(()))) {
            sleep(RETRY).await;
        }
    }

    pub(crate) fn watched(&self) -> BTreeSet<UserId> {
        self.engine.lock().watched.clone()
    }

    /// The time of the newest position that it holds of a user; 0 without.
    pub(crate) fn holds(&self, user: UserId) -> u64 {
        self.engine.lock().held.get(&user).copied().unwrap_or(0)
    }

    /// A user who shares here has moved.
    pub(crate) fn moved(&self, user: UserId, ts: u64) {
        let fix = fix(user, ts, self.world.clock);
        self.engine.lock().own.insert(user, fix);
        self.offer(fix);
    }

    /// What users who share here sent last, and the last of it that was confirmed.
    pub(crate) fn sent(&self) -> BTreeMap<UserId, (u64, u64)> {
        let engine = self.engine.lock();
        let confirmed = |user| engine.confirmed.get(user).copied().unwrap_or(0);
        engine.own.iter().map(|(user, fix)| (*user, (fix.order.ts.0, confirmed(user)))).collect()
    }

    fn owe(&self, users: impl IntoIterator<Item = UserId>) {
        self.engine.lock().owed.extend(users);
        self.owing.notify_one();
    }

    fn offer(&self, fix: Fix) {
        {
            let mut engine = self.engine.lock();
            let waiting = engine.waiting.entry(fix.user).or_insert(fix);
            if waiting.order < fix.order {
                *waiting = fix;
            }
        }
        self.outgoing.notify_one();
    }

    fn learn(&self, fix: &Fix) {
        let mut engine = self.engine.lock();
        if engine.watched.contains(&fix.user) {
            let held = engine.held.entry(fix.user).or_default();
            *held = fix.order.ts.0.max(*held);
        }
    }

    async fn hear(self: Arc<Self>, mut inbox: Inbox) {
        while let Some(arrival) = inbox.recv().await {
            match arrival {
                Arrival::Batch(messages) => messages.iter().for_each(|message| self.learn(message.fix())),
                Arrival::Gap(channels) => self.owe(channels.into_iter().filter_map(|channel| match channel {
                    Channel::User(user) => Some(user),
                    _ => None,
                })),
                Arrival::Republish(affected) => self.publish_again(&affected),
            }
        }
    }

    fn publish_again(&self, affected: &Affected) {
        let own: Vec<Fix> = self.engine.lock().own.values().copied().collect();
        own.into_iter().filter(|fix| affected.holds(Channel::User(fix.user))).for_each(|fix| self.offer(fix));
    }

    /// Reads what is owed. The cache takes its time on either side of what it does.
    async fn read(self: Arc<Self>) {
        loop {
            self.owing.notified().await;
            let owed = std::mem::take(&mut self.engine.lock().owed);
            let users: Vec<UserId> = owed.into_iter().collect();
            sleep(self.world.network.delay()).await;
            let found = self.world.cache.get_many(&users).await.expect("the cache");
            sleep(self.world.network.delay()).await;
            found.iter().flatten().for_each(|fix| self.learn(fix));
        }
    }

    async fn pump(self: Arc<Self>) {
        let (mut again, mut due): (Vec<Fix>, Instant) = (Vec::new(), Instant::now());
        loop {
            tokio::select! {
                biased;
                () = sleep_until(due), if !again.is_empty() => again.drain(..).for_each(|fix| self.offer(fix)),
                () = self.outgoing.notified() => {}
            }
            let batch: Vec<Fix> = std::mem::take(&mut self.engine.lock().waiting).into_values().collect();
            if batch.is_empty() {
                continue;
            }
            sleep(self.world.network.delay()).await;
            self.world.cache.put_many(&batch).await.expect("the cache");
            sleep(self.world.network.delay()).await;
            let messages: Vec<Publication> = batch.iter().map(|fix| Publication::Location(*fix)).collect();
            let unconfirmed = match timeout(PATIENCE, self.broker.publish(&messages)).await {
                Ok(Ok(())) => Vec::new(),
                Ok(Err(unconfirmed)) => unconfirmed.indexes,
                Err(_) => (0..batch.len()).collect(),
            };
            for (_, fix) in batch.iter().enumerate().filter(|(index, _)| !unconfirmed.contains(index)) {
                self.confirmed(fix);
            }
            if again.is_empty() {
                due = Instant::now() + RETRY;
            }
            again.extend(unconfirmed.into_iter().map(|index| batch[index]));
        }
    }

    /// A confirmed message was taken by a server that was current by then.
    fn confirmed(&self, fix: &Fix) {
        let mut engine = self.engine.lock();
        let confirmed = engine.confirmed.entry(fix.user).or_default();
        *confirmed = fix.order.ts.0.max(*confirmed);
        drop(engine);
        self.world.note_taken();
        let taken = self.world.taken.lock().get(&(fix.user, fix.order.ts.0)).cloned().unwrap_or_default();
        let epoch = self.broker.epoch();
        // One that had lost its epoch may have been told it before it was asked.
        let now = |server: usize| self.world.network.servers[server].epoch();
        if !taken.iter().any(|(server, known)| known.or(now(*server)).is_some_and(|known| known <= epoch)) {
            let (user, ts) = (fix.user, fix.order.ts.0);
            self.world.violate(format!("{ts} of {user:?} confirmed under epoch {epoch}, taken by {taken:?}"));
        }
    }
}

impl World {
    /// Takes down what the servers have taken since the last time.
    fn note_taken(&self) {
        let mut taken = self.taken.lock();
        for (number, server) in self.network.servers.iter().enumerate() {
            for (payload, epoch) in server.take_taken() {
                let fix = protocol::record::decode(&payload, self.clock.monotonic()).expect("a record");
                taken.entry((fix.user, fix.order.ts.0)).or_default().push((number, epoch));
            }
        }
    }

    pub(crate) fn violate(&self, what: String) {
        self.violation.lock().get_or_insert(what);
    }
}
