//! The way out of one connection: shared by its task, which answers and waits where there is something to wait for, and
//! by the engine's courier, which writes news straight to the socket.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use model::MonotonicMs;
use node::{Feed, Outlet, Signal};
use parking_lot::Mutex;
use ports::Clock;
use tokio::net::tcp::OwnedWriteHalf;

use crate::websocket::Outbox;

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
    outbox: Outbox,
    /// News stay in the shard: an answer is being made, and what is newer must not go out before it.
    held: bool,
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
    /// News of this feed go to this stream from now on, until [`Outbound::end`], `interval` apart.
    pub(crate) fn begin(stream: OwnedWriteHalf, feed: Feed, clock: Clock, interval: Duration) -> Arc<Outbound> {
        let signal = feed.signal().clone();
        let pen = Pen {
            way: Some(Way { stream, feed }),
            outbox: Outbox::default(),
            held: false,
            bytes: 0,
            news_from: MonotonicMs(0),
            news_wait: false,
        };
        let outbound = Arc::new(Outbound { signal, clock, interval, pen: Mutex::new(pen) });
        let outlet: Arc<dyn Outlet> = outbound.clone();
        outbound.signal.news_to(Arc::downgrade(&outlet));
        outbound
    }

    /// Keeps news back until [`Outbound::release`]. Before a page is made: it counts as told from then on.
    pub(crate) fn hold(&self) {
        self.pen.lock().held = true;
    }

    /// News may follow. Who held them back looks for them.
    pub(crate) fn release(&self) {
        self.pen.lock().held = false;
    }

    /// Appends something and hands all there is to the kernel, as far as it takes it.
    pub(crate) fn write(&self, push: impl FnOnce(&mut Outbox)) -> Written {
        let mut pen = self.pen.lock();
        push(&mut pen.outbox);
        pen.flush()
    }

    /// Takes out what there is to tell and hands it to the kernel, as far as it takes it. What comes too soon after the
    /// last stays in the shard, where a revoke finds it and newer values take its place.
    pub(crate) fn write_news(&self) -> Written {
        self.pen.lock().write_news(self.clock, self.interval)
    }

    /// Bytes that the kernel has taken.
    pub(crate) fn bytes(&self) -> u64 {
        self.pen.lock().bytes
    }

    /// How long news still wait, if there are some that do.
    pub(crate) fn news_wait(&self) -> Option<Duration> {
        if self.interval.is_zero() {
            return None;
        }
        let pen = self.pen.lock();
        pen.news_wait.then(|| pen.news_from.since(self.clock.monotonic()))
    }

    /// Nothing is taken out or written from now on.
    pub(crate) fn end(&self) {
        self.pen.lock().way = None;
    }
}

impl Outlet for Outbound {
    fn deliver(&self) {
        let mut pen = self.pen.lock();
        // The connection's task knows already.
        let is_known = pen.news_wait && self.clock.monotonic() < pen.news_from;
        let is_busy = pen.held || !pen.outbox.rest().is_empty();
        if !is_known && (is_busy || pen.write_news(self.clock, self.interval) != Written::All || pen.news_wait) {
            self.signal.ring();
        }
    }
}

impl Pen {
    fn write_news(&mut self, clock: Clock, interval: Duration) -> Written {
        if self.held {
            return Written::All;
        }
        if !interval.is_zero() {
            let now = clock.monotonic();
            self.news_wait = now < self.news_from;
            if self.news_wait {
                return Written::All;
            }
        }
        loop {
            // What was left over first: the kernel may have no room for more.
            if !self.outbox.rest().is_empty() {
                match self.flush() {
                    Written::All => {}
                    stuck => return stuck,
                }
            }
            let Some(Way { feed, .. }) = &mut self.way else { return Written::Gone };
            let news = feed.drain();
            if news.frames.is_empty() {
                return Written::All;
            }
            self.outbox.expect(news.frames.len());
            news.frames.iter().for_each(|frame| self.outbox.push(frame));
            if !interval.is_zero() {
                self.news_from = clock.monotonic().after(interval);
            }
            if !news.more {
                return self.flush();
            }
        }
    }

    /// Writes as long as what is under way may be written, which is asked before each try. What may not be is never
    /// written, whatever comes later.
    fn flush(&mut self) -> Written {
        let Some(Way { stream, feed }) = &mut self.way else { return Written::Gone };
        while !self.outbox.rest().is_empty() {
            let tried = match feed.may_write() {
                true => stream.try_write(self.outbox.rest()),
                false => Err(ErrorKind::PermissionDenied.into()),
            };
            match tried {
                Ok(bytes @ 1..) => {
                    self.bytes += bytes as u64;
                    self.outbox.taken(bytes);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Written::Part,
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
