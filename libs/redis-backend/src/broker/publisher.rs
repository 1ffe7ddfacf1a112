//! The publishing connection to one pub/sub node: pipelined, every call with a deadline.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use redis_protocol::resp2::types::RangeFrame;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::dial::{Connection, Dial};
use super::names::Names;
use super::wire::{Lost, command, frames};

/// How long a call may take; then the node counts as down until it has answered on a new connection.
const CALL: Duration = Duration::from_millis(500);
/// Between attempts to connect.
const RETRY: Duration = Duration::from_millis(50);
/// Calls that wait to be written.
const QUEUE: usize = 256;
/// Calls written and not answered.
const IN_FLIGHT: usize = 256;

/// A way to the connection. While it is down calls fail at once, so that a frozen node holds up nobody twice.
pub(crate) struct Publisher {
    calls: mpsc::Sender<Call>,
    /// The number of the connection; 0 while there is none that has answered.
    up: AtomicU64,
}

/// Some commands, to be written in one go.
struct Call {
    bytes: BytesMut,
    answers: usize,
    only_on: Option<u64>,
    reply: oneshot::Sender<Reply>,
}

impl Call {
    fn new(bytes: BytesMut, answers: usize, only_on: Option<u64>, reply: oneshot::Sender<Reply>) -> Call {
        Call { bytes, answers, only_on, reply }
    }
}

/// What came back: the last answer, if none was an error.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    /// `None` is a null.
    pub(crate) last: Option<Bytes>,
    /// The connection that it came on.
    pub(crate) connection: u64,
}

/// What its connections are called in `CLIENT LIST`: whose they are, and which ring that node has learned.
#[derive(Clone)]
pub(crate) struct Identity {
    pub(crate) names: Names,
    /// The epoch of the ring in use.
    pub(crate) epoch: Arc<AtomicU64>,
}

impl Identity {
    /// Says it.
    pub(crate) fn command(&self) -> BytesMut {
        let mut bytes = BytesMut::new();
        let name = self.names.publisher(self.epoch.load(Ordering::Acquire));
        command(&mut bytes, &[b"CLIENT", b"SETNAME", &name]);
        bytes
    }
}

/// The other end, which the connection's task takes.
pub(crate) struct Calls(mpsc::Receiver<Call>);

impl Publisher {
    pub(crate) fn new() -> (Publisher, Calls) {
        let (calls, receiver) = mpsc::channel(QUEUE);
        (Publisher { calls, up: AtomicU64::new(0) }, Calls(receiver))
    }

    pub(crate) fn is_up(&self) -> bool {
        self.up.load(Ordering::Acquire) != 0
    }

    /// Puts a call in line; the calls of one caller go out in order. With `only_on`, on that connection or not at all.
    /// The receiver fails when the outcome is not known to be good, at the latest after [`CALL`].
    pub(crate) fn start(
        &self,
        bytes: BytesMut,
        answers: usize,
        only_on: Option<u64>,
    ) -> Option<oneshot::Receiver<Reply>> {
        if !self.is_up() {
            return None;
        }
        let (reply, receiver) = oneshot::channel();
        self.calls.try_send(Call::new(bytes, answers, only_on, reply)).ok()?;
        Some(receiver)
    }

    /// A call of one command.
    pub(crate) async fn ask(&self, words: &[&[u8]], only_on: Option<u64>) -> Option<Reply> {
        let mut bytes = BytesMut::new();
        command(&mut bytes, words);
        self.start(bytes, 1, only_on)?.await.ok()
    }

