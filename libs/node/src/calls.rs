//! The engine's verbs for callers without a connection: one page of near friends, and posted positions.

use std::sync::Arc;

use model::{Fix, Meters, MonotonicMs, Position, SessionId, UserId};
use ports::{HistoryPoint, PortError};
use protocol::client::{BadFrame, Limit, Nearby, PageCursor, Report};

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

    /// Takes in positions of a device without a connection, oldest first or not: all go to the history, the newest
    /// also moves the user. Returns when they are durable. `began` is when the caller began to check that the user
    /// exists: a deletion applied since then refuses the call.
    pub async fn record(&self, user: UserId, reports: &[Report], began: MonotonicMs) -> Result<(), Refused> {
        let shared = &self.shared;
        for (at, report) in reports.iter().enumerate() {
            shared.check_time(report).map_err(|bad| in_batch(bad, at, reports.len()))?;
        }
        let Some(newest) = reports.iter().max_by_key(|report| report.ts) else { return Ok(()) };
        let sharing = shared.sharing(user).await?;
        let generation = match sharing {
            // The same device, which has closed its connection or not noticed yet: device time decides.
            Some(sharing) => sharing.generation,
            // No connection has number 0: whoever connects next claims anew.
            None => shared.claim(user, SessionId(0)).await?.generation,
        };
        let fix = shared.fix(user, newest, generation);
        let points: Vec<HistoryPoint> =
            reports.iter().map(|report| point(&shared.fix(user, report, generation))).collect();
        let durable = {
            // Held over both, so that a deletion comes before or after them and never between.
            let deleted = shared.deleted.lock();
            if deleted.get(&user).is_some_and(|&at| at >= began) {
                return Err(Refused::Deleted);
            }
            let shard = shared.shard_of(user);
            let durable = shared.recorder.record(&points)?;
            shared.with_shard(shard, |shard| shard.posted(&fix));
            durable
        };
        if let Some(sharing) = sharing {
            shared.tell(sharing.session.node, &fix).await;
        }
        // The writer tells everybody who waits, unless it is gone.
        let gone = PortError::Unavailable { backend: "history", reason: "this node is stopping".into() };
        Ok(durable.await.unwrap_or(Err(gone))?)
    }
}

fn in_batch(bad: BadFrame, at: usize, of: usize) -> BadFrame {
    if of > 1 { BadFrame { message: format!("[{at}]: {}", bad.message), ..bad } } else { bad }
}
