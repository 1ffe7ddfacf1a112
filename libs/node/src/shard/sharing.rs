//! What the users connected here share.

use std::time::Duration;

use model::{Fix, Generation, MonotonicMs, UserId};

use super::{Shard, ViewerId};

/// What became of a position that a connection here took in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It is the user's newest, and queued to be sent.
    Newest,
    /// Not newer than the one before, which has not expired: to the history only.
    Stale,
    /// Older than positions are shown: to the history only.
    TooOld,
    /// Another connection of this user shares.
    NotSharing,
}

/// The one rule for a report, whether it came over a connection or was posted, beside what is held of its user. `age`
/// is its age when it was sent, by the device's clock.
///
/// - What is held and has expired does not count. A clock that was set back thus hides nobody for longer than `ttl`.
/// - Above `ttl` a report is shown to nobody: a queue that a phone kept while it was offline must not be played to its
///   friends. The exception is a report of the very time that they are shown already: a device that rests repeats it.
/// - Of the others the highest order counts. A repeated report has a higher sequence number, so it counts, and the user
///   stays visible with the old `ts`.
fn judge(held: Option<&Fix>, fix: &Fix, age: Duration, ttl: Duration, now: MonotonicMs) -> Taken {
    let held = held.filter(|held| held.expires > now);
    if age > ttl && held.is_none_or(|held| held.order.ts != fix.order.ts) {
        return Taken::TooOld;
    }
    if held.is_some_and(|held| held.order >= fix.order) { Taken::Stale } else { Taken::Newest }
}

impl Shard {
    /// This connection shares its user's position from now on, in the place of any other of an older generation.
    /// Returns the connection that shared before, on this node.
    pub fn share(&mut self, viewer: ViewerId, generation: Generation) -> Option<ViewerId> {
        let user = self.viewers.get(viewer.0)?.user;
        let applied = self.applied;
        let member = self.members.get_mut(user)?;
        let before = member.sharing.filter(|(other, _)| *other != viewer.0);
        if member.deleted || before.is_some_and(|(_, newer)| newer > generation) {
            return None;
        }
        // An entry about the user that this node applied before they connected is not remembered: the newest index
        // applied stands for it.
        member.policy = member.policy.max(applied);
        member.sharing = Some((viewer.0, generation));
        before.map(|(other, _)| ViewerId(other))
    }

    /// A position of the connection that shares under the fix's generation: moves its viewer, and is queued to be sent.
    /// `age` is how old it was when the device sent it.
    pub fn moved(&mut self, fix: &Fix, age: Duration, now: MonotonicMs) -> Taken {
        let taken = self.keep(fix, age, now);
        if taken == Taken::Newest
            && let Some(member) = self.members.get_mut(fix.user)
        {
            self.outgoing.push_fresh(fix.user, member);
        }
        taken
    }

    /// The same of one that another node took in and sends. It is kept here, too, to be sent again after a gap.
    pub fn moved_elsewhere(&mut self, fix: &Fix, now: MonotonicMs) -> Taken {
        self.keep(fix, Duration::ZERO, now)
    }

    fn keep(&mut self, fix: &Fix, age: Duration, now: MonotonicMs) -> Taken {
        let Some(member) = self.members.get_mut(fix.user).filter(|member| !member.deleted) else {
            return Taken::NotSharing;
        };
        let Some((viewer, _)) = member.sharing.filter(|(_, generation)| *generation == fix.order.generation) else {
            return Taken::NotSharing;
        };
        let taken = judge(member.last.as_deref(), fix, age, self.wheel.ttl, now);
        if taken == Taken::Newest {
            let policy = member.policy;
            member.keep(Fix { policy, ..*fix });
            self.place(ViewerId(viewer), fix.place);
        }
        taken
    }

    /// A position that came without a connection. Whether it is the newest of a user who shares from elsewhere, or from
    /// nowhere, is for the cache to say, unless a newer one is known here.
    pub fn posted(&mut self, fix: &Fix, age: Duration, now: MonotonicMs) -> Taken {
        let member = self.members.get(fix.user);
        match member {
            Some(member) if member.sharing.is_some() => return self.moved(fix, age, now),
            Some(member) if member.deleted => return Taken::NotSharing,
            _ => {}
        }
        let held = member.and_then(|member| member.last.as_deref());
        let taken = judge(held, fix, age, self.wheel.ttl, now);
        if taken == Taken::Newest {
            let policy = self.applied;
            let member = self.members.post(fix.user, Fix { policy, ..*fix });
            self.outgoing.push_fresh(fix.user, member);
        }
        taken
    }

    /// A newer generation than this one was seen elsewhere: who shares here under an older one, watches from now on.
    pub fn superseded(&mut self, user: UserId, generation: Generation) -> Option<ViewerId> {
        let member = self.members.get_mut(user)?;
        let (viewer, _) = member.sharing.filter(|(_, ours)| *ours <= generation)?;
        member.sharing = None;
        member.last = None;
        Some(ViewerId(viewer))
    }

    /// The generation that this user's positions have here, if a connection here shares.
    pub fn generation_shared(&self, user: UserId) -> Option<Generation> {
        self.members.get(user)?.sharing.map(|(_, generation)| generation)
    }

    /// Everybody who shares from here, with the generation.
    pub fn all_sharing(&self) -> impl Iterator<Item = (UserId, Generation)> {
        self.members.sharing()
    }
}
