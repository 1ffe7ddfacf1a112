//! Who may see whom: connecting, and the entries of the control log.
//!
//! The order that was found to be the only one that never sends after a revoke: register as connecting, read
//! `visible_to`, apply it less every entry that arrived since registering. Of the entries, an end takes the edge away at
//! once; what is there afterwards says the directory, which is read again (`pairs.rs`).

use std::sync::Arc;

use model::{Level, PolicyVersion, Radius, UserId};
use ports::{ControlEntry, ControlRecord, Friendship};
use protocol::close::CloseCode;
use smallvec::SmallVec;

use super::sources::WatchKind;
use super::viewers::{Eye, NO_EDGE, Notice, Viewer};
use super::{Interests, Pair, Shard, ViewerId};
use crate::limits;
use crate::signal::Signal;

/// Positions that were taken out of the shard before a revoke and may not have reached the kernel yet.
#[derive(Clone, Debug)]
pub struct InFlight {
    pub(crate) signal: Arc<Signal>,
    pub(crate) drained: u64,
}

/// What has to follow, outside of the shard, when entries of the control log were applied.
#[derive(Debug, Default)]
pub struct Effects {
    /// To be waited for before the entries are confirmed.
    pub in_flight: Vec<InFlight>,
    /// To be read of the directory and given to [`Shard::pair_read`].
    pub to_read: Vec<Pair>,
}

impl Shard {
    /// A viewer is connecting: entries of the control log concern it from now on, and it sees nobody yet. When its
    /// user has too many connections the oldest are asked to close.
    pub fn register(&mut self, user: UserId, signal: Arc<Signal>, radius: Radius) -> ViewerId {
        let viewer = self.visit(user, signal, radius);
        if let Some(target) = self.viewers.get_mut(viewer.0) {
            target.visitor = false;
        }
        let mut connections = self.viewers_of(user);
        connections.retain(|&other| !self.is_visitor(other));
        // All that are too many, not only one: those asked before may still be here, on their way out.
        let above = connections.len().saturating_sub(limits::SESSIONS_PER_USER);
        for oldest in connections.into_iter().take(above).filter_map(|oldest| self.viewers.get(oldest)) {
            oldest.signal.close(CloseCode::Replaced);
        }
        viewer
    }

    fn is_visitor(&self, viewer: u32) -> bool {
        self.viewers.get(viewer).is_some_and(|viewer| viewer.visitor)
    }

    /// The same for a caller who asks once and keeps no connection: does not count among its user's.
    pub fn visit(&mut self, user: UserId, signal: Arc<Signal>, radius: Radius) -> ViewerId {
        let eye = Eye { place: None, radius, slack: 0.0 };
        let viewer = Viewer {
            user,
            signal,
            edges: Vec::new(),
            pending: SmallVec::new(),
            notices: Vec::new(),
            overrides: None,
            connecting: true,
            first_free: NO_EDGE,
            live: false,
            woken: false,
            noticed: false,
            visitor: true,
        };
        let index = self.viewers.insert(eye, viewer);
        self.members.join(user, index);
        self.connecting.insert(index);
        ViewerId(index)
    }

    /// Gives a connecting viewer what was read of the directory (each friend once), less what has changed since it
    /// registered. Returns what is to be read again: friends who were taken away meanwhile, and may be friends anew.
    pub fn admit(&mut self, viewer: ViewerId, friends: &[Friendship], interests: &mut Interests) -> Vec<Pair> {
        let mut to_read = Vec::new();
        let Some(target) = self.viewers.get_mut(viewer.0) else { return to_read };
        if !std::mem::replace(&mut target.connecting, false) {
            return to_read;
        }
        let user = target.user;
        let overrides = target.overrides.take().unwrap_or_default();
        target.edges.reserve_exact(friends.len().min(limits::EDGES_PER_VIEWER));
        self.connecting.remove(&viewer.0);
        let read = friends.iter().filter(|friend| !overrides.contains_key(&friend.friend));
        let newer = overrides.iter().filter_map(|(friend, level)| Some((*friend, (*level)?)));
        for (friend, level) in read.map(|friend| (friend.friend, friend.level)).chain(newer) {
            if let Some(edge) = self.link_new(viewer.0, friend, WatchKind::Friend(level), interests) {
                self.look_at(viewer.0, edge);
            }
        }
        for friend in friends.iter().filter(|friend| overrides.get(&friend.friend) == Some(&None)) {
            let pair = Pair { viewer: user, friend: friend.friend };
            if self.unread(pair).is_none() {
                self.read_again(pair, self.applied, &mut to_read);
            }
        }
        to_read
    }

    /// Tests only: what arrived since the viewer registered counts no longer, as if it registered now.
    pub fn forget_entries(&mut self, viewer: ViewerId) {
        if let Some(target) = self.viewers.get_mut(viewer.0) {
            target.overrides = None;
        }
    }