    /// Keeps a connection until `stop`.
    pub(crate) async fn run(
        &self,
        address: &str,
        mut calls: Calls,
        with: (Arc<dyn Dial>, Identity),
        stop: CancellationToken,
    ) {
        for number in 1.. {
            let lost = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                lost = self.live(address, number, &mut calls, &with) => lost,
            };
            if self.up.swap(0, Ordering::AcqRel) != 0 {
                tracing::warn!(node = address, reason = lost.0, "the publishing connection is lost");
            }
            // Nobody may wait for what is not on its way.
            while calls.0.try_recv().is_ok() {}
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = sleep(RETRY) => {}
            }
        }
    }

    /// One connection's life.
    async fn live(
        &self,
        address: &str,
        number: u64,
        calls: &mut Calls,
        (dial, identity): &(Arc<dyn Dial>, Identity),
    ) -> Lost {
        let connected = timeout(CALL, dial.dial(address)).await;
        let Ok(Ok(connection)) = connected else { return Lost("it does not take connections") };
        let mut line = Line::of(connection, number);
        // A frozen server takes connections: it is up when it has answered.
        let (hello, mut answered) = oneshot::channel();
        let mut bytes = BytesMut::new();
        command(&mut bytes, &[b"PING"]);
        line.begin(Call::new(bytes, 1, None, hello));
        loop {
            if let Err(lost) = line.step(calls, self.is_up()).await {
                return lost;
            }
            if !self.is_up() && answered.try_recv().is_ok() {
                tracing::info!(node = address, "the publishing connection is up");
                self.up.store(number, Ordering::Release);
                // After that: whoever changes the identity from now on says so in a call.
                let (ignored, _) = oneshot::channel();
                line.begin(Call::new(identity.command(), 1, None, ignored));
            }
        }
    }
}

struct Line {
    number: u64,
    reader: ReadHalf<Connection>,
    writer: WriteHalf<Connection>,
    out: BytesMut,
    read: BytesMut,
    in_flight: VecDeque<InFlight>,
}

struct InFlight {
    answers: usize,
    failed: bool,
    reply: oneshot::Sender<Reply>,
    until: Instant,
}

impl Line {
    fn of(connection: Connection, number: u64) -> Line {
        let (reader, writer) = tokio::io::split(connection);
        Line { number, reader, writer, out: BytesMut::new(), read: BytesMut::new(), in_flight: VecDeque::new() }
    }

    fn begin(&mut self, call: Call) {
        if call.only_on.is_some_and(|only| only != self.number) {
            return;
        }
        self.out.extend_from_slice(&call.bytes);
        let until = Instant::now() + CALL;
        self.in_flight.push_back(InFlight { answers: call.answers, failed: false, reply: call.reply, until });
    }

    /// In a fixed order: a simulation of it runs alike each time. An answer that is there is not late.
    async fn step(&mut self, calls: &mut Calls, up: bool) -> Result<(), Lost> {
        let until = self.in_flight.front().map(|first| first.until);
        tokio::select! {
            biased;
            read = self.reader.read_buf(&mut self.read) => match read? {
                0 => return Err(Lost("it closed the connection")),
                _ => self.answered()?,
            },
            written = self.writer.write_buf(&mut self.out), if !self.out.is_empty() => drop(written?),
            Some(call) = calls.0.recv(), if up && self.in_flight.len() < IN_FLIGHT => {
                self.begin(call);
                while self.in_flight.len() < IN_FLIGHT && let Ok(call) = calls.0.try_recv() {
                    self.begin(call);
                }
            }
            () = sleep_until(until.unwrap_or_else(Instant::now)), if until.is_some() => {
                return Err(Lost("no answer in time"));
            }
        }
        Ok(())
    }

    fn answered(&mut self) -> Result<(), Lost> {
        let (in_flight, number) = (&mut self.in_flight, self.number);
        frames(&mut self.read, |bytes, frame| {
            let Some(first) = in_flight.front_mut() else { return };
            first.failed |= matches!(frame, RangeFrame::Error(_));
            first.answers -= 1;
            if first.answers == 0
                && let Some(done) = in_flight.pop_front()
                && !done.failed
            {
                // Who asked may have given up.
                let _ = done.reply.send(Reply { last: text(bytes, &frame), connection: number });
            }
        })
    }
}

fn text(bytes: &[u8], frame: &RangeFrame) -> Option<Bytes> {
    match frame {
        RangeFrame::BulkString((from, to)) | RangeFrame::SimpleString((from, to)) => {
            Some(Bytes::copy_from_slice(&bytes[*from..*to]))
        }
        RangeFrame::Integer(number) => Some(Bytes::from(number.to_string())),
        _ => None,
    }
}
