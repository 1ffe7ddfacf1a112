//! The users who are connected to this shard, or whose newest position was taken in here.

use std::collections::VecDeque;

use model::{Fix, Generation, MonotonicMs, PolicyVersion, UserId};
use rustc_hash::FxHashMap;
use smallvec::SmallVec;

/// A user: their viewers, and what they share. Without viewers, a user stays until the position has expired: it may
/// still have to be put into the cache, or sent again.
#[derive(Debug, Default)]
pub(super) struct Member {
    /// Oldest first.
    pub(super) viewers: SmallVec<[u32; 2]>,
    /// The session that shares the position, with its generation.
    pub(super) sharing: Option<(u32, Generation)>,
    /// The newest position that was taken in here: what is published again after a gap.
    pub(super) last: Option<Box<Fix>>,
    /// The newest entry of the control log that took something from somebody who saw this user.
    pub(super) policy: PolicyVersion,
    /// The user is being deleted: nothing more is taken in.
    pub(super) deleted: bool,
    /// In the queue of new positions.
    pub(super) is_fresh: bool,
    /// In the queue of those to be sent again,
    pub(super) is_in_again: bool,
    /// and not sent since.
    pub(super) wants_again: bool,
    /// In the queue of users without viewers.
    is_idle: bool,
}

/// All users of a shard.
#[derive(Debug, Default)]
pub(super) struct Members {
    users: FxHashMap<UserId, Member>,
    /// Users who had no viewers, with the moment at which they may go; each once.
    idle: VecDeque<(MonotonicMs, UserId)>,
    /// Positions that were queued to be sent when their users went.
    pub(super) dropped: u64,
}

impl Members {
    pub(super) fn get(&self, user: UserId) -> Option<&Member> {
        self.users.get(&user)
    }

    pub(super) fn get_mut(&mut self, user: UserId) -> Option<&mut Member> {
        self.users.get_mut(&user)
    }

    pub(super) fn join(&mut self, user: UserId, viewer: u32) {
        self.users.entry(user).or_default().viewers.push(viewer);
    }

    pub(super) fn leave(&mut self, user: UserId, viewer: u32) {
        let Some(member) = self.users.get_mut(&user) else { return };
        member.viewers.retain(|other| *other != viewer);
        if member.sharing.is_some_and(|(sharing, _)| sharing == viewer) {
            member.sharing = None;
        }
        self.settle(user);
    }

    /// The user's position was taken in without a connection.
    pub(super) fn post(&mut self, user: UserId, fix: Fix) -> &mut Member {
        let member = self.users.entry(user).or_default();
        member.keep(fix);
        if member.viewers.is_empty() && !std::mem::replace(&mut member.is_idle, true) {
            self.idle.push_back((fix.expires, user));
        }
        member
    }

    /// Without viewers and without a position, a user goes; without viewers, when the position has expired.
    pub(super) fn settle(&mut self, user: UserId) {
        let Some(member) = self.users.get_mut(&user).filter(|member| member.viewers.is_empty()) else { return };
        match &member.last {
            // Who is in the queue of the idle goes when their turn comes, or would be in it twice after coming back.
            None if member.is_idle && !member.deleted => {}
            None => {
                self.dropped += u64::from(member.is_fresh) + u64::from(member.wants_again);
                self.users.remove(&user);
            }
            Some(last) if !std::mem::replace(&mut member.is_idle, true) => self.idle.push_back((last.expires, user)),
            Some(_) => {}
        }
    }

    /// Nobody has a position any more; with the next report there is one again.
    pub(super) fn forget_positions(&mut self) {
        self.users.retain(|_, member| {
            member.last = None;
            !member.viewers.is_empty()
        });
    }

    /// Removes users without viewers whose position has expired. Looks at those only whose moment has come.
    pub(super) fn expire(&mut self, now: MonotonicMs) {
        while let Some((_, user)) = self.idle.pop_front_if(|(due, _)| *due <= now) {
            let Some(member) = self.users.get_mut(&user) else { continue };
            member.is_idle = false;
            if member.last.as_ref().is_some_and(|last| last.expires <= now) && member.viewers.is_empty() {
                member.last = None;
            }
            self.settle(user);
        }
    }

    /// Entries in the queue of users without viewers.
    #[cfg(test)]
    pub(super) fn idle(&self) -> usize {
        self.idle.len()
    }

    pub(super) fn sharing(&self) -> impl Iterator<Item = (UserId, Generation)> {
        self.users.iter().filter_map(|(user, member)| Some((*user, member.sharing?.1)))
    }

    pub(super) fn with_positions(&self) -> impl Iterator<Item = UserId> {
        self.users.iter().filter(|(_, member)| member.last.is_some()).map(|(user, _)| *user)
    }
}

impl Member {
    /// The newest position.
    pub(super) fn keep(&mut self, fix: Fix) {
        match &mut self.last {
            Some(last) => **last = fix,
            None => self.last = Some(Box::new(fix)),
        }
    }
}