    /// Makes the viewer follow its user's own newest position, as watching devices do.
    pub fn follow_own(&mut self, viewer: ViewerId, interests: &mut Interests) {
        let Some(user) = self.viewers.get(viewer.0).map(|viewer| viewer.user) else { return };
        if self.link(viewer.0, user, WatchKind::Own, interests).is_some()
            && let Some(fix) = self.sources.find(user).and_then(|source| self.sources.fix(source))
        {
            let place = fix.place;
            self.place(viewer, place);
        }
    }

    /// The viewer is no more.
    pub fn unregister(&mut self, viewer: ViewerId, interests: &mut Interests) {
        let ViewerId(index) = viewer;
        self.unlink_all(index, interests);
        self.connecting.remove(&index);
        if let Some(removed) = self.viewers.remove(index) {
            self.tally.dropped += removed.pending.len() as u64;
            self.members.leave(removed.user, index);
            removed.signal.ended();
        }
    }

    fn unlink_all(&mut self, viewer: u32, interests: &mut Interests) {
        for edge in 0..self.viewers.get(viewer).map_or(0, |viewer| viewer.edges.len()) {
            self.unlink(viewer, edge as u16, interests);
        }
    }

    /// Applies one entry of the control log.
    pub fn apply(&mut self, record: &ControlRecord, interests: &mut Interests, effects: &mut Effects) {
        match record.entry {
            ControlEntry::Befriended(one, other) => self.pair_written(one, other, record.index, effects),
            ControlEntry::Unfriended(one, other) => {
                self.unfriend(one, other, record.index, interests, effects);
                self.unfriend(other, one, record.index, interests, effects);
                self.pair_written(one, other, record.index, effects);
            }
            ControlEntry::UserDeleted(user) => self.delete_user(user, interests, effects),
            ControlEntry::UserForgotten(user) => self.forget_friendships(user, record.index, interests, effects),
            // A newer node may write what this one does not know. Nobody loses a permission by it: permissions are
            // taken away by the entries above.
            _ => {}
        }
    }

    fn pair_written(&mut self, one: UserId, other: UserId, index: PolicyVersion, effects: &mut Effects) {
        for (viewer, friend) in [(one, other), (other, one)] {
            self.read_again(Pair { viewer, friend }, index, &mut effects.to_read);
        }
    }

    /// Entries are missing: takes every permission away, also from who is connecting, forgets the positions to be sent,
    /// and says what may still be under way.
    pub fn forget_permissions(&mut self, interests: &mut Interests, in_flight: &mut Vec<InFlight>) {
        let viewers: Vec<u32> = self.viewers.iter().map(|(viewer, _)| viewer).collect();
        for viewer in viewers {
            self.report_in_flight(viewer, in_flight);
            self.hide_all(viewer, interests);
            if let Some(viewer) = self.viewers.get_mut(viewer) {
                viewer.connecting = false;
                viewer.overrides = None;
            }
        }
        self.connecting.clear();
        // A read that is under way began before the entries that are missing.
        self.unread.clear();
        // Their owners may have been deleted.
        self.members.forget_positions();
    }

    /// Takes a viewer's edges away, and tells it so: its client must not go on showing somebody.
    fn hide_all(&mut self, viewer: u32, interests: &mut Interests) {
        for edge in 0..self.viewers.get(viewer).map_or(0, |viewer| viewer.edges.len()) {
            let source = self.viewers.get(viewer).and_then(|viewer| viewer.edges.get(edge)).map(|slot| slot.source);
            let friend = source.and_then(|source| self.friend(source));
            let told = self.unlink(viewer, edge as u16, interests);
            if let Some(friend) = friend.filter(|_| told) {
                self.notice(viewer, Notice { friend, gone: true, removed: false, added: false });
            }
        }
    }

    /// Everything up to this index has been applied.
    pub fn advance(&mut self, applied: PolicyVersion) {
        if applied > self.applied {
            let before = std::mem::replace(&mut self.applied, applied);
            self.catch_up(before);
        }
    }

    /// Asks every connection to close: what they may see has to be read again.
    pub fn close_all(&mut self, code: CloseCode) {
        for (_, viewer) in self.viewers.iter() {
            viewer.signal.close(code);
        }
    }

    /// The viewer may see a friend from now on, and is told so.
    pub(super) fn befriend(&mut self, viewer: u32, friend: UserId, level: Level, interests: &mut Interests) {
        let Some(edge) = self.link(viewer, friend, WatchKind::Friend(level), interests) else { return };
        self.look_at(viewer, edge);
        self.notice(viewer, Notice { friend, gone: false, removed: false, added: true });
    }

