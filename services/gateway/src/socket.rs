//! One WebSocket: frames in, news out, until one of the two ends it.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use model::{MonotonicMs, TimestampMs, UserId};
use node::{Feed, Refused, Session, Signal};
use protocol::client::{BadFrame, ClientFrame, ErrorCode, Init, ServerFrame, decode};
use protocol::close::CloseCode;
use rand::RngExt;
use tokio::time::{sleep, timeout};
use web::{AuthError, Place, Taken};

use crate::outbound::{Outbound, Written};
use crate::state::{GatewayLimits, GatewayState};
use crate::websocket::{Broken, Heard, Incoming, push, push_close, push_ping, push_pong};

/// Bytes that are read and not looked at from a client that has broken the rules, before the connection is dropped:
/// dropped with bytes unread, it could take the close with it.
const DISCARDED_BYTES: usize = 64 * 1_024;

/// Why a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// With this code.
    Close(CloseCode),
    /// The client closed, or is gone: nothing more to say.
    Gone,
}

/// One connection, from the upgrade to its end.
pub(crate) struct Connection {
    state: GatewayState,
    incoming: Incoming,
    outbound: Arc<Outbound>,
    place: Place,
    session: Session,
    signal: Arc<Signal>,
    init_by: Option<MonotonicMs>,
    token_until: MonotonicMs,
    heard_at: MonotonicMs,
    pinged: bool,
    /// When to close, once the node is stopping.
    close_at: Option<MonotonicMs>,
    refused: u32,
}

impl Connection {
    pub(crate) fn new(
        state: GatewayState,
        taken: Taken,
        (session, feed): (Session, Feed),
        token_expires: TimestampMs,
    ) -> Connection {
        let now = state.node.clock().monotonic();
        let (incoming, outgoing) = taken.stream.into_split();
        let mut connection = Connection {
            incoming: Incoming::new(incoming, &taken.ahead, state.limits.message_bytes),
            outbound: Outbound::begin(outgoing, feed, state.node.clock(), state.limits.push_interval),
            place: taken.place,
            signal: session.signal().clone(),
            session,
            init_by: Some(now.after(state.limits.init_patience)),
            token_until: now,
            heard_at: now,
            pinged: false,
            close_at: None,
            refused: 0,
            state,
        };
        connection.trust_until(token_expires);
        connection
    }

    pub(crate) async fn run(mut self) {
        let signal = self.signal.clone();
        let end = tokio::select! {
            biased;
            () = signal.is_cut() => End::Gone,
            end = self.speak(&signal) => end,
        };
        if let End::Close(code) = end {
            // A client that is cut, or that does not read, does not get to see it.
            tokio::select! {
                () = Box::pin(self.say_goodbye(code)) => {}
                () = signal.is_cut() => {}
            }
        }
        let Connection { incoming, outbound, place, session, .. } = self;
        outbound.end();
        drop((incoming, outbound, place));
        Box::pin(session.close()).await;
    }

    async fn speak(&mut self, signal: &Signal) -> End {
        loop {
            if let Err(end) = self.turn(signal).await {
                return end;
            }
        }
    }

    /// Waits for the bell, for a moment of its own or for the client, and does what they ask for.
    async fn turn(&mut self, signal: &Signal) -> Result<(), End> {
        signal.wake_at(self.next_deadline());
        let mut bell = pin!(signal.rung());
        let mut moment = pin!(self.own_moment());
        let incoming = &mut self.incoming;
        // Both are looked at each time, so that neither a busy client nor busy friends keep the other waiting.
        let (rung, heard) = poll_fn(|cx| {
            let rung = bell.as_mut().poll(cx).is_ready() | moment.as_mut().poll(cx).is_ready();
            match incoming.poll_heard(cx) {
                Poll::Ready(heard) => Poll::Ready((rung, Some(heard))),
                Poll::Pending if rung => Poll::Ready((rung, None)),
                Poll::Pending => Poll::Pending,
            }
        })
        .await;
        if rung {
            self.attend().await?;
        }
        match heard {
            Some(heard) => self.hear(heard.map_err(end_of)?).await,
            None => Ok(()),
        }
    }

    /// The bell was rung: a reason to close, a deadline, or news.
    async fn attend(&mut self) -> Result<(), End> {
        let now = self.state.node.clock().monotonic();
        match self.signal.closing() {
            None => {}
            Some(CloseCode::Restart) => self.drain(now).await?,
            Some(code) => return Err(End::Close(code)),
        }
        if now >= self.token_until {
            return Err(End::Close(CloseCode::Authenticate));
        }
        if self.init_by.is_some_and(|by| now >= by) {
            return Err(End::Close(CloseCode::Slow));
        }
        let silent = now.since(self.heard_at);
        if silent >= self.state.limits.dead_after {
            return Err(End::Gone);
        }
        if silent >= self.state.limits.ping_after && !self.pinged {
            self.pinged = true;
            self.write(push_ping).await?;
        }
        self.write_news().await
    }

