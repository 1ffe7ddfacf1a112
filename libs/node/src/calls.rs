//! The engine's verbs for callers without a connection: one page of near friends, and posted positions.

use std::sync::Arc;
use std::time::Duration;

use model::{Fix, Generation, Meters, MonotonicMs, Position, SessionId, UserId};
use ports::{HistoryPoint, PortError};
use protocol::client::{BadFrame, Limit, Nearby, Notice, PageCursor, Report};

use crate::recorder::point;
use crate::session::Refused;
use crate::{Feed, Node, Session, Signal};

/// What [`Node::nearby`] is asked.
#[derive(Clone, Copy, Debug, Default)]
pub struct NearbyCall {
    /// Where the caller is; `None` for the user's own newest position.
    pub position: Option<Position>,
    /// How far to look; `None` for the default radius.
    pub radius: Option<Meters>,
    /// Friends to a page; `None` for the cursor's, or the default.
    pub limit: Option<Limit>,
    /// Where the page before ended.
    pub cursor: Option<PageCursor>,
}

/// An answer on its way to the socket. A revoke waits for it as it waits for a connection's frames: until it is
/// dropped, when the last byte has been handed over, or until the caller cuts the connection that
/// [`Answer::signal`] is asked to be cut.
pub struct Answer {
    /// The page.
    pub nearby: Nearby,
    /// Its registration is what the revoke waits for.
    feed: Feed,
}

impl Answer {
    /// Rings [`Signal::cut`] when the answer must not go out any more.
    pub fn signal(&self) -> &Arc<Signal> {
        self.feed.signal()
    }

    /// Whether the answer may still be handed to the kernel; as [`Feed::may_write`].
    pub fn may_write(&self) -> bool {
        self.feed.may_write()
    }
}

impl Node {
    /// Whether this user may call now: the same rate as for a connection's frames, over all the user's calls.
    pub fn may_call(&self, user: UserId) -> bool {
        self.shared.call_rates.take(user, &self.shared.settings, self.shared.clock.monotonic())
    }

    /// The near friends of a user, as `init` would answer, without a connection. It goes the same way: registered
    /// before the friends are read, so that a revoke meanwhile is seen.
    pub async fn nearby(&self, user: UserId, call: &NearbyCall) -> Result<Answer, Refused> {
        let shared = &self.shared;
        let radius = shared.check_radius(call.radius.unwrap_or(shared.settings.radius))?;
        let (session, feed) = Session::visit(shared.clone(), user, radius);
        let friends = session.read_friends().await?;
        let mut users: Vec<UserId> = friends.iter().map(|friend| friend.friend).collect();
        users.push(user);
        let found: Vec<Fix> = shared.backends.cache.get_many(&users).await?.into_iter().flatten().collect();
        let own = found.iter().find(|fix| fix.user == user).map(|fix| fix.place.position());
        let position = call.position.or(own);
        let limit = call.limit.or(call.cursor.map(|cursor| cursor.limit)).unwrap_or_default();
        let now = shared.may_send()?;
        let page = position.map(|position| session.look_once(&friends, &found, position, call.cursor, limit, now));
        let page = page.unwrap_or_default();
        Ok(Answer { nearby: shared.nearby(&page, radius.meters()), feed })
    }

    /// Takes in positions of a device without a connection, oldest first or not: all go to the history, and the newest
    /// moves the user unless it is too old to be shown. Returns when they are durable, with what the device is to be
    /// told about single ones, by their index. `began` is when the caller began to check that the user exists: a
    /// deletion applied since then refuses the call.
    pub async fn record(
        &self,
        user: UserId,
        reports: &[Report],
        began: MonotonicMs,
    ) -> Result<Vec<(usize, Notice)>, Refused> {
        let shared = &self.shared;
        for (at, report) in reports.iter().enumerate() {
            shared.check_time(report).map_err(|bad| in_batch(bad, at, reports.len()))?;
        }
        let ages = self.ages(user, reports).await;
        let is_shown = |at: &usize| ages[*at] <= shared.settings.ttl;
        let moves = (0..reports.len()).filter(is_shown).max_by_key(|at| reports[*at].ts);
        let sharing = match moves {
            Some(_) => shared.sharing(user).await?,
            None => None,
        };
        let generation = match sharing {
            // The same device, which has closed its connection or not noticed yet: device time decides.
            Some(sharing) => sharing.generation,
            // No connection has number 0: whoever connects next claims anew.
            None if moves.is_some() => shared.claim(user, SessionId(0)).await?.generation,
            None => Generation::default(),
        };
        let (durable, moved) = {
            // Held over both, so that a deletion comes before or after them and never between.
            let deleted = shared.deleted.lock();
            if deleted.get(&user).is_some_and(|&at| at >= began) {
                return Err(Refused::Deleted);
            }
            let shard = shared.shard_of(user);
            let fixes: Vec<Fix> = reports.iter().map(|report| shared.fix(user, report, generation)).collect();
            let points: Vec<HistoryPoint> = fixes.iter().map(point).collect();
            let durable = shared.recorder.record(&points)?;
            let moved = moves.map(|at| (fixes[at], ages[at]));
            if let Some((fix, age)) = moved {
                let now = shared.clock.monotonic();
                shared.with_shard(shard, |shard| shard.posted(&fix, age, now));
            }
            (durable, moved)
        };
        if let (Some(sharing), Some((fix, _))) = (sharing, moved) {
            shared.tell(sharing.session.node, &fix).await;
        }
        // The writer tells everybody who waits, unless it is gone.
        let gone = PortError::Unavailable { backend: "history", reason: "this node is stopping".into() };
        durable.await.unwrap_or(Err(gone))?;
        Ok((0..reports.len()).filter(|at| !is_shown(at)).map(|at| (at, shared.too_old())).collect())
    }

    /// How old each report was when it was sent. The newest may be the one that friends are shown.
    async fn ages(&self, user: UserId, reports: &[Report]) -> Vec<Duration> {
        let mut ages: Vec<Duration> = reports.iter().map(|report| self.shared.age(report)).collect();
        if let Some((newest, report)) = reports.iter().enumerate().max_by_key(|(_, report)| report.ts) {
            ages[newest] = self.shared.age_unless_shown(user, report).await;
        }
        ages
    }
}

fn in_batch(bad: BadFrame, at: usize, of: usize) -> BadFrame {
    if of > 1 { BadFrame { message: format!("[{at}]: {}", bad.message), ..bad } } else { bad }
}
