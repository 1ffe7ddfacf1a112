//! The way out of one connection: shared by its task, which answers and waits where there is something to wait for, and
//! by the engine's courier, which writes news straight to the socket.

use std::io::{self, ErrorKind};
use std::mem::take;
use std::sync::Arc;
use std::time::Duration;

use model::MonotonicMs;
use node::{Feed, Outlet, Signal, Space};
use parking_lot::Mutex;
use ports::Clock;
use rustix::io::Errno;
use rustix::net::{SendFlags, send};
use tokio::net::tcp::OwnedWriteHalf;

use crate::websocket::{FRAME_BYTES, push_news};

/// How far writing came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Written {
    /// Everything there was.
    All,
    /// The kernel has no room for the rest.
    Part,
    /// There is no connection any more, or what was to be written may not be.
    Gone,
}

/// One connection's way out.
pub(crate) struct Outbound {
    signal: Arc<Signal>,
    clock: Clock,
    /// After news were written the next are written no sooner than this.
    interval: Duration,
    pen: Mutex<Pen>,
}

/// Who holds it writes.
struct Pen {
    /// `None` at the end: nothing is taken out or written any more.
    way: Option<Way>,
    /// What the kernel has not taken yet.
    rest: Vec<u8>,
    /// News stay in the shard: an answer is being made, and what is newer must not go out before it.
    held: bool,
    /// When the client's token expires: news are not for it from then on.
    until: MonotonicMs,
    /// Bytes that the kernel has taken: tells a client that reads slowly from one that does not read.
    bytes: u64,
    /// News are written no sooner.
    news_from: MonotonicMs,
    /// There may be news that wait for that moment, in the shard.
    news_wait: bool,
}

struct Way {
    stream: OwnedWriteHalf,
    feed: Feed,
}

impl Outbound {
    /// News of this feed go to this stream, `interval` apart, as soon as [`Outbound::trust_until`] says for how long, and
    /// until [`Outbound::end`].
    pub(crate) fn begin(stream: OwnedWriteHalf, feed: Feed, clock: Clock, interval: Duration) -> Arc<Outbound> {
        let signal = feed.signal().clone();
        let pen = Pen {
            way: Some(Way { stream, feed }),
            rest: Vec::new(),
            held: false,
            until: MonotonicMs(0),
            bytes: 0,
            news_from: MonotonicMs(0),
            news_wait: false,
        };
        let outbound = Arc::new(Outbound { signal, clock, interval, pen: Mutex::new(pen) });
        let outlet: Arc<dyn Outlet> = outbound.clone();
        outbound.signal.news_to(Arc::downgrade(&outlet));
        outbound
    }

    /// When the client's token expires.
    pub(crate) fn trust_until(&self, until: MonotonicMs) {
        self.pen.lock().until = until;
    }

    /// Keeps news back until [`Outbound::release`]. Before a page is made: it counts as told from then on.
    pub(crate) fn hold(&self) {
        self.pen.lock().held = true;
    }

    /// News may follow. Who held them back looks for them.
    pub(crate) fn release(&self) {
        self.pen.lock().held = false;
    }

    /// Hands something to the kernel, after what is left over, as far as it takes it.
    pub(crate) fn write(&self, push: impl FnOnce(&mut Vec<u8>)) -> Written {
        let mut pen = self.pen.lock();
        push(&mut pen.rest);
        pen.write_rest()
    }

    /// Takes out what there is to tell and hands it to the kernel, as far as it takes it. What comes too soon after the
    /// last stays in the shard, where a revoke finds it and newer values take its place.
    pub(crate) fn write_news(&self) -> Written {
        self.pen.lock().write_news(self.clock.monotonic(), self.interval, &mut Space::default())
    }

    /// Bytes that the kernel has taken.
    pub(crate) fn bytes(&self) -> u64 {
        self.pen.lock().bytes
    }

    /// How long news still wait, if there are some that do.
    pub(crate) fn news_wait(&self) -> Option<Duration> {
        let pen = self.pen.lock();
        pen.news_wait.then(|| pen.news_from.since(self.clock.monotonic()))
    }

    /// Nothing is taken out or written from now on.
    pub(crate) fn end(&self) {
        self.pen.lock().way = None;
    }
}

impl Outlet for Outbound {
    fn deliver(&self, now: MonotonicMs, space: &mut Space) {
        let mut pen = self.pen.lock();
        if pen.news_wait && now < pen.news_from {
            // The connection's task knows, and when.
            return;
        }
        let is_busy = pen.held || !pen.rest.is_empty();
        // To be closed instead, or about to: the task knows how.
        let is_over = now >= pen.until || self.signal.closing().is_some();
        if is_busy || is_over || pen.write_news(now, self.interval, space) != Written::All || pen.news_wait {
            self.signal.ring();
        }
    }
}

impl Pen {
    fn write_news(&mut self, now: MonotonicMs, interval: Duration, space: &mut Space) -> Written {
        if self.held {
            return Written::All;
        }
        self.news_wait = now < self.news_from;
        if self.news_wait {
            return Written::All;
        }
        loop {
            // The kernel may have no room for more.
            if !self.rest.is_empty() {
                match self.write_rest() {
                    Written::All => {}
                    stuck => return stuck,
                }
            }
            let Some(Way { feed, .. }) = &mut self.way else { return Written::Gone };
            let Space { bytes, texts } = &mut *space;
            bytes.clear();
            let more = feed.drain(now, |frame| {
                bytes.reserve(FRAME_BYTES);
                push_news(bytes, &frame, texts);
            });
            if bytes.is_empty() {
                return Written::All;
            }
            if !interval.is_zero() {
                self.news_from = now.after(interval);
            }
            let written = self.write_new(bytes);
            if written != Written::All || !more {
                return written;
            }
        }
    }

    /// Writes what is left over.
    fn write_rest(&mut self) -> Written {
        let rest = take(&mut self.rest);
        self.write_new(&rest)
    }

    /// Writes something when nothing is left over, as long as what is under way may be written, which is asked before
    /// each try; keeps what the kernel does not take. What may not be written never is, whatever comes later.
    fn write_new(&mut self, bytes: &[u8]) -> Written {
        let Some(Way { stream, feed }) = &mut self.way else { return Written::Gone };
        let mut left = bytes;
        while !left.is_empty() {
            let taken =
                if feed.may_write() { hand_over(stream, left) } else { Err(ErrorKind::PermissionDenied.into()) };
            match taken {
                Ok(taken @ 1..) => {
                    self.bytes += taken as u64;
                    left = &left[taken..];
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.rest = left.to_vec();
                    return Written::Part;
                }
                Ok(_) | Err(_) => {
                    self.way = None;
                    return Written::Gone;
                }
            }
        }
        feed.flushed();
        Written::All
    }
}

/// Past the runtime, whose notes on each socket are a miss of the caches more; when the kernel has no room, it has to
/// take note, so that it can be waited for.
fn hand_over(stream: &OwnedWriteHalf, bytes: &[u8]) -> io::Result<usize> {
    match send(stream.as_ref(), bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
        Err(Errno::AGAIN | Errno::INTR) => stream.try_write(bytes),
        done => Ok(done?),
    }
}
