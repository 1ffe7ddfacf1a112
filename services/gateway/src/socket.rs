//! One WebSocket: frames in, news out, until one of the two ends it.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket};
use futures_util::SinkExt;
use model::{MonotonicMs, TimestampMs, UserId};
use node::{Refused, Session, Signal};
use protocol::client::{BadFrame, ClientFrame, ErrorCode, ServerFrame, decode};
use protocol::close::CloseCode;
use rand::RngExt;
use tokio::time::{sleep, timeout};
use tungstenite::Error as WsError;
use tungstenite::error::CapacityError;
use web::{AuthError, Wire};

use crate::state::GatewayState;

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
            end = self.speak() => end,
            () = signal.is_cut() => End::Gone,
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

    async fn speak(&mut self) -> End {
        loop {
            self.signal.wake_at(self.next_deadline());
            let signal = self.signal.clone();
            let heard = tokio::select! {
                () = signal.rung() => None,
                () = self.own_moment() => None,
                message = self.ws.recv() => Some(message),
            };
            let step = match heard {
                None => self.attend().await,
                Some(Some(Ok(message))) => self.hear(message).await,
                Some(Some(Err(error))) => Err(end_of(error)),
                Some(None) => Err(End::Gone),
            };
            if let Err(end) = step {
                return end;
            }
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
            self.write([Message::Ping(Default::default())]).await?;
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

    async fn hear(&mut self, message: Message) -> Result<(), End> {
        self.heard_at = self.state.node.clock().monotonic();
        self.pinged = false;
        let text = match message {
            Message::Text(text) => text,
            // Answered by the library at the next write.
            Message::Ping(_) => return self.write([]).await,
            Message::Pong(_) => return Ok(()),
            Message::Binary(_) => return Err(End::Close(CloseCode::Policy)),
            Message::Close(_) => {
                // The library has the answer ready: a client that hears none takes the connection for broken.
                self.write([]).await?;
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
            ClientFrame::Init(init) => {
                let patience = self.state.limits.connecting_patience;
                let _place = self.state.admission.wait(patience).await.ok_or(Refused::Silent)?;
                let first = self.session.init(&init).await?;
                self.init_by = None;
                Ok(Some(first))
            }
            ClientFrame::More(cursor) => self.session.more(cursor).map(Some),
            ClientFrame::Radius(radius) => self.session.radius(radius).map(Some),
            ClientFrame::Auth(token) => self.authenticate(&token).await.map(|()| None),
        }
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
        self.write([text(frame)]).await?;
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
            self.write(news.frames.iter().map(text)).await?;
            self.session.flushed();
            if !interval.is_zero() {
                self.news_from = self.state.node.clock().monotonic().after(interval);
            }
            if !news.more {
                return Ok(());
            }
        }
    }

    /// Hands messages to the kernel in as few writes as they fit into, and waits until it has taken them all; as long
    /// as the client takes something now and then.
    async fn write(&mut self, messages: impl IntoIterator<Item = Message>) -> Result<(), End> {
        let Connection { ws, wire, state, session, .. } = self;
        let all = while_allowed(session, async {
            for message in messages {
                ws.feed(message).await?;
            }
            ws.flush().await
        });
        tokio::pin!(all);
        let (mut written, mut stalled) = (wire.written(), Duration::ZERO);
        let step = state.limits.stall / 10;
        loop {
            tokio::select! {
                biased;
                done = &mut all => return done.ok_or(End::Gone)?.map_err(end_of),
                // Looked at often: what is taken at the beginning, up to the size of the buffers, is no reading.
                () = sleep(step) => stalled += step,
            }
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
        let frame = CloseFrame { code: code.code(), reason: Utf8Bytes::from_static(code.reason()) };
        let patience = self.state.limits.stall_close;
        let Connection { ws, session, .. } = self;
        let closed = timeout(
            patience,
            while_allowed(session, async {
                ws.send(Message::Close(Some(frame))).await?;
                SinkExt::flush(ws).await
            }),
        );
        if matches!(closed.await, Ok(Some(Ok(())))) {
            let _ =
                timeout(self.state.limits.close_patience, async { while let Some(Ok(_)) = self.ws.recv().await {} })
                    .await;
        }
    }
}

/// Works as long as what is under way may be written; `None` when it may not any more.
async fn while_allowed<T>(session: &Session, work: impl Future<Output = T>) -> Option<T> {
    tokio::pin!(work);
    poll_fn(|cx| if session.may_write() { work.as_mut().poll(cx).map(Some) } else { Poll::Ready(None) }).await
}

fn text(frame: &ServerFrame) -> Message {
    Message::Text(Utf8Bytes::from(frame.encode()))
}

/// What a failed read or write means for the client.
fn end_of(error: axum::Error) -> End {
    match error.into_inner().downcast_ref::<WsError>() {
        Some(WsError::Capacity(CapacityError::MessageTooLong { .. })) => End::Close(CloseCode::TooBig),
        Some(WsError::Utf8(_) | WsError::Protocol(_) | WsError::Capacity(_)) => End::Close(CloseCode::Policy),
        _ => End::Gone,
    }
}