    /// When the bell is to be rung whatever happens.
    fn next_deadline(&self) -> MonotonicMs {
        let limits = &self.state.limits;
        let silence = if self.pinged { limits.dead_after } else { limits.ping_after };
        let deadlines = [Some(self.heard_at.after(silence)), Some(self.token_until), self.init_by, self.close_at];
        deadlines.into_iter().flatten().min().unwrap_or(self.token_until)
    }

    fn trust_until(&mut self, expires: TimestampMs) {
        let clock = self.state.node.clock();
        let left = expires.0.saturating_sub(clock.wall().0);
        self.token_until = clock.monotonic().after(Duration::from_millis(left));
        self.outbound.trust_until(self.token_until);
    }

    /// Waits for the moment of the close of a stopping node, or that of news which wait. Only then a connection has a
    /// timer of its own: the engine's ticker would ring for all of a second at once.
    fn own_moment(&self) -> impl Future<Output = ()> + use<> {
        let close = self.close_at.map(|at| at.since(self.state.node.clock().monotonic()));
        let is_paced = !self.state.limits.push_interval.is_zero();
        let news = if is_paced { self.outbound.news_wait() } else { None };
        let left = [close, news].into_iter().flatten().min();
        async move {
            match left {
                // Rare, and large: not to be part of every connection. The same holds for each boxed future here.
                Some(left) => Box::pin(sleep(left)).await,
                None => std::future::pending().await,
            }
        }
    }

    /// The node is stopping: says so at once, and closes at a moment of this connection's own.
    async fn drain(&mut self, now: MonotonicMs) -> Result<(), End> {
        match self.close_at {
            Some(at) if now >= at => Err(End::Close(CloseCode::Restart)),
            Some(_) => Ok(()),
            None => {
                let spread = self.state.limits.drain.as_millis() as u64;
                let delay = rand::rng().random_range(0..=spread);
                self.close_at = Some(now.after(Duration::from_millis(delay)));
                self.answer(&ServerFrame::Drain { retry_after_ms: delay }).await
            }
        }
    }

    async fn hear(&mut self, heard: Heard) -> Result<(), End> {
        self.heard_at = self.state.node.clock().monotonic();
        self.pinged = false;
        let text = match heard {
            Heard::Text(text) => text,
            Heard::Ping(payload) => {
                return self.write(|out| push_pong(out, &payload)).await;
            }
            Heard::Pong => return Ok(()),
            Heard::Close(code) => {
                // A client that hears no answer takes the connection for broken.
                self.outbound.hold();
                self.write(|out| push_close(out, code, "")).await?;
                return Err(End::Gone);
            }
        };
        // Nothing is answered any more to who has to go; a stopping node still serves.
        if let Some(code) = self.signal.closing().filter(|code| *code != CloseCode::Restart) {
            return Err(End::Close(code));
        }
        let reply = match decode(&text) {
            Ok(frame) => self.take(frame).await,
            Err(bad) => Err(bad.into()),
        };
        match reply {
            Ok(reply) => {
                self.refused = 0;
                if let Some(reply) = reply {
                    self.answer(&reply).await?;
                }
                match self.session.take_notice() {
                    Some(notice) => self.answer(&notice).await,
                    None => Ok(()),
                }
            }
            Err(refused) => self.refuse(refused).await,
        }
    }

    async fn take(&mut self, frame: ClientFrame) -> Result<Option<ServerFrame>, Refused> {
        if !matches!(frame, ClientFrame::Init(_)) {
            self.session.take_turn()?;
        }
        if matches!(frame, ClientFrame::Init(_) | ClientFrame::More(_) | ClientFrame::Radius(_)) {
            // Until it is answered with a page.
            self.outbound.hold();
        }
        match frame {
            ClientFrame::Location(report) => self.session.location(&report).map(|()| None),
            ClientFrame::Init(init) => Box::pin(self.begin(&init)).await.map(Some),
            ClientFrame::Auth(token) => Box::pin(self.authenticate(&token)).await.map(|()| None),
            ClientFrame::More(cursor) => self.session.more(cursor).map(Some),
            ClientFrame::Radius(radius) => self.session.radius(radius).map(Some),
        }
    }

    async fn begin(&mut self, init: &Init) -> Result<ServerFrame, Refused> {
        let patience = self.state.limits.connecting_patience;
        let _place = self.state.admission.wait(patience).await.ok_or(Refused::Silent)?;
        let first = self.session.init(init).await?;
        self.init_by = None;
        Ok(first)
    }

