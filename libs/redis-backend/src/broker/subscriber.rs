//! The subscriber connection to one pub/sub node. What is wanted is a set; the connection makes it so, again whenever
//! it had to be made anew, and tells that as a gap.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use parking_lot::Mutex;
use ports::broker::InboxSender;
use ports::{Channel, Clock, Publication};
use protocol::record;
use redis_protocol::resp2::types::RangeFrame;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::counters::Counters;
use super::dial::{Connection, Dial};
use super::failover::Votes;
use super::names::Names;
use super::probe::{LOOK, Probe};
use super::wanted::Wanted;
use super::wire::{Lost, command, frames};

/// Channels in one SUBSCRIBE.
const AT_ONCE: usize = 512;
/// Messages in one batch of the inbox.
const BATCH: usize = 1_024;
/// How long the node may say nothing while it owes an acknowledgement.
const SILENCE: Duration = Duration::from_secs(1);
/// Between attempts to connect.
const RETRY: Duration = Duration::from_millis(50);
const CONNECT: Duration = Duration::from_millis(500);
/// Changes that wait to be written.
const QUEUE: usize = 4_096;

/// What one node is to send us.
pub(crate) struct Subscriber {
    /// Every change of it goes with an order, sent under this lock, so that both are in one sequence. Gaps are told
    /// under it as well: they name nothing that has just been given up.
    wanted: Mutex<Wanted>,
    orders: mpsc::Sender<Order>,
    connected: AtomicBool,
    /// An order was lost.
    overflowed: AtomicBool,
    pub(crate) probe: Probe,
}

struct Order {
    channels: Vec<Channel>,
    change: Change,
    done: oneshot::Sender<()>,
}

/// What is to be done to the subscriptions of a connection.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Change {
    /// To the probes, which nobody wants but we.
    Begin,
    Subscribe,
    /// What was subscribed on an earlier connection.
    Resume,
    Unsubscribe,
}

/// The other end, which the connection's task takes.
pub(crate) struct Orders(mpsc::Receiver<Order>);

/// What the connection's task works with.
pub(crate) struct Surroundings {
    pub(crate) inbox: InboxSender,
    pub(crate) names: Names,
    pub(crate) clock: Clock,
    pub(crate) dial: Arc<dyn Dial>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) votes: Arc<Votes>,
}

impl Subscriber {
    pub(crate) fn new() -> (Subscriber, Orders) {
        let (orders, receiver) = mpsc::channel(QUEUE);
        let subscriber = Subscriber {
            wanted: Mutex::new(Wanted::new()),
            orders,
            connected: AtomicBool::new(false),
            overflowed: AtomicBool::new(false),
            probe: Probe::new(),
        };
        (subscriber, Orders(receiver))
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.connected.load(Ordering::Acquire)
    }

    /// Wants these as well. `None`: a gap will tell when the subscriptions hold. A receiver that is dropped before it is
    /// told makes a gap of it, too.
    pub(crate) fn want(&self, channels: Vec<Channel>) -> Option<oneshot::Receiver<()>> {
        let mut wanted = self.wanted.lock();
        wanted.add(&channels);
        self.order(channels, Change::Subscribe)
    }

    /// Wants these no longer; those that it did not want are no matter.
    pub(crate) fn drop_all(&self, channels: Vec<Channel>) -> Option<oneshot::Receiver<()>> {
        let mut wanted = self.wanted.lock();
        wanted.remove(&channels);
        self.order(channels, Change::Unsubscribe)
    }

    /// Under the lock of what is wanted; a new connection begins with all of it.
    fn order(&self, channels: Vec<Channel>, change: Change) -> Option<oneshot::Receiver<()>> {
        if !self.connected.load(Ordering::Acquire) {
            return None;
        }
        let (done, receiver) = oneshot::channel();
        match self.orders.try_send(Order { channels, change, done }) {
            Ok(()) => Some(receiver),
            Err(_) => {
                // A new connection is the shortest way to what is wanted.
                self.overflowed.store(true, Ordering::Release);
                None
            }
        }
    }

    /// The wanted ones in the slots that `which` picks.
    pub(crate) fn wanted_in(&self, which: impl Fn(u16) -> bool) -> Vec<Channel> {
        self.wanted.lock().in_slots(which).collect()
    }

    /// Tells a gap in the wanted ones in the slots that `which` picks.
    pub(crate) fn gap(&self, inbox: &InboxSender, counters: &Counters, which: impl Fn(u16) -> bool) {
        let wanted = self.wanted.lock();
        tell_gap(inbox, counters, wanted.in_slots(which));
    }

    /// Tells a gap in those of these channels that are still wanted.
    fn gap_in(&self, inbox: &InboxSender, counters: &Counters, channels: &[Channel]) {
        let wanted = self.wanted.lock();
        tell_gap(inbox, counters, channels.iter().copied().filter(|channel| wanted.holds(*channel)));
    }

