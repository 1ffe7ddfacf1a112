//! A person's phone: it speaks the protocol to a session as a gateway would, and keeps what it was told.

use std::collections::BTreeMap;
use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use model::{Meters, Position, TimestampMs, UserId};
use node::{Feed, Node, Refused, Session};
use ports::Clock;
use protocol::client::{ErrorCode, GoneReason, Init, Limit, Nearby, NoticeCode, PageCursor, Report, ServerFrame};
use protocol::close::CloseCode;
use tokio::time::{Instant, sleep};

use crate::foundation::{CONNECTS, PATIENCE};

/// How often it is looked whether something has come.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(10);

/// The middle of town.
pub(crate) const TOWN: (f64, f64) = (40.0, 116.0);
/// Metres in a degree of latitude.
const DEGREE_M: f64 = 111_195.08;

/// A point so many metres north of the middle of town.
pub(crate) fn north(meters: f64) -> Position {
    Position::new(TOWN.0 + meters / DEGREE_M, TOWN.1).unwrap()
}

/// What a phone was told beside positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    Gone(UserId, GoneReason),
    Added(UserId),
    Removed(UserId),
}

pub(crate) struct Phone {
    pub(crate) user: UserId,
    node: Arc<Node>,
    clock: Clock,
    connection: Option<(Session, Feed)>,
    /// Who is near: distance, rounded, and the friend's own time.
    pub(crate) near: BTreeMap<UserId, (f64, u64)>,
    pub(crate) told: Vec<Told>,
    /// `friend` frames so far.
    pub(crate) pushes: usize,
    /// Whom these were about.
    pub(crate) pushed: Vec<UserId>,
    /// The time in the last report that was taken.
    pub(crate) sent_at: u64,
}

impl Phone {
    pub(crate) fn of(user: UserId, node: Arc<Node>, clock: Clock) -> Phone {
        Phone {
            user,
            node,
            clock,
            connection: None,
            near: BTreeMap::new(),
            told: Vec::new(),
            pushes: 0,
            pushed: Vec::new(),
            sent_at: 0,
        }
    }

    /// Another phone of the same person, on the same node.
    pub(crate) fn second(&self) -> Phone {
        Phone::of(self.user, self.node.clone(), self.clock)
    }

    /// The same person's next phone, on another node.
    pub(crate) fn on(&self, node: &Arc<Node>) -> Phone {
        Phone::of(self.user, node.clone(), self.clock)
    }

    pub(crate) fn session(&mut self) -> &mut Session {
        &mut self.connection.as_mut().expect("the phone is connected").0
    }

    pub(crate) fn feed(&mut self) -> &mut Feed {
        &mut self.connection.as_mut().expect("the phone is connected").1
    }

    /// A report from there, now.
    pub(crate) fn report(&self, position: Position) -> Report {
        Report { position, ts: self.clock.wall(), motion: model::Motion::UNKNOWN, sent_at: None }
    }

    /// Only opens the connection.
    pub(crate) fn open(&mut self) {
        self.near.clear();
        self.connection = Some(self.node.open(self.user));
    }

    /// A report from there, now, and later than the last one: virtual time may stand still in between.
    fn next_report(&mut self, position: Position) -> Report {
        let report = self.report(position);
        self.sent_at = report.ts.0.max(self.sent_at + 1);
        Report { ts: TimestampMs(self.sent_at), ..report }
    }

    /// Connects from there; the pages after the first are not asked for.
    pub(crate) async fn connect_at(&mut self, position: Position) -> Nearby {
        let report = self.next_report(position);
        self.init(&Init { report: Some(report), radius: None, limit: None }).await
    }

    /// Connects from there until the first page shows so many friends. It does at once, unless the machine is so busy
    /// that the node could not learn of them all in the time that a connect has; the next one finds them.
    pub(crate) async fn connect_to_see(&mut self, from: Position, limit: Option<Limit>, friends: usize) -> Nearby {
        for _ in 0..CONNECTS {
            let report = self.next_report(from);
            self.vanish();
            let page = self.init(&Init { report: Some(report), radius: None, limit }).await;
            if page.friends.len() == friends {
                return page;
            }
            sleep(PATIENCE / 10).await;
        }
        panic!("{} does not see {friends} friends after connecting, but {:?}", self.user, self.near);
    }

    /// Connects from there, if that can be done at the moment.
    pub(crate) async fn try_connect_at(&mut self, position: Position) -> bool {
        self.open();
        let report = self.next_report(position);
        match self.session().init(&Init { report: Some(report), radius: None, limit: page_of(100) }).await {
            Ok(frame) => {
                self.take_page(frame, true);
                true
            }
            Err(_) => {
                self.vanish();
                false
            }
        }
    }

    /// Connects without a position.
    pub(crate) async fn watch(&mut self) -> Nearby {
        self.init(&Init { report: None, radius: None, limit: None }).await
    }

    pub(crate) async fn init(&mut self, init: &Init) -> Nearby {
        if self.connection.is_none() {
            self.open();
        }
        let frame = self.session().init(init).await.unwrap();
        self.take_page(frame, true)
    }

    fn take_page(&mut self, frame: ServerFrame, replaces: bool) -> Nearby {
        self.feed().flushed();
        let ServerFrame::Nearby(page) = frame else { panic!("a page was expected: {frame:?}") };
        if replaces {
            self.near.clear();
        }
        for friend in &page.friends {
            self.near.insert(friend.id(), (friend.distance_m(), friend.ts()));
        }
        page
    }

