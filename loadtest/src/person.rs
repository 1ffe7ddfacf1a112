//! One person with a phone: connects, sends the recorded track, hands everything received to the judge.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::address::Address;
use crate::clock::{At, Clock, wall_ms};
use crate::faults::Fault;
use crate::oracle::Oracle;
use crate::people::{People, Schedule};
use crate::socket::{Incoming, Socket};
use crate::tally::Tally;
use crate::token::Tokens;
use crate::tracks::Track;
use crate::wire::{self, Frame};

/// A server that takes longer for a handshake or a write is not there.
const SOCKET_PATIENCE: Duration = Duration::from_secs(10);
/// Between two attempts to connect again.
const RETRY: Duration = Duration::from_millis(300);
/// The server is restarting: not a fault.
const RESTART: u16 = 1012;
/// The close code of a server that cannot serve now.
const TRY_LATER: u16 = 1013;

/// How far the run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Everybody connects.
    Gathering,
    /// Everybody moves, since then.
    Moving(Instant),
    /// Nobody sends any more, everybody listens.
    Resting,
    /// Everybody goes home.
    Over,
}

/// What churn asks of a person.
#[derive(Clone, Copy, Debug)]
pub struct Leave {
    /// How.
    pub how: Goodbye,
    /// For how long.
    pub away: Duration,
}

/// How a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goodbye {
    /// With a close frame, answered.
    Close,
    /// The socket is closed without a word.
    Drop,
    /// The connection is reset.
    Reset,
}

/// What all people of a run share. One thread runs them all, so cells suffice.
pub struct Stage {
    /// The time.
    pub clock: Clock,
    /// Who is who.
    pub people: People,
    /// What was recorded.
    pub tracks: Vec<Track>,
    /// When it is sent.
    pub schedule: Schedule,
    /// The radius to ask for; `None` leaves it to the server.
    pub radius_m: Option<f64>,
    /// The server.
    pub address: Address,
    /// For the phones.
    pub tokens: Tokens,
    /// Handshakes at once.
    pub gate: Semaphore,
    /// The judge.
    pub oracle: RefCell<Oracle>,
    /// The counters.
    pub tally: RefCell<Tally>,
    /// How many are connected and know their whole list.
    pub listed: Cell<usize>,
}

/// How a connection came to its end.
enum End {
    Over,
    Left(Duration),
    Lost(Option<u16>),
}

/// One person's part.
pub struct Person {
    index: usize,
    stage: Rc<Stage>,
    phase: watch::Receiver<Phase>,
    leave: mpsc::Receiver<Leave>,
    /// The next point to send.
    next: usize,
    end: usize,
    draining: bool,
}

impl Person {
    /// Nothing happens until [`Person::live`].
    pub fn new(index: usize, stage: Rc<Stage>, phase: watch::Receiver<Phase>, leave: mpsc::Receiver<Leave>) -> Person {
        let end = stage.schedule.end(&stage.tracks[index]);
        Person { index, stage, phase, leave, next: 0, end, draining: false }
    }

    /// From the first connection until the run is over. An error only if the first connection fails.
    pub async fn live(mut self) -> Result<()> {
        let token = self.stage.tokens.user(self.stage.people.user(self.index))?;
        let mut first = true;
        loop {
            match self.open(&token).await {
                Ok(socket) => {
                    if !first {
                        self.stage.tally.borrow_mut().reconnects += 1;
                    }
                    first = false;
                    match self.connection(socket).await {
                        End::Over => return Ok(()),
                        End::Left(away) => sleep(away).await,
                        End::Lost(code) => {
                            self.lost(code);
                            sleep(RETRY).await;
                        }
                    }
                }
                Err(error) if first => return Err(error),
                Err(_) if *self.phase.borrow() == Phase::Over => return Ok(()),
                // Whoever is not back by the end is reported then.
                Err(_) => sleep(RETRY).await,
            }
        }
    }

    async fn open(&mut self, token: &str) -> Result<Socket> {
        let _permit = self.stage.gate.acquire().await?;
        self.stage.oracle.borrow_mut().connecting(self.index);
        timeout(SOCKET_PATIENCE, Socket::open(&self.stage.address, token))
            .await
            .with_context(|| format!("{} does not answer a WebSocket handshake", self.stage.address))?
    }

    async fn connection(&mut self, mut socket: Socket) -> End {
        let mut listed = false;
        let result = self.converse(&mut socket, &mut listed).await;
        let (end, goodbye) = match result {
            Ok(leave) => self.leave(socket, leave).await,
            Err(code) => (End::Lost(code), false),
        };
        if listed {
            self.stage.listed.update(|listed| listed - 1);
        }
        self.stage.oracle.borrow_mut().disconnected(self.index, goodbye, self.stage.clock.now());
        end
    }

    async fn leave(&self, socket: Socket, leave: Option<Leave>) -> (End, bool) {
        let end = leave.map_or(End::Over, |leave| End::Left(leave.away));
        let goodbye = match leave.map_or(Goodbye::Close, |leave| leave.how) {
            Goodbye::Close => timeout(SOCKET_PATIENCE, socket.close()).await.unwrap_or(false),
            Goodbye::Drop => false,
            Goodbye::Reset => socket.reset().is_err(),
        };
        (end, goodbye)
    }

