//! The users who are connected to this shard.

use model::{Fix, Generation, PolicyVersion, UserId};
use rustc_hash::FxHashMap;
use smallvec::SmallVec;

/// A connected user: their viewers, and what they share.
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
}

/// All connected users of a shard.
#[derive(Debug, Default)]
pub(super) struct Members(FxHashMap<UserId, Member>);

impl Members {
    pub(super) fn get(&self, user: UserId) -> Option<&Member> {
        self.0.get(&user)
    }

    pub(super) fn get_mut(&mut self, user: UserId) -> Option<&mut Member> {
        self.0.get_mut(&user)
    }

    pub(super) fn join(&mut self, user: UserId, viewer: u32) {
        self.0.entry(user).or_default().viewers.push(viewer);
    }

    pub(super) fn leave(&mut self, user: UserId, viewer: u32) {
        let Some(member) = self.0.get_mut(&user) else { return };
        member.viewers.retain(|other| *other != viewer);
        if member.sharing.is_some_and(|(sharing, _)| sharing == viewer) {
            member.sharing = None;
        }
        if member.viewers.is_empty() {
            self.0.remove(&user);
        }
    }

    pub(super) fn sharing(&self) -> impl Iterator<Item = (UserId, Generation)> {
        self.0.iter().filter_map(|(user, member)| Some((*user, member.sharing?.1)))
    }

    pub(super) fn last_fixes(&self) -> impl Iterator<Item = &Fix> {
        self.0.values().filter_map(|member| member.last.as_deref())
    }
}
