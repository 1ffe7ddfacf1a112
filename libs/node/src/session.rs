//! One connection of one user, from registering to its end. The gateway owns the socket and calls these verbs; nothing
//! here knows of sockets.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use model::{Fix, Generation, Meters, MonotonicMs, Order, Place, Position, Radius, Sequence, SessionId, UserId};
use ports::{Claimed, Friendship, PortError, SessionKey};
use protocol::client::{
    BadFrame, ErrorCode, Friend, Init, Limit, Nearby, Notice, NoticeCode, PageCursor, Report, ServerFrame,
};
use thiserror::Error;

use crate::feed::{Feed, Registration};
use crate::limits;
use crate::metrics::Outcome;
use crate::planted::Break;
use crate::rate::Bucket;
use crate::recorder::point;
use crate::shard::{Page, Shard, Taken, ViewerId};
use crate::shared::Shared;
use crate::signal::Signal;

/// Why a frame or call was not taken.
#[derive(Clone, Debug, Error)]
pub enum Refused {
    /// It is wrong; nothing changed.
    #[error(transparent)]
    Bad(#[from] BadFrame),
    /// What it needs is out of reach; it may be tried again.
    #[error(transparent)]
    Unavailable(#[from] PortError),
    /// The user is being deleted.
    #[error("this user is being deleted")]
    Deleted,
    /// This node may not send positions at the moment.
    #[error("positions cannot be sent at the moment: the control log is out of reach")]
    Silent,
}

/// A connection. Registered in its shard from the beginning, so that no change of permissions passes it by. Dropping
/// it and its [`Feed`] ends it; [`Session::close`] also gives up the sharing entry.
pub struct Session {
    registration: Arc<Registration>,
    user: UserId,
    id: SessionId,
    generation: Option<Generation>,
    initialized: bool,
    radius: Radius,
    limit: Limit,
    bucket: Bucket,
    /// A position was too old to be shown,
    found_too_old: bool,
    /// and the client was told so.
    told_too_old: bool,
}

impl Session {
    pub(crate) fn open(shared: Arc<Shared>, user: UserId) -> (Session, Feed) {
        let radius = Radius::new(shared.settings.radius);
        Session::begin(shared, user, radius, Shard::register)
    }

    /// A caller who asks once and keeps no connection.
    pub(crate) fn visit(shared: Arc<Shared>, user: UserId, radius: Radius) -> (Session, Feed) {
        Session::begin(shared, user, radius, Shard::visit)
    }

    fn begin(
        shared: Arc<Shared>,
        user: UserId,
        radius: Radius,
        register: fn(&mut Shard, UserId, Arc<Signal>, Radius) -> ViewerId,
    ) -> (Session, Feed) {
        let settings = &shared.settings;
        let bucket = Bucket::new(settings.updates_per_second, settings.update_burst, shared.clock.monotonic());
        let id = shared.next_session();
        let registration = Registration::begin(shared, user, radius, register);
        let feed = Feed::new(registration.clone());
        let limit = Limit::default();
        let session = Session {
            registration,
            user,
            id,
            generation: None,
            initialized: false,
            radius,
            limit,
            bucket,
            found_too_old: false,
            told_too_old: false,
        };
        (session, feed)
    }

    /// Whose connection.
    pub fn user(&self) -> UserId {
        self.user
    }

    fn shared(&self) -> &Shared {
        &self.registration.shared
    }

    fn viewer(&self) -> ViewerId {
        self.registration.viewer
    }

    /// The connection's bell.
    pub fn signal(&self) -> &Arc<Signal> {
        &self.registration.signal
    }

    /// `init`: the connect protocol, up to the first page. The order is that of `docs/ARCHITECTURE.md`; each step
    /// relies on those before it.
    pub async fn init(&mut self, init: &Init) -> Result<ServerFrame, Refused> {
        if self.initialized {
            return Err(
                bad(ErrorCode::AlreadyInitialized, "init was taken already: connect again to start anew").into()
            );
        }
        let radius = self.shared().check_radius(init.radius.unwrap_or(self.shared().settings.radius))?;
        if let Some(report) = &init.report {
            self.shared().check_time(report)?;
        }
        self.watch_radius(radius);
        let friends = self.read_friends().await?;
        let before = match init.report {
            Some(_) => self.share().await?,
            None => None,
        };
        let (to_read, begun) = self.registration.with_interests(|shard, interests| {
            if self.shared().plants(Break::IgnoreEntries) {
                shard.forget_entries(self.viewer());
            }
            let to_read = shard.admit(self.viewer(), &friends, interests);
            if init.report.is_none() {
                shard.follow_own(self.viewer(), interests);
            }
            to_read
        });
        self.shared().pair_reads.submit(to_read);
        // Neither waits for the other, so that a takeover connects no later.
        tokio::join!(self.shared().subscriptions.ensure(begun), self.tell_before(before, init.report.as_ref()));
        if let Some(report) = &init.report {
            let age = self.shared().age_unless_shown(self.user, report).await;
            self.take(report, age);
        }
        self.initialized = true;
        self.limit = init.limit.unwrap_or_default();
        self.first_page()
    }

    /// Whom the directory lets this user see, to be applied less every entry that arrived since registering.
    pub(crate) async fn read_friends(&self) -> Result<Vec<Friendship>, PortError> {
        let friends = self.shared().backends.friendships.visible_to(self.user).await?;
        if self.shared().plants(Break::ReadBeforeRegistering) {
            self.registration.with_shard(|shard| shard.forget_entries(self.viewer()));
        }
        Ok(friends)
    }

    /// Becomes the sharing connection of its user, in the place of any other, which is returned.
    async fn share(&mut self) -> Result<Option<SessionKey>, PortError> {
        let Claimed { generation, before } = self.shared().claim(self.user, self.id).await?;
        self.generation = Some(generation);
        let ((), begun) = self.registration.with_interests(|shard, interests| {
            if let Some(before) = shard.share(self.viewer(), generation) {
                shard.follow_own(before, interests);
            }
        });
        self.shared().subscriptions.submit(begun);
        Ok(before)
    }

    /// Tells the connection whose place this one took.
    async fn tell_before(&self, before: Option<SessionKey>, report: Option<&Report>) {
        if let (Some(before), Some(report), Some(generation)) = (before, report, self.generation) {
            self.shared().tell(before.node, &self.shared().fix(self.user, report, generation)).await;
        }
    }

    /// Every frame after `init` costs one: positions, pages, radii and tokens all make work.
    pub fn take_turn(&mut self) -> Result<(), Refused> {
        if self.bucket.take(self.shared().clock.monotonic()) {
            return Ok(());
        }
        self.shared().metrics.update(Outcome::RateLimited);
        let settings = &self.shared().settings;
        let message = format!(
            "at most {} frames a second, {} at once: this one was dropped",
            settings.updates_per_second, settings.update_burst
        );
        Err(bad(ErrorCode::RateLimited, &message).into())
    }

    /// `location`: a new position. No answer unless it is wrong.
    pub fn location(&mut self, report: &Report) -> Result<(), Refused> {
        let metrics = &self.shared().metrics;
        if !self.initialized {
            return Err(not_initialized().into());
        }
        if let Err(wrong) = self.shared().check_time(report) {
            metrics.update(Outcome::Bad);
            return Err(wrong.into());
        }
        let age = self.shared().age(report);
        match self.take(report, age) {
            Taken::Newest | Taken::Stale | Taken::TooOld => Ok(()),
            Taken::NotSharing => Err(bad(
                ErrorCode::NotSharing,
                "this connection watches: init had no position, or another device of this user shares since; to share from here, connect again with a position in init",
            )
            .into()),
        }
    }

    /// The first half of one update's way: the viewer moves, the pump carries it on.
    fn take(&mut self, report: &Report, age: Duration) -> Taken {
        let Some(generation) = self.generation else {
            self.shared().metrics.update(Outcome::NotSharing);
            return Taken::NotSharing;
        };
        let fix = self.shared().fix(self.user, report, generation);
        let now = self.shared().clock.monotonic();
        let taken = self.registration.with_shard(|shard| {
            let taken = shard.moved(&fix, age, now);
            // Under the lock, so that a deletion comes before both or after both: the history is given no point of a user
            // whom it has erased.
            self.shared().carry_on(&fix, taken);
            taken
        });
        self.found_too_old |= taken == Taken::TooOld;
        taken
    }

    /// What the client is to be told about what it sent and what was taken, beside the answer and after it; once.
    pub fn take_notice(&mut self) -> Option<ServerFrame> {
        if !self.found_too_old || std::mem::replace(&mut self.told_too_old, true) {
            return None;
        }
        Some(ServerFrame::Notice(self.shared().too_old()))
    }

    /// `radius`: watch another radius; answered with the first page.
    pub fn radius(&mut self, radius: Meters) -> Result<ServerFrame, Refused> {
        self.must_be_initialized()?;
        let radius = self.shared().check_radius(radius)?;
        self.watch_radius(radius);
        self.first_page()
    }

    fn watch_radius(&mut self, radius: Radius) {
        self.radius = radius;
        self.registration.with_shard(|shard| shard.set_radius(self.viewer(), radius));
    }

    /// `more`: a later page.
    pub fn more(&mut self, after: PageCursor) -> Result<ServerFrame, Refused> {
        self.must_be_initialized()?;
        let now = self.shared().may_send()?;
        let page = self.registration.with_shard(|shard| shard.next_page(self.viewer(), after, now));
        Ok(self.shared().nearby_frame(&page, self.radius.meters()))
    }

    fn first_page(&mut self) -> Result<ServerFrame, Refused> {
        let now = self.shared().may_send()?;
        let page = self.registration.with_shard(|shard| shard.first_page(self.viewer(), self.limit, now));
        Ok(self.shared().nearby_frame(&page, self.radius.meters()))
    }

    /// The page that a visitor asked for.
    pub(crate) fn look_once(
        &self,
        friends: &[Friendship],
        found: &[Fix],
        position: Position,
        after: Option<PageCursor>,
        limit: Limit,
        now: MonotonicMs,
    ) -> Page {
        let place = Place::new(position);
        let entries = self.registration.with_shard(|shard| {
            if self.shared().plants(Break::IgnoreEntries) {
                shard.forget_entries(self.viewer());
            }
            shard.look_once(self.viewer(), friends, found, &place, &self.radius, now)
        });
        Page::of(entries, after, limit)
    }

    fn must_be_initialized(&self) -> Result<(), Refused> {
        if self.initialized { Ok(()) } else { Err(not_initialized().into()) }
    }

    /// The connection is closed, and its socket gone: gives up the sharing entry, if it is still this connection's.
    pub async fn close(self) {
        // A revoke that waits for this connection need not wait for the registry.
        self.registration.signal.ended();
        if self.generation.is_some() {
            let key = SessionKey { node: self.shared().id, session: self.id };
            if let Err(error) = self.shared().backends.sessions.release(self.user, key).await {
                tracing::debug!(%error, "a sharing entry could not be released; the next claim replaces it");
            }
        }
    }
}

impl Shared {
    /// The radius, if it is within the bounds.
    pub(crate) fn check_radius(&self, radius: Meters) -> Result<Radius, BadFrame> {
        let max = self.settings.max_radius;
        if !(radius.0 > 0.0 && radius.0 <= max.0) {
            return Err(BadFrame::value("radius_m", format!("must be above 0 and at most {} metres", max.0)));
        }
        Ok(Radius::new(radius))
    }

    /// Receive time decides activity; a device's time only orders its positions, and is bounded so that one wrong
    /// clock cannot freeze a user, or fill the history with days that never were.
    pub(crate) fn check_time(&self, report: &Report) -> Result<(), BadFrame> {
        let now = self.clock.wall();
        if report.ts > now.after(limits::AHEAD) {
            let ahead = (report.ts.0 - now.0) / 1_000;
            let most = limits::AHEAD.as_secs();
            return Err(BadFrame::value(
                "ts",
                format!("is {ahead} s in the future: at most {most} s, in milliseconds"),
            ));
        }
        if report.ts < now.before(self.settings.retention) {
            let days = self.settings.retention.as_secs() / 86_400;
            return Err(BadFrame::value("ts", format!("is more than {days} days ago (is it in milliseconds?)")));
        }
        Ok(())
    }

    /// How old a report was when it was sent, by the device's clock; by this machine's, if the device does not say when
    /// it sent it. Decides only whether friends are shown it.
    pub(crate) fn age(&self, report: &Report) -> Duration {
        let sent_at = report.sent_at.unwrap_or_else(|| self.clock.wall());
        Duration::from_millis(sent_at.0.saturating_sub(report.ts.0))
    }

    /// The same of a report that the shard may know nothing about, because what is shown of its user was taken in on
    /// another connection. Zero when it is the report that friends are shown: a device that rests repeats it.
    pub(crate) async fn age_unless_shown(&self, user: UserId, report: &Report) -> Duration {
        let age = self.age(report);
        if age <= self.settings.ttl {
            return age;
        }
        let shown = self.read_from_cache(user).await;
        if shown.is_some_and(|shown| shown.order.ts == report.ts) { Duration::ZERO } else { age }
    }

    /// What a device is told whose position was too old to be shown.
    pub(crate) fn too_old(&self) -> Notice {
        let ttl = self.settings.ttl.as_secs();
        Notice {
            code: NoticeCode::TooOld,
            message: format!(
                "a position older than {ttl} s goes to the history and is not shown: send a newer one, or in `sent_at` the device's time at the sending, if its clock is wrong"
            ),
        }
    }

    /// A report as this node takes it in now.
    pub(crate) fn fix(&self, user: UserId, report: &Report, generation: Generation) -> Fix {
        Fix {
            user,
            place: Place::new(report.position),
            order: Order { generation, ts: report.ts, seq: self.next_sequence() },
            expires: self.clock.monotonic().after(self.settings.ttl),
            // The shard knows it.
            policy: model::PolicyVersion(0),
            motion: report.motion,
        }
    }

    /// The number of the next report, above all before.
    fn next_sequence(&self) -> Sequence {
        let now = self.clock.wall().0.saturating_mul(1_000);
        let next = |last: u64| now.max(last.saturating_add(1));
        let last = self.last_sequence.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| Some(next(last)));
        Sequence(next(last.unwrap_or_else(|last| last)))
    }

    /// Where a position goes that the shard has seen: if it is the newest, the pump carries it to the waist; in any case
    /// of a device that shares it goes to the history. Every one of them, also those that are replaced by a newer one
    /// before the pump comes to them, and those of a queue that a phone kept while it was offline.
    pub(crate) fn carry_on(&self, fix: &Fix, taken: Taken) {
        let outcome = match taken {
            Taken::Newest => Outcome::Newest,
            Taken::Stale => Outcome::Late,
            Taken::TooOld => Outcome::TooOld,
            Taken::NotSharing => Outcome::NotSharing,
        };
        self.metrics.update(outcome);
        if taken != Taken::NotSharing {
            self.recorder.offer([point(fix)]);
        }
    }

    /// A page as its frame.
    pub(crate) fn nearby_frame(&self, page: &Page, radius: Meters) -> ServerFrame {
        ServerFrame::Nearby(self.nearby(page, radius))
    }

    pub(crate) fn nearby(&self, page: &Page, radius: Meters) -> Nearby {
        Nearby {
            friends: page.entries.iter().map(|entry| Friend::new(&entry.shared, entry.distance)).collect(),
            next_cursor: page.next.map(|next| next.to_string()),
            radius_m: radius.0,
            location_ttl_s: self.settings.ttl.as_secs(),
        }
    }
}

fn bad(code: ErrorCode, message: &str) -> BadFrame {
    BadFrame { code, field: None, message: message.to_owned() }
}

fn not_initialized() -> BadFrame {
    bad(ErrorCode::NotInitialized, "the first frame of a connection is init")
}