    /// Keeps a connection until `stop`.
    pub(crate) async fn run(&self, address: &str, mut orders: Orders, with: Surroundings, stop: CancellationToken) {
        loop {
            let lost = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                lost = self.live(address, &mut orders, &with) => lost,
            };
            let was_connected = {
                let _wanted = self.wanted.lock();
                let was_connected = self.connected.swap(false, Ordering::AcqRel);
                // Nobody may wait: what they want is in the set.
                while orders.0.try_recv().is_ok() {}
                was_connected
            };
            if was_connected {
                with.counters.reconnects.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(node = address, reason = lost.0, "the subscriber connection is lost");
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = sleep(RETRY) => {}
            }
        }
    }

    /// One connection's life.
    async fn live(&self, address: &str, orders: &mut Orders, with: &Surroundings) -> Lost {
        let connected = timeout(CONNECT, with.dial.dial(address)).await;
        let Ok(Ok(connection)) = connected else { return Lost("it does not take connections") };
        let (reader, writer) = tokio::io::split(connection);
        let mut line = Line {
            subscriber: self,
            with,
            reader,
            writer,
            out: BytesMut::new(),
            read: BytesMut::with_capacity(64 * 1024),
            owed: VecDeque::new(),
            rest: Vec::new(),
            heard: Instant::now(),
        };
        self.probe.begin();
        line.hello();
        let mut look = interval(LOOK);
        loop {
            if let Err(lost) = line.step(orders, &mut look).await {
                return lost;
            }
        }
    }
}

fn tell_gap(inbox: &InboxSender, counters: &Counters, channels: impl Iterator<Item = Channel>) {
    let mut channels = channels.peekable();
    if channels.peek().is_some() {
        inbox.gap(channels);
        counters.gaps.fetch_add(1, Ordering::Relaxed);
    }
}

struct Line<'a> {
    subscriber: &'a Subscriber,
    with: &'a Surroundings,
    reader: ReadHalf<Connection>,
    writer: WriteHalf<Connection>,
    out: BytesMut,
    read: BytesMut,
    /// Acknowledgements that a PONG will stand for, in the order of the PINGs.
    owed: VecDeque<Owed>,
    /// What was subscribed on an earlier connection and has not been asked for on this one.
    rest: Vec<Channel>,
    heard: Instant,
}

struct Owed {
    channels: Vec<Channel>,
    /// Whom to tell; nobody is told by a gap.
    done: Option<oneshot::Sender<()>>,
    change: Change,
}

