//! One connection: the client's end, and a gateway's end that does what `Connection` of the crate `gateway` does.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use model::UserId;
use node::{Feed, NearbyCall, Node, Refused, Session};
use parking_lot::Mutex;
use protocol::client::{ErrorCode, Init, Limit, Report, ServerFrame};
use protocol::close::CloseCode;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until};

use crate::chaos::Chaos;
use crate::judge::Judge;

/// A gateway closes a connection that takes nothing for so long.
const STALL: Duration = Duration::from_secs(10);
/// Over how long a gateway spreads the closes of a restart.
const SPREAD_MS: u64 = 3_000;

/// A position with its number among its owner's.
pub(crate) type Numbered = (u64, Report);

/// What the two ends have in common: the wire, and what came over it.
pub(crate) struct Line {
    pub(crate) user: UserId,
    pub(crate) node: usize,
    sent: Mutex<VecDeque<Numbered>>,
    state: Mutex<State>,
    to_server: Notify,
    to_client: Notify,
    /// The number of the last position that was taken.
    taken: AtomicU64,
}

#[derive(Default)]
struct State {
    is_closed: bool,
    is_live: bool,
    has_ended: bool,
    /// Another connection of the user shares.
    is_displaced: bool,
    /// The client's view: the number of each near friend's position.
    near: BTreeMap<UserId, u64>,
}

impl Line {
    pub(crate) fn new(user: UserId, node: usize) -> Arc<Line> {
        Arc::new(Line {
            user,
            node,
            sent: Mutex::default(),
            state: Mutex::default(),
            to_server: Notify::new(),
            to_client: Notify::new(),
            taken: AtomicU64::new(0),
        })
    }

    /// The client sends a position.
    pub(crate) fn send(&self, report: Numbered) {
        self.sent.lock().push_back(report);
        self.to_server.notify_one();
    }

    /// The client closes, or is gone: the server finds out when it looks.
    pub(crate) fn close(&self) {
        self.state.lock().is_closed = true;
        self.to_server.notify_one();
    }

    /// Waits until the first page is there; false when the connection ended before.
    pub(crate) async fn live(&self) -> bool {
        loop {
            if self.has_ended() {
                return false;
            }
            if self.is_live() {
                return true;
            }
            self.to_client.notified().await;
        }
    }

    pub(crate) fn is_live(&self) -> bool {
        let state = self.state.lock();
        state.is_live && !state.has_ended
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.state.lock().has_ended
    }

    pub(crate) fn is_displaced(&self) -> bool {
        self.state.lock().is_displaced
    }

    pub(crate) fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    pub(crate) fn view(&self) -> BTreeMap<UserId, u64> {
        self.state.lock().near.clone()
    }

    /// A page replaces what the client holds; positions do not go back by it.
    pub(crate) fn begin_view(&self) {
        let mut state = self.state.lock();
        state.is_live = true;
        state.near.clear();
        self.to_client.notify_one();
    }

    pub(crate) fn see(&self, friend: UserId, number: u64) -> Option<u64> {
        self.state.lock().near.insert(friend, number)
    }

    pub(crate) fn lose(&self, friend: UserId) {
        self.state.lock().near.remove(&friend);
    }

    fn update(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock());
        self.to_client.notify_one();
    }
}

/// The gateway's end.
pub(crate) struct Served {
    pub(crate) line: Arc<Line>,
    pub(crate) node: Arc<Node>,
    pub(crate) chaos: Arc<Chaos>,
    pub(crate) judge: Arc<Judge>,
}

impl Served {
    /// Serves until one of the two ends it; the whole is frozen with the node.
    pub(crate) async fn run(self, first: Option<Numbered>) {
        self.chaos.freezer(self.line.node).around(self.serve(first)).await;
    }

