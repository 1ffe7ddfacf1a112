//! What a connection has to be told, taken out of its shard at the moment of writing.

use std::sync::Arc;

use model::{MonotonicMs, Radius, UserId};
use protocol::client::{Friend, ServerFrame};
use smallvec::SmallVec;

use crate::limits;
use crate::planted::Break;
use crate::session::Refused;
use crate::shard::{Interests, News, Shard, ViewerId};
use crate::shared::Shared;
use crate::signal::Signal;

/// A viewer's place in its shard, held by its session and its feed: the number is given to nobody else before both are
/// gone, so neither can ever touch another's.
pub(crate) struct Registration {
    pub(crate) shared: Arc<Shared>,
    pub(crate) shard: usize,
    pub(crate) viewer: ViewerId,
    pub(crate) signal: Arc<Signal>,
}

impl Registration {
    pub(crate) fn begin(
        shared: Arc<Shared>,
        user: UserId,
        radius: Radius,
        register: fn(&mut Shard, UserId, Arc<Signal>, Radius) -> ViewerId,
    ) -> Arc<Registration> {
        let signal = Arc::new(Signal::default());
        let shard = shared.shard_of(user);
        let viewer = shared.with_shard(shard, |shard| register(shard, user, signal.clone(), radius));
        Arc::new(Registration { shard, viewer, signal, shared })
    }

    pub(crate) fn with_shard<R>(&self, verb: impl FnOnce(&mut Shard) -> R) -> R {
        self.shared.with_shard(self.shard, verb)
    }

    pub(crate) fn with_interests<R>(&self, verb: impl FnOnce(&mut Shard, &mut Interests) -> R) -> (R, Vec<UserId>) {
        self.shared.with_interests(self.shard, verb)
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let viewer = self.viewer;
        self.with_interests(|shard, interests| shard.unregister(viewer, interests));
    }
}

/// One connection's news. It has one owner, who hands what it took out to the kernel before it takes out more: the
/// account by which a revoke knows what is under way relies on it.
pub struct Feed {
    registration: Arc<Registration>,
    /// When the positions that were drained and not yet flushed count as too old: tells their age.
    under_way: SmallVec<[MonotonicMs; 4]>,
}

impl Feed {
    pub(crate) fn new(registration: Arc<Registration>) -> Feed {
        Feed { registration, under_way: SmallVec::new() }
    }

    /// The connection's bell.
    pub fn signal(&self) -> &Arc<Signal> {
        &self.registration.signal
    }

    /// Takes out what the viewer has to be told, at most [`limits::FRAMES_PER_DRAIN`] friends at a time, and returns
    /// whether there is more. The frames, in the order to be written, are to be handed to the kernel, and then
    /// [`Feed::flushed`] called, or the connection dropped. Nothing comes out before the first page was made, nor while
    /// this node has no right to send: it waits.
    pub fn drain(&mut self, now: MonotonicMs, mut to: impl FnMut(ServerFrame)) -> bool {
        if !self.registration.shared.may_send_at(now) {
            return false;
        }
        let (viewer, mut news) = (self.registration.viewer, SmallVec::<[News; 4]>::new());
        let drained =
            self.registration.with_shard(|shard| shard.drain(viewer, now, limits::FRAMES_PER_DRAIN, &mut news));
        for news in news {
            if let News::Friend { moved: Some(expires), .. } = news {
                self.under_way.push(expires);
            }
            to(frame(news));
        }
        drained.more
    }

    /// Whether what was drained may still be handed to the kernel: to be asked right before each try. When the right to
    /// send ended meanwhile (the client read slowly, or this process was frozen), a revoke may have been acknowledged
    /// without this node, and the connection is to be dropped with all that is buffered for it.
    pub fn may_write(&self) -> bool {
        let Registration { shared, signal, .. } = &*self.registration;
        let asks = !shared.plants(Break::WriteWithoutAsking);
        signal.in_flight().is_none() || !asks || shared.may_send().is_ok()
    }

    /// Everything that was drained or answered so far is in the kernel's hands.
    pub fn flushed(&mut self) {
        let Registration { shared, signal, .. } = &*self.registration;
        signal.flushed();
        if self.under_way.is_empty() {
            return;
        }
        let now = shared.clock.monotonic();
        for expires in self.under_way.drain(..) {
            let left = expires.since(now);
            shared.metrics.age.observe(shared.settings.ttl.saturating_sub(left).as_secs_f64());
        }
    }
}

impl Shared {
    /// The moment, if positions may be sent at it.
    pub(crate) fn may_send(&self) -> Result<MonotonicMs, Refused> {
        let now = self.clock.monotonic();
        if self.may_send_at(now) { Ok(now) } else { Err(Refused::Silent) }
    }

    fn may_send_at(&self, now: MonotonicMs) -> bool {
        self.right.holds(now) || self.plants(Break::NeverAsk)
    }
}

fn frame(news: News) -> ServerFrame {
    match news {
        News::Friend { shared, distance, .. } => ServerFrame::Friend(Friend::new(&shared, distance)),
        News::Gone(id, reason) => ServerFrame::Gone { id, reason },
        News::Added(id) => ServerFrame::FriendAdded { id },
        News::Removed(id) => ServerFrame::FriendRemoved { id },
    }
}
