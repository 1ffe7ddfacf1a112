//! Making frames, at the moment of sending.

use model::{Edge, Level, Meters, MonotonicMs, SharedFix, UserId};
use protocol::client::GoneReason;

use super::sources::{MOVED, TOLD};
use super::{Shard, ViewerId};

/// One thing to tell a viewer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum News {
    /// A friend entered, or moved within the radius.
    Friend {
        /// What may be seen.
        shared: SharedFix,
        /// From the viewer.
        distance: Meters,
        /// When the position will count as too old; `None` if it is no news of the friend's (the viewer came near).
        moved: Option<MonotonicMs>,
    },
    /// A friend is near no longer.
    Gone(UserId, GoneReason),
    /// Somebody became a friend.
    Added(UserId),
    /// Somebody is a friend no longer.
    Removed(UserId),
}

/// What one drain did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drained {
    /// There is more.
    pub more: bool,
}

impl Shard {
    /// Takes out what the viewer has to be told: at most `max` friends, and the notices. The frames are to be handed
    /// to the kernel and [`crate::Signal::flushed`] called, or the connection dropped.
    pub fn drain(&mut self, viewer: ViewerId, now: MonotonicMs, max: usize, out: &mut impl Extend<News>) -> Drained {
        let Some(target) = self.viewers.get_mut(viewer.0).filter(|viewer| viewer.live) else {
            return Drained { more: false };
        };
        let mut taken_out = std::mem::take(&mut target.noticed);
        if taken_out {
            for notice in target.notices.drain(..) {
                out.extend(notice.gone.then_some(News::Gone(notice.friend, GoneReason::Hidden)));
                out.extend(notice.removed.then_some(News::Removed(notice.friend)));
                out.extend(notice.added.then_some(News::Added(notice.friend)));
            }
        }
        let taken = target.pending.len().min(max);
        for at in 0..taken {
            let Some(target) = self.viewers.get_mut(viewer.0) else { break };
            let edge = target.pending[at];
            target.edges[usize::from(edge)].set_pending(false);
            match self.news_of(viewer.0, edge, now) {
                Some(news) => {
                    self.tally.delivered += 1;
                    taken_out = true;
                    out.extend(Some(news));
                }
                None => self.tally.dropped += 1,
            }
        }
        let Some(target) = self.viewers.get_mut(viewer.0) else { return Drained { more: false } };
        target.pending.drain(..taken);
        if taken_out {
            target.signal.drained();
        }
        Drained { more: !target.pending.is_empty() }
    }

    /// Everything that an edge leads to is looked up once: each is a miss of the caches in a large shard.
    fn news_of(&mut self, viewer: u32, edge: u16, now: MonotonicMs) -> Option<News> {
        let slot = *self.viewers.get(viewer)?.edges.get(usize::from(edge))?;
        let (source, fix) = self.sources.with_fix(slot.source)?;
        let friend = source.user;
        let watch = source.watches.get_mut(slot.watch())?;
        let level = Shard::level(watch)?;
        let (told, moved) = (watch.state & TOLD != 0, watch.state & MOVED != 0);
        let permission = Edge { level, policy: self.applied };
        if let Some((fix, entry)) =
            fix.and_then(|fix| Some((fix, self.viewers.eye(viewer).entry(permission, fix, now)?)))
        {
            watch.state = TOLD;
            return (moved || !told).then_some(News::Friend {
                shared: entry.shared,
                distance: entry.distance,
                moved: moved.then_some(fix.expires),
            });
        }
        // Taken in under permissions newer than ours: looked at again when we have caught up.
        if fix.is_some_and(|fix| fix.policy > self.applied) {
            return None;
        }
        watch.state = 0;
        let reason = match fix {
            _ if level == Level::Hidden => GoneReason::Hidden,
            Some(fix) if fix.expires > now => GoneReason::OutOfRange,
            _ => GoneReason::Inactive,
        };
        told.then_some(News::Gone(friend, reason))
    }
}