    async fn serve(&self, first: Option<Numbered>) {
        let (mut session, mut feed) = self.node.open(self.line.user);
        let signal = session.signal().clone();
        self.chaos.note(("open", self.line.user, self.line.node));
        tokio::select! {
            // A gateway asks either first; what is written before the cut is noticed is the harder case.
            biased;
            _ = self.speak(&mut session, &mut feed, first) => {}
            () = signal.is_cut() => {}
        }
        self.chaos.note(("end", self.line.user, self.line.node));
        // The socket is dropped here: nothing is handed over any more.
        session.close().await;
        self.line.update(|state| state.has_ended = true);
    }

    /// `None`: the end.
    async fn speak(&self, session: &mut Session, feed: &mut Feed, first: Option<Numbered>) -> Option<()> {
        self.chaos.delay().await;
        let init = Init { report: first.map(|(_, report)| report), radius: None, limit: Limit::new(100) };
        let page = session.init(&init).await.ok()?;
        if let Some((number, _)) = first {
            self.chaos.note(("connected", self.line.user, self.line.node, number));
            self.line.taken.store(number, Ordering::Relaxed);
        }
        self.write(feed, &[page]).await?;
        let mut close_at = None;
        loop {
            self.attend(session, &mut close_at)?;
            self.write_news(feed).await?;
            self.hear(session)?;
            let own_close = async {
                match close_at {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = session.signal().rung() => {}
                () = self.line.to_server.notified() => {}
                () = own_close => return None,
            }
        }
    }

    /// A restart lets a connection be served until its moment comes; anything else closes it now.
    fn attend(&self, session: &Session, close_at: &mut Option<Instant>) -> Option<()> {
        match session.signal().closing() {
            None => {}
            Some(CloseCode::Restart) if close_at.is_none() => {
                *close_at = Some(Instant::now() + self.chaos.millis(0..SPREAD_MS));
            }
            Some(CloseCode::Restart) => {}
            Some(_) => return None,
        }
        Some(())
    }

    async fn write_news(&self, feed: &mut Feed) -> Option<()> {
        loop {
            let mut frames = Vec::new();
            let more = feed.drain(self.node.clock().monotonic(), |frame| frames.push(frame));
            if frames.is_empty() {
                return Some(());
            }
            self.write(feed, &frames).await?;
            if !more {
                return Some(());
            }
        }
    }

    /// Hands frames to the kernel when the socket is ready, if they may go out then.
    async fn write(&self, feed: &mut Feed, frames: &[ServerFrame]) -> Option<()> {
        let delay = self.chaos.socket_delay();
        if !delay.is_zero() {
            sleep(delay.min(STALL)).await;
        }
        if delay > STALL || !feed.may_write() {
            return None;
        }
        let shown = self.judge.handed(&self.line, frames);
        self.chaos.note(("written", self.line.user, self.line.node, frames.len(), shown));
        feed.flushed();
        Some(())
    }

    fn hear(&self, session: &mut Session) -> Option<()> {
        loop {
            let next = self.line.sent.lock().pop_front();
            let Some((number, report)) = next else { break };
            match session.location(&report) {
                Ok(()) => {
                    self.chaos.note(("taken", self.line.user, self.line.node, number));
                    self.line.taken.store(number, Ordering::Relaxed);
                }
                Err(Refused::Bad(bad)) if bad.code == ErrorCode::NotSharing => {
                    self.line.update(|state| state.is_displaced = true);
                }
                Err(_) => return None,
            }
        }
        (!self.line.state.lock().is_closed).then_some(())
    }

    /// `GET /v1/nearby`: asks once, and the answer takes its time to the socket.
    pub(crate) async fn call(self) {
        let call = async {
            let Ok(answer) = self.node.nearby(self.line.user, &NearbyCall::default()).await else { return };
            tokio::select! {
                biased;
                () = sleep(self.chaos.socket_delay()) => {}
                () = answer.signal().is_cut() => return,
            }
            if answer.may_write() {
                let shown = self.judge.handed(&self.line, &[ServerFrame::Nearby(answer.nearby.clone())]);
                self.chaos.note(("answered", self.line.user, self.line.node, shown));
            }
        };
        self.chaos.freezer(self.line.node).around(call).await;
    }
}