    fn unfriend(
        &mut self,
        user: UserId,
        friend: UserId,
        index: PolicyVersion,
        interests: &mut Interests,
        effects: &mut Effects,
    ) {
        if let Some(member) = self.members.get_mut(user) {
            // What is shared from now on must not be shown by a node that has not seen this entry.
            member.policy = member.policy.max(index);
        }
        for viewer in self.viewers_of(user) {
            self.hide(viewer, friend, interests, effects);
        }
    }

    /// Takes a friend away from a viewer, connecting or not, and says what may be under way to it.
    fn hide(&mut self, viewer: u32, friend: UserId, interests: &mut Interests, effects: &mut Effects) {
        self.report_in_flight(viewer, &mut effects.in_flight);
        if !self.override_while_connecting(viewer, friend, None) {
            self.unlink_friend(viewer, friend, interests);
        }
    }

    fn delete_user(&mut self, user: UserId, interests: &mut Interests, effects: &mut Effects) {
        for viewer in self.viewers_of(user) {
            self.report_in_flight(viewer, &mut effects.in_flight);
            if let Some(viewer) = self.viewers.get(viewer) {
                viewer.signal.close(CloseCode::Forbidden);
            }
            self.unlink_all(viewer, interests);
        }
        if let Some(member) = self.members.get_mut(user) {
            member.deleted = true;
            member.sharing = None;
            member.last = None;
        }
        self.members.settle(user);
        // Which of those who connect have this friend is not known here.
        for viewer in self.watching(user).into_iter().chain(self.connecting.iter().copied().collect::<Vec<_>>()) {
            self.hide(viewer, user, interests, effects);
        }
    }

    /// The records of all friendships of a user were written.
    fn forget_friendships(
        &mut self,
        user: UserId,
        index: PolicyVersion,
        interests: &mut Interests,
        effects: &mut Effects,
    ) {
        for viewer in self.watching(user).into_iter().chain(self.connecting.iter().copied().collect::<Vec<_>>()) {
            self.hide(viewer, user, interests, effects);
            // For those who connect `admit` sees to it: it knows who has this friend.
            if let Some(target) = self.viewers.get(viewer).filter(|target| !target.connecting) {
                let pair = Pair { viewer: target.user, friend: user };
                self.read_again(pair, index, &mut effects.to_read);
            }
        }
    }

    /// The viewers that have this user as a friend.
    fn watching(&self, user: UserId) -> Vec<u32> {
        let source = self.sources.find(user).and_then(|at| self.sources.get(at));
        let friends = source.map(|source| source.watches.iter().filter(|watch| Shard::level(watch).is_some()));
        friends.map(|friends| friends.map(|watch| watch.viewer).collect()).unwrap_or_default()
    }

    /// Unlinks a friend and tells the viewer so.
    pub(super) fn unlink_friend(&mut self, viewer: u32, friend: UserId, interests: &mut Interests) {
        let Some(edge) = self.find_edge(viewer, friend, WatchKind::Friend(Level::Exact)) else { return };
        let gone = self.unlink(viewer, edge, interests);
        self.notice(viewer, Notice { friend, gone, removed: true, added: false });
    }

    /// Adds to what the viewer is told about its list of friends; one notice a friend, whatever happens meanwhile.
    fn notice(&mut self, viewer: u32, news: Notice) {
        let Some(target) = self.viewers.get_mut(viewer) else { return };
        // Before the first `nearby` there is no list that could have changed.
        if !target.live {
            return;
        }
        if let Some(waiting) = target.notices.iter_mut().find(|notice| notice.friend == news.friend) {
            waiting.gone |= news.gone;
            waiting.removed |= news.removed;
            waiting.added = news.added;
        } else if target.notices.len() < limits::NOTICES_PER_VIEWER {
            target.notices.push(news);
            target.noticed = true;
        } else {
            target.signal.close(CloseCode::Slow);
        }
        self.wake(viewer);
    }

    /// Notes of a connecting viewer how much of a friend it may see; false if it is admitted already.
    pub(super) fn override_while_connecting(&mut self, viewer: u32, friend: UserId, level: Option<Level>) -> bool {
        let Some(target) = self.viewers.get_mut(viewer).filter(|target| target.connecting) else { return false };
        target.overrides.get_or_insert_default().insert(friend, level);
        true
    }

    fn report_in_flight(&self, viewer: u32, in_flight: &mut Vec<InFlight>) {
        let Some(signal) = self.viewers.get(viewer).map(|viewer| &viewer.signal) else { return };
        if let Some(drained) = signal.in_flight() {
            in_flight.push(InFlight { signal: signal.clone(), drained });
        }
    }

    pub(super) fn has_viewers(&self, user: UserId) -> bool {
        self.members.get(user).is_some_and(|member| !member.viewers.is_empty())
    }

    pub(super) fn viewers_of(&self, user: UserId) -> Vec<u32> {
        self.members.get(user).map(|member| member.viewers.to_vec()).unwrap_or_default()
    }
}