impl Line<'_> {
    /// The probe's channel, then what is live; the rest when that is acknowledged.
    fn hello(&mut self) {
        command(&mut self.out, &[b"CLIENT", b"SETNAME", &self.with.names.client()]);
        command(&mut self.out, &[b"SUBSCRIBE", &self.with.names.probe(), &self.with.names.votes()]);
        self.change(Owed { channels: Vec::new(), done: None, change: Change::Begin });
        let wanted = self.subscriber.wanted.lock();
        let (live, rest) = wanted.live_and_rest();
        self.rest = rest;
        // From here on changes come as orders.
        self.subscriber.connected.store(true, Ordering::Release);
        drop(wanted);
        for live in live.chunks(AT_ONCE) {
            self.change(Owed { channels: live.to_vec(), done: None, change: Change::Resume });
        }
    }

    /// One piece of the rest at a time, so that nobody who subscribes meanwhile waits for more than one.
    fn resume(&mut self) {
        while !self.rest.is_empty() && self.owed.iter().all(|owed| owed.change != Change::Resume) {
            let at = self.rest.len().saturating_sub(AT_ONCE);
            let mut channels = self.rest.split_off(at);
            let wanted = self.subscriber.wanted.lock();
            // What has been given up since has been unsubscribed, or is about to be.
            channels.retain(|channel| wanted.holds(*channel));
            drop(wanted);
            if !channels.is_empty() {
                self.change(Owed { channels, done: None, change: Change::Resume });
            }
        }
    }

    /// Writes the change and, after it, a PING: its PONG says that all before it has been done.
    fn change(&mut self, owed: Owed) {
        let verb: &[u8] = if owed.change == Change::Unsubscribe { b"UNSUBSCRIBE" } else { b"SUBSCRIBE" };
        for channels in owed.channels.chunks(AT_ONCE) {
            let names: Vec<Vec<u8>> = channels.iter().map(|channel| self.with.names.channel(*channel)).collect();
            let words: Vec<&[u8]> = std::iter::once(verb).chain(names.iter().map(Vec::as_slice)).collect();
            command(&mut self.out, &words);
        }
        command(&mut self.out, &[b"PING"]);
        if self.owed.is_empty() {
            self.heard = Instant::now();
        }
        self.owed.push_back(owed);
    }

    /// In a fixed order: a simulation of it runs alike each time. What is rare comes first, so that it is never starved.
    async fn step(&mut self, orders: &mut Orders, look: &mut tokio::time::Interval) -> Result<(), Lost> {
        tokio::select! {
            biased;
            _ = look.tick() => self.look()?,
            Some(Order { channels, change, done }) = orders.0.recv() => {
                self.change(Owed { channels, done: Some(done), change });
            }
            written = self.writer.write_buf(&mut self.out), if !self.out.is_empty() => drop(written?),
            read = self.reader.read_buf(&mut self.read) => match read? {
                0 => return Err(Lost("it closed the connection")),
                _ => self.received()?,
            },
        }
        Ok(())
    }

    fn look(&self) -> Result<(), Lost> {
        if self.subscriber.overflowed.swap(false, Ordering::AcqRel) {
            return Err(Lost("too many changes wait"));
        }
        if !self.owed.is_empty() && self.heard.elapsed() > SILENCE {
            return Err(Lost("no acknowledgement in time"));
        }
        if self.subscriber.probe.is_overdue() {
            self.with.counters.deaf.fetch_add(1, Ordering::Relaxed);
            return Err(Lost("a probe did not come back"));
        }
        Ok(())
    }

    fn received(&mut self) -> Result<(), Lost> {
        self.heard = Instant::now();
        let mut read = std::mem::take(&mut self.read);
        let mut batch = Vec::new();
        let mut refused = false;
        let outcome = frames(&mut read, |bytes, frame| match frame {
            RangeFrame::Array(parts) => match parts[..] {
                [RangeFrame::BulkString(kind), RangeFrame::BulkString(name), RangeFrame::BulkString(payload)]
                    if &bytes[kind.0..kind.1] == b"message" =>
                {
                    batch.extend(self.message(&bytes[name.0..name.1], &bytes[payload.0..payload.1]));
                    if batch.len() == BATCH {
                        self.deliver(std::mem::take(&mut batch));
                    }
                }
                // What arrived before an acknowledgement goes in before it.
                [RangeFrame::BulkString(kind), RangeFrame::BulkString(_)] if &bytes[kind.0..kind.1] == b"pong" => {
                    self.deliver(std::mem::take(&mut batch));
                    self.acknowledged();
                }
                _ => {}
            },
            RangeFrame::Error(_) => refused = true,
            _ => {}
        });
        self.deliver(batch);
        self.read = read;
        if refused { Err(Lost("it refused a command")) } else { outcome }
    }

    /// What a message says; a probe is noted, poison is counted, and both are nothing.
    fn message(&self, name: &[u8], payload: &[u8]) -> Option<Publication> {
        let Some(channel) = self.with.names.read(name) else {
            if !self.internal(name, payload) {
                self.poison();
            }
            return None;
        };
        let fix = record::decode(payload, self.with.clock.monotonic()).ok();
        let message = fix.and_then(|fix| match channel {
            Channel::User(user) => (fix.user == user).then_some(Publication::Location(fix)),
            Channel::Node(node) => Some(Publication::Directed { node, fix }),
            _ => None,
        });
        if message.is_none() {
            self.poison();
        }
        message
    }

    /// What brokers say to each other and to themselves; `false` if it is none of it.
    fn internal(&self, name: &[u8], payload: &[u8]) -> bool {
        if name == self.with.names.votes() {
            return self.with.votes.hear(payload);
        }
        let number = std::str::from_utf8(payload).ok().and_then(|text| text.parse().ok());
        let probe = number.filter(|_| name == self.with.names.probe());
        probe.map(|number| self.subscriber.probe.came_back(number)).is_some()
    }

    fn poison(&self) {
        self.with.counters.poisoned.fetch_add(1, Ordering::Relaxed);
    }

    fn deliver(&self, mut batch: Vec<Publication>) {
        if batch.is_empty() {
            return;
        }
        // Under the lock: what finds no room becomes a gap, which names only what is wanted.
        let mut wanted = self.subscriber.wanted.lock();
        wanted.turn(Instant::now());
        batch.retain(|message| wanted.hear(message.channel()));
        if !batch.is_empty() {
            self.with.counters.received.fetch_add(batch.len() as u64, Ordering::Relaxed);
            self.with.inbox.deliver(batch);
        }
    }

    fn acknowledged(&mut self) {
        let Some(owed) = self.owed.pop_front() else { return };
        let told = owed.done.is_some_and(|done| done.send(()).is_ok());
        match owed.change {
            Change::Begin => self.subscriber.probe.listens(),
            Change::Subscribe | Change::Resume if !told => {
                self.subscriber.gap_in(&self.with.inbox, &self.with.counters, &owed.channels);
            }
            _ => {}
        }
        self.resume();
    }
}