    /// Sends and receives until the run is over (`None`), churn wants another connection, or the server ends it.
    async fn converse(&mut self, socket: &mut Socket, listed: &mut bool) -> Result<Option<Leave>, Option<u16>> {
        let (position, ts) = self.first_position();
        write(socket.init(position, ts, self.stage.radius_m)).await?;
        let mut due = self.due();
        loop {
            let moving = matches!(*self.phase.borrow(), Phase::Moving(_));
            tokio::select! {
                incoming = socket.next() => {
                    let now = self.stage.clock.now();
                    let text = match incoming {
                        Incoming::Text(text) => text,
                        Incoming::NotText => {
                            self.fault(Fault::Unreadable, "binary", now);
                            continue;
                        }
                        Incoming::Closed(code) => return Err(code),
                    };
                    let Heard::Page(cursor) = self.hear(&text, now) else { continue };
                    match cursor {
                        Some(cursor) => write(socket.more(&cursor)).await?,
                        None if *listed => {}
                        None => {
                            *listed = true;
                            self.stage.listed.update(|listed| listed + 1);
                            self.stage.oracle.borrow_mut().listed(self.index, now);
                        }
                    }
                }
                () = until(due) => {
                    let late = due.map(|due| due.elapsed()).unwrap_or_default();
                    let (position, ts) = self.send_next();
                    self.stage.tally.borrow_mut().lateness.record(late);
                    write(socket.location(position, ts)).await?;
                    due = self.due();
                }
                Some(leave) = self.leave.recv(), if moving => return Ok(Some(leave)),
                changed = self.phase.changed() => {
                    if changed.is_err() || *self.phase.borrow() == Phase::Over {
                        return Ok(None);
                    }
                    due = self.due();
                }
            }
        }
    }

    /// When the next point is to be sent, if one is.
    fn due(&self) -> Option<Instant> {
        let Phase::Moving(start) = *self.phase.borrow() else { return None };
        let point = self.stage.tracks[self.index][..self.end].get(self.next)?;
        Some(start + self.stage.schedule.due(self.index, point))
    }

    /// What `init` says: the first point of the track; later the newest point that has come due meanwhile, or the same
    /// place again, as a phone does that connects anew.
    fn first_position(&mut self) -> (model::Position, u64) {
        while self.due().is_some_and(|due| due <= Instant::now()) {
            self.next += 1;
        }
        match self.stage.tracks[self.index][..self.next].last() {
            Some(here) => self.record(here.position),
            None => self.send_next(),
        }
    }

    fn send_next(&mut self) -> (model::Position, u64) {
        let position = self.stage.tracks[self.index][self.next].position;
        self.next += 1;
        self.record(position)
    }

    fn record(&self, position: model::Position) -> (model::Position, u64) {
        self.stage.tally.borrow_mut().updates += 1;
        let ts = self.stage.oracle.borrow_mut().sending(self.index, position, wall_ms(), self.stage.clock.now());
        (position, ts)
    }

    fn hear(&mut self, text: &str, now: At) -> Heard {
        let Some(frame) = wire::read(text) else {
            self.fault(Fault::Unreadable, "text", now);
            return Heard::Else;
        };
        let mut oracle = self.stage.oracle.borrow_mut();
        let mut tally = self.stage.tally.borrow_mut();
        match frame {
            Frame::Friend(shown) => {
                tally.frames.friend += 1;
                let told = oracle.shown(self.index, &shown, now);
                tally.told(told, now);
            }
            Frame::Gone(id, reason) => {
                tally.frames.gone += 1;
                tally.needless_gone += u64::from(!oracle.gone(self.index, id, reason, now));
            }
            Frame::Nearby(page) => {
                tally.frames.nearby += 1;
                oracle.page(self.index, &page, now);
                return Heard::Page(page.next_cursor.map(|cursor| cursor.into_owned()));
            }
            Frame::FriendAdded(id) => {
                tally.frames.friend_added += 1;
                oracle.friend_added(self.index, id, now);
            }
            Frame::FriendRemoved(id) => {
                tally.frames.friend_removed += 1;
                oracle.friend_removed(self.index, id, now);
            }
            Frame::Error(code) => {
                tally.frames.error += 1;
                tally.rate_limited += u64::from(code == "rate_limited");
                oracle.fault(self.index, Fault::ErrorFrame, &code, now);
            }
            // Every position is sent with the time of this moment: none is too old.
            Frame::Notice(code) => oracle.fault(self.index, Fault::ErrorFrame, &code, now),
            Frame::Drain => {
                tally.frames.drain += 1;
                self.draining = true;
            }
        }
        Heard::Else
    }

    fn lost(&mut self, code: Option<u16>) {
        let announced = std::mem::take(&mut self.draining) || code == Some(RESTART);
        if !announced {
            let fault = if code == Some(TRY_LATER) { Fault::TurnedAway } else { Fault::ConnectionLost };
            let detail = code.map_or("without a close code".to_owned(), |code| format!("close code {code}"));
            self.fault(fault, &detail, self.stage.clock.now());
        }
    }

    fn fault(&self, fault: Fault, detail: &str, now: At) {
        self.stage.oracle.borrow_mut().fault(self.index, fault, detail, now);
    }
}

/// What a frame asks of the conversation.
enum Heard {
    /// A page, and the next one's cursor.
    Page(Option<String>),
    Else,
}

async fn write<E>(sending: impl Future<Output = Result<(), E>>) -> Result<(), Option<u16>> {
    match timeout(SOCKET_PATIENCE, sending).await {
        Ok(Ok(())) => Ok(()),
        _ => Err(None),
    }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => std::future::pending().await,
    }
}