    pub(crate) fn more(&mut self, cursor: &str) -> Nearby {
        let cursor: PageCursor = cursor.parse().unwrap();
        let frame = self.session().more(cursor).unwrap();
        self.take_page(frame, false)
    }

    pub(crate) fn radius(&mut self, meters: f64) -> Nearby {
        let frame = self.session().radius(Meters(meters)).unwrap();
        self.take_page(frame, true)
    }

    /// Sends a position.
    pub(crate) fn at(&mut self, position: Position) {
        let report = self.next_report(position);
        self.send(&report).unwrap();
    }

    pub(crate) fn send(&mut self, report: &Report) -> Result<(), Refused> {
        self.session().take_turn()?;
        self.session().location(report)
    }

    /// What it is told about what it sent, beside the answers.
    pub(crate) fn notice(&mut self) -> Option<NoticeCode> {
        match self.session().take_notice()? {
            ServerFrame::Notice(notice) => Some(notice.code),
            other => panic!("no notice: {other:?}"),
        }
    }

    /// The code of the error that a position is answered with.
    pub(crate) fn refused(&mut self, report: &Report) -> ErrorCode {
        match self.send(report) {
            Err(Refused::Bad(bad)) => bad.code,
            other => panic!("an error was expected: {other:?}"),
        }
    }

    /// Takes in what waits.
    pub(crate) fn read(&mut self) {
        loop {
            let (frames, more) = self.drain();
            for frame in frames {
                self.take(frame);
            }
            self.feed().flushed();
            if !more {
                return;
            }
        }
    }

    /// Takes frames out of the engine and does not hand them on: as if the socket were blocked.
    pub(crate) fn read_without_flush(&mut self) -> usize {
        self.drain().0.len()
    }

    fn drain(&mut self) -> (Vec<ServerFrame>, bool) {
        let (now, mut frames) = (self.clock.monotonic(), Vec::new());
        let more = self.feed().drain(now, |frame| frames.push(frame));
        (frames, more)
    }

    fn take(&mut self, frame: ServerFrame) {
        match frame {
            ServerFrame::Friend(friend) => {
                self.pushes += 1;
                self.pushed.push(friend.id());
                let before = self.near.insert(friend.id(), (friend.distance_m(), friend.ts()));
                assert!(before.is_none_or(|(_, ts)| ts <= friend.ts()), "positions never go back");
            }
            ServerFrame::Gone { id, reason } => {
                self.near.remove(&id);
                self.told.push(Told::Gone(id, reason));
            }
            ServerFrame::FriendAdded { id } => self.told.push(Told::Added(id)),
            ServerFrame::FriendRemoved { id } => self.told.push(Told::Removed(id)),
            other => panic!("no news: {other:?}"),
        }
    }

    /// Reads, and says how far away that friend is.
    pub(crate) fn sees(&mut self, friend: &Phone) -> Option<f64> {
        self.read();
        self.near.get(&friend.user).map(|(distance, _)| *distance)
    }

    /// Reads until that friend is seen so far away, which is soon.
    #[track_caller]
    pub(crate) fn comes_to_see<'a>(&'a mut self, friend: &'a Phone, meters: f64) -> impl Future<Output = ()> + 'a {
        self.reads_until(PATIENCE, move |phone| phone.near.get(&friend.user).is_some_and(|(far, _)| *far == meters))
    }

    /// Reads until that friend is seen no longer, which is soon.
    #[track_caller]
    pub(crate) fn loses<'a>(&'a mut self, friend: &'a Phone) -> impl Future<Output = ()> + 'a {
        self.reads_until(PATIENCE, move |phone| !phone.near.contains_key(&friend.user))
    }

    /// Reads until it knows what is asked for; fails when that takes longer.
    #[track_caller]
    pub(crate) fn reads_until<'a>(
        &'a mut self,
        patience: Duration,
        knows: impl Fn(&Phone) -> bool + 'a,
    ) -> impl Future<Output = ()> + 'a {
        let asked_at = Location::caller();
        async move {
            let begun = Instant::now();
            loop {
                self.read();
                if knows(self) {
                    return;
                }
                let Phone { user, near, told, .. } = &*self;
                assert!(
                    begun.elapsed() < patience,
                    "{asked_at}: not within {patience:?}; {user} sees {near:?}, was told {told:?}"
                );
                sleep(LOOK_EVERY).await;
            }
        }
    }

    pub(crate) fn closing(&self) -> Option<CloseCode> {
        self.connection.as_ref().and_then(|(session, _)| session.signal().closing())
    }

    /// Whether its connection was told to drop everything.
    pub(crate) async fn is_cut(&self) {
        self.connection.as_ref().expect("the phone is connected").0.signal().is_cut().await;
    }

    pub(crate) async fn disconnect(&mut self) {
        if let Some((session, _)) = self.connection.take() {
            session.close().await;
        }
    }

    /// The connection is gone without a word.
    pub(crate) fn vanish(&mut self) {
        self.connection = None;
    }
}

/// So many friends to a page.
pub(crate) fn page_of(friends: u64) -> Option<Limit> {
    Limit::new(friends)
}
