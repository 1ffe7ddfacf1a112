//! One WebSocket: frames in, news out, until one of the two ends it.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use model::{MonotonicMs, TimestampMs, UserId};
use node::{Refused, Session, Signal};
use protocol::client::{BadFrame, ClientFrame, ErrorCode, Init, ServerFrame, decode};
use protocol::close::CloseCode;
use rand::RngExt;
use tokio::time::{sleep, timeout};
use web::{AuthError, Wire};

use crate::state::GatewayState;
use crate::websocket::{Broken, Heard, WebSocket};

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

/// One connection, which owns its socket and its session.
pub(crate) struct Connection {
    state: GatewayState,
    ws: WebSocket,
    wire: Arc<Wire>,
    session: Session,
    signal: Arc<Signal>,
    init_by: Option<MonotonicMs>,
    token_until: MonotonicMs,
    heard_at: MonotonicMs,
    pinged: bool,
    /// When to close, once the node is stopping.
    close_at: Option<MonotonicMs>,
    /// News are written no sooner.
    news_from: MonotonicMs,
    /// There may be news that wait for that moment, in the shard.
    news_wait: bool,
    refused: u32,
}

impl Connection {
    pub(crate) fn new(
        state: GatewayState,
        ws: WebSocket,
        wire: Arc<Wire>,
        session: Session,
        token_expires: TimestampMs,
    ) -> Connection {
        let now = state.node.clock().monotonic();
        let signal = session.signal().clone();
        let init_by = Some(now.after(state.limits.init_patience));
        let mut connection = Connection {
            ws,
            wire,
            session,
            signal,
            init_by,
            token_until: now,
            heard_at: now,
            pinged: false,
            close_at: None,
            news_from: now,
            news_wait: false,
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
                () = self.say_goodbye(code) => {}
                () = signal.is_cut() => {}
            }
        }
        let Connection { ws, session, .. } = self;
        drop(ws);
        session.close().await;
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
        let ws = &mut self.ws;
        // Both are looked at each time, so that neither a busy client nor busy friends keep the other waiting.
        let (rung, heard) = poll_fn(|cx| {
            let rung = bell.as_mut().poll(cx).is_ready() | moment.as_mut().poll(cx).is_ready();
            match ws.poll_heard(cx) {
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
            self.ws.push_ping();
            self.write().await?;
        }
        self.write_news(now).await
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
    }

    /// Waits for the moment of the close of a stopping node, or that of news which wait. Only then a connection has a
    /// timer of its own: the engine's ticker would ring for all of a second at once.
    fn own_moment(&self) -> impl Future<Output = ()> + use<> {
        let news = self.news_wait.then_some(self.news_from);
        let at = [self.close_at, news].into_iter().flatten().min();
        let left = at.map(|at| at.since(self.state.node.clock().monotonic()));
        async move {
            match left {
                Some(left) => sleep(left).await,
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
                self.ws.push_pong(&payload);
                return self.write().await;
            }
            Heard::Pong => return Ok(()),
            Heard::Close(code) => {
                // A client that hears no answer takes the connection for broken.
                self.ws.push_close(code, "");
                self.write().await?;
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
                match reply {
                    Some(reply) => self.answer(&reply).await,
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
        match frame {
            ClientFrame::Location(report) => self.session.location(&report).map(|()| None),
            // Rare, and large while they wait: not to be part of every connection.
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
            Refused::Unavailable(_) | Refused::Silent => return Err(End::Close(CloseCode::TryLater)),
        };
        // A device that watches may go on sending: it does not know better.
        self.refused += u32::from(error.code != ErrorCode::NotSharing);
        if self.refused > self.state.limits.refused_in_a_row {
            return Err(End::Close(CloseCode::TooMany));
        }
        self.answer(&ServerFrame::Error(error.into())).await
    }

    async fn answer(&mut self, frame: &ServerFrame) -> Result<(), End> {
        self.ws.push(frame);
        self.write().await?;
        self.session.flushed();
        Ok(())
    }

    /// Takes out what there is to tell and hands it to the kernel. What comes too soon after the last stays in the
    /// shard, where a revoke finds it and newer values take its place.
    async fn write_news(&mut self, now: MonotonicMs) -> Result<(), End> {
        if !self.session.is_initialized() {
            return Ok(());
        }
        self.news_wait = now < self.news_from;
        if self.news_wait {
            return Ok(());
        }
        let interval = self.state.limits.push_interval;
        loop {
            let news = self.session.drain();
            if news.frames.is_empty() {
                return Ok(());
            }
            self.ws.expect(news.frames.len());
            news.frames.iter().for_each(|frame| self.ws.push(frame));
            let more = news.more;
            drop(news);
            self.write().await?;
            self.session.flushed();
            if !interval.is_zero() {
                self.news_from = self.state.node.clock().monotonic().after(interval);
            }
            if !more {
                return Ok(());
            }
        }
    }

    /// Hands what was pushed to the kernel, in one write if it takes it, and waits until it has taken it all; as long
    /// as the client takes something now and then.
    async fn write(&mut self) -> Result<(), End> {
        let Connection { ws, wire, state, session, .. } = self;
        let first = poll_fn(|cx| Poll::Ready(poll_write(ws, session, cx))).await;
        if let Poll::Ready(done) = first {
            return done;
        }
        // Only who does not read gets a timer.
        let (mut written, mut stalled) = (wire.written(), Duration::ZERO);
        let step = state.limits.stall / 10;
        loop {
            if let Ok(done) = timeout(step, poll_fn(|cx| poll_write(ws, session, cx))).await {
                return done;
            }
            // Looked at often: what is taken at the beginning, up to the size of the buffers, is no reading.
            stalled += step;
            if std::mem::replace(&mut written, wire.written()) != written {
                stalled = Duration::ZERO;
            } else if stalled >= state.limits.stall {
                return Err(End::Close(CloseCode::Slow));
            }
        }
    }

    /// Closes with a code, and waits a moment for the client's answer, so that the code is not lost with the socket.
    async fn say_goodbye(&mut self, code: CloseCode) {
        let user: UserId = self.session.user();
        tracing::debug!(?user, code = code.code(), "closing a connection");
        let Connection { ws, session, state, .. } = self;
        ws.push_close(Some(code.code()), code.reason());
        let closed = timeout(state.limits.stall_close, poll_fn(|cx| poll_write(ws, session, cx)));
        if matches!(closed.await, Ok(Ok(()))) {
            let _ = timeout(state.limits.close_patience, hear_goodbye(ws)).await;
        }
    }
}

/// Reads on until the client closes, too.
async fn hear_goodbye(ws: &mut WebSocket) {
    let broken = loop {
        match poll_fn(|cx| ws.poll_heard(cx)).await {
            Ok(Heard::Close(_)) => return,
            Ok(_) => {}
            Err(broken) => break broken,
        }
    };
    let mut left = if broken == Broken::Gone { 0 } else { DISCARDED_BYTES };
    while left > 0 {
        match poll_fn(|cx| ws.poll_discard(cx)).await {
            Ok(read) => left = left.saturating_sub(read),
            Err(_) => return,
        }
    }
}

/// Writes as long as what is under way may be written, which is asked before each try.
fn poll_write(ws: &mut WebSocket, session: &Session, cx: &mut Context<'_>) -> Poll<Result<(), End>> {
    if !session.may_write() {
        return Poll::Ready(Err(End::Gone));
    }
    Poll::Ready(ready!(ws.poll_flush(cx)).map_err(end_of))
}

/// What it means for the client that no more can be heard.
fn end_of(broken: Broken) -> End {
    match broken {
        Broken::Gone => End::Gone,
        Broken::Rules => End::Close(CloseCode::Policy),
        Broken::TooBig => End::Close(CloseCode::TooBig),
    }
}