    async fn authenticate(&mut self, token: &str) -> Result<(), Refused> {
        let bad = |message: String| BadFrame { code: ErrorCode::BadToken, field: Some("token"), message };
        let caller = match self.state.authenticator.authenticate(token).await {
            Ok(caller) => caller,
            Err(AuthError::Users(error)) => return Err(error.into()),
            Err(error) => return Err(bad(error.to_string()).into()),
        };
        if !caller.is(self.session.user()) {
            return Err(bad("the token is another user's: open a connection of its own for that user".into()).into());
        }
        self.trust_until(caller.expires);
        Ok(())
    }

    /// Answers what was not taken. A client that does nothing else is closed.
    async fn refuse(&mut self, refused: Refused) -> Result<(), End> {
        let error = match refused {
            Refused::Bad(bad) => bad,
            Refused::Deleted => return Err(End::Close(CloseCode::Forbidden)),
            Refused::Unavailable(_) | Refused::Silent => {
                tracing::debug!(user = ?self.session.user(), %refused, "a connection has to try later");
                return Err(End::Close(CloseCode::TryLater));
            }
        };
        // A device that watches may go on sending: it does not know better.
        self.refused += u32::from(error.code != ErrorCode::NotSharing);
        if self.refused > self.state.limits.refused_in_a_row {
            return Err(End::Close(CloseCode::TooMany));
        }
        self.answer(&ServerFrame::Error(error.into())).await
    }

    async fn answer(&mut self, frame: &ServerFrame) -> Result<(), End> {
        self.write(|out| push(out, frame)).await?;
        self.outbound.release();
        Ok(())
    }

    /// Hands something to the kernel, in one write if it takes it, and waits until it has taken it all.
    async fn write(&mut self, push: impl FnOnce(&mut Vec<u8>)) -> Result<(), End> {
        match self.outbound.write(push) {
            Written::All => Ok(()),
            Written::Part => Box::pin(self.write_rest()).await,
            Written::Gone => Err(End::Gone),
        }
    }

    /// Writes the news that the courier could not.
    async fn write_news(&mut self) -> Result<(), End> {
        loop {
            match self.outbound.write_news() {
                Written::All => return Ok(()),
                Written::Part => Box::pin(self.write_rest()).await?,
                Written::Gone => return Err(End::Gone),
            }
        }
    }

    /// Waits until the kernel has taken everything, as long as the client takes something now and then.
    async fn write_rest(&self) -> Result<(), End> {
        // Only who does not read gets a timer.
        let (mut written, mut stalled) = (self.outbound.bytes(), Duration::ZERO);
        let GatewayLimits { stall, .. } = self.state.limits;
        let step = stall / 10;
        loop {
            if let Ok(done) = timeout(step, self.all_written()).await {
                return done;
            }
            // Looked at often: what is taken at the beginning, up to the size of the buffers, is no reading.
            stalled += step;
            if std::mem::replace(&mut written, self.outbound.bytes()) != written {
                stalled = Duration::ZERO;
            } else if stalled >= stall {
                return Err(End::Close(CloseCode::Slow));
            }
        }
    }

    async fn all_written(&self) -> Result<(), End> {
        loop {
            match self.outbound.write(|_| {}) {
                Written::All => return Ok(()),
                Written::Part => self.incoming.has_room().await,
                Written::Gone => return Err(End::Gone),
            }
        }
    }

    /// Closes with a code, and waits a moment for the client's answer, so that the code is not lost with the socket.
    async fn say_goodbye(&mut self, code: CloseCode) {
        let user: UserId = self.session.user();
        tracing::debug!(?user, code = code.code(), "closing a connection");
        self.outbound.hold();
        let limits = self.state.limits;
        let closed = self.outbound.write(|out| push_close(out, Some(code.code()), code.reason()));
        let is_told = match closed {
            Written::All => true,
            Written::Part => matches!(timeout(limits.stall_close, self.all_written()).await, Ok(Ok(()))),
            Written::Gone => false,
        };
        if is_told {
            let _ = timeout(limits.close_patience, hear_goodbye(&mut self.incoming)).await;
        }
    }
}

/// Reads on until the client closes, too.
async fn hear_goodbye(incoming: &mut Incoming) {
    let broken = loop {
        match poll_fn(|cx| incoming.poll_heard(cx)).await {
            Ok(Heard::Close(_)) => return,
            Ok(_) => {}
            Err(broken) => break broken,
        }
    };
    let mut left = if broken == Broken::Gone { 0 } else { DISCARDED_BYTES };
    while left > 0 {
        match poll_fn(|cx| incoming.poll_discard(cx)).await {
            Ok(read) => left = left.saturating_sub(read),
            Err(_) => return,
        }
    }
}

/// What it means for the client that no more can be heard.
fn end_of(broken: Broken) -> End {
    match broken {
        Broken::Gone => End::Gone,
        Broken::Rules => End::Close(CloseCode::Policy),
        Broken::TooBig => End::Close(CloseCode::TooBig),
    }
}
