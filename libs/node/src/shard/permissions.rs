//! Who may see whom: connecting, and the entries of the control log.
//!
//! The order that was found to be the only one that never sends after a revoke: register as connecting, read
//! `visible_to`, apply it less every entry that arrived since registering.

use std::sync::Arc;

use model::{Level, PolicyVersion, Radius, UserId};
use ports::{ControlEntry, ControlRecord, Friendship};
use protocol::close::CloseCode;
use smallvec::SmallVec;

use super::sources::WatchKind;
use super::viewers::{Eye, Notice, Override, Viewer};
use super::{Interests, Shard, ViewerId};
use crate::limits;
use crate::signal::Signal;

/// Positions that were taken out of the shard before a revoke and may not have reached the kernel yet.
#[derive(Clone, Debug)]
pub struct InFlight {
    pub(crate) signal: Arc<Signal>,
    pub(crate) drained: u64,
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
            overrides: Some(Vec::new()),
            live: false,
            woken: false,
            noticed: false,
            visitor: true,
        };
        let index = self.viewers.insert(eye, viewer);
        self.members.join(user, index);
        ViewerId(index)
    }

    /// Gives a connecting viewer what was read of the directory, less what has changed since it registered.
    pub fn admit(&mut self, viewer: ViewerId, friends: &[Friendship], interests: &mut Interests) {
        let Some(target) = self.viewers.get_mut(viewer.0) else { return };
        let Some(overrides) = target.overrides.take() else { return };
        target.edges.reserve_exact(friends.len().min(limits::EDGES_PER_VIEWER));
        for friend in friends {
            if !overrides.iter().any(|newer| newer.friend == friend.friend) {
                self.link_friend(viewer.0, friend.friend, friend.level, interests);
            }
        }
        for newer in overrides.iter() {
            match newer.level {
                Some(level) => {
                    self.link_friend(viewer.0, newer.friend, level, interests);
                }
                None => {
                    self.unlink_friend(viewer.0, newer.friend, interests);
                }
            }
        }
    }

    /// Tests only: what arrived since the viewer registered counts no longer, as if it registered now.
    pub fn forget_entries(&mut self, viewer: ViewerId) {
        if let Some(overrides) = self.overrides(viewer.0) {
            overrides.clear();
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

    /// Applies one entry of the control log, and says which positions taken out before it may still be under way.
    pub fn apply(&mut self, record: &ControlRecord, interests: &mut Interests, in_flight: &mut Vec<InFlight>) {
        match record.entry {
            ControlEntry::Befriended(one, other) => {
                self.befriend(one, other, interests);
                self.befriend(other, one, interests);
            }
            ControlEntry::Unfriended(one, other) => {
                self.unfriend(one, other, record.index, interests, in_flight);
                self.unfriend(other, one, record.index, interests, in_flight);
            }
            ControlEntry::UserDeleted(user) => self.delete_user(user, interests, in_flight),
            // A newer node may write what this one does not know. Nobody loses a permission by it: permissions are
            // taken away by the entries above.
            _ => {}
        }
    }

    /// Entries are missing: takes every permission away, also from who is connecting, and says what may still be under
    /// way.
    pub fn forget_permissions(&mut self, interests: &mut Interests, in_flight: &mut Vec<InFlight>) {
        let viewers: Vec<u32> = self.viewers.iter().map(|(viewer, _)| viewer).collect();
        for viewer in viewers {
            self.report_in_flight(viewer, in_flight);
            self.hide_all(viewer, interests);
            if let Some(viewer) = self.viewers.get_mut(viewer) {
                viewer.overrides = None;
            }
        }
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

    fn befriend(&mut self, user: UserId, friend: UserId, interests: &mut Interests) {
        for viewer in self.viewers_of(user) {
            if let Some(overrides) = self.overrides(viewer) {
                overrides.retain(|older| older.friend != friend);
                overrides.push(Override { friend, level: Some(Level::Exact) });
            } else if self.link_friend(viewer, friend, Level::Exact, interests) {
                self.notice(viewer, Notice { friend, gone: false, removed: false, added: true });
            }
        }
    }

    fn unfriend(
        &mut self,
        user: UserId,
        friend: UserId,
        index: PolicyVersion,
        interests: &mut Interests,
        in_flight: &mut Vec<InFlight>,
    ) {
        if let Some(member) = self.members.get_mut(user) {
            // What is shared from now on must not be shown by a node that has not seen this entry.
            member.policy = member.policy.max(index);
        }
        for viewer in self.viewers_of(user) {
            self.report_in_flight(viewer, in_flight);
            if let Some(overrides) = self.overrides(viewer) {
                overrides.retain(|older| older.friend != friend);
                overrides.push(Override { friend, level: None });
            } else {
                self.unlink_friend(viewer, friend, interests);
            }
        }
    }

    fn delete_user(&mut self, user: UserId, interests: &mut Interests, in_flight: &mut Vec<InFlight>) {
        for viewer in self.viewers_of(user) {
            self.report_in_flight(viewer, in_flight);
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
        let connecting: Vec<u32> =
            self.viewers.iter().filter(|(_, viewer)| viewer.overrides.is_some()).map(|(index, _)| index).collect();
        for viewer in connecting {
            // Which of them have this friend is not known here.
            self.report_in_flight(viewer, in_flight);
            if let Some(overrides) = self.overrides(viewer) {
                overrides.retain(|older| older.friend != user);
                overrides.push(Override { friend: user, level: None });
            }
        }
        let Some(source) = self.sources.find(user).and_then(|at| self.sources.get(at)) else { return };
        let watching: Vec<u32> = source.watches.iter().map(|watch| watch.viewer).collect();
        for viewer in watching {
            self.report_in_flight(viewer, in_flight);
            self.unlink_friend(viewer, user, interests);
        }
    }

    fn link_friend(&mut self, viewer: u32, friend: UserId, level: Level, interests: &mut Interests) -> bool {
        let Some(edge) = self.link(viewer, friend, WatchKind::Friend(level), interests) else { return false };
        self.look_at(viewer, edge);
        true
    }

    /// Unlinks a friend and tells the viewer so.
    fn unlink_friend(&mut self, viewer: u32, friend: UserId, interests: &mut Interests) {
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

    fn overrides(&mut self, viewer: u32) -> Option<&mut Vec<Override>> {
        self.viewers.get_mut(viewer)?.overrides.as_mut()
    }

    fn report_in_flight(&self, viewer: u32, in_flight: &mut Vec<InFlight>) {
        let Some(signal) = self.viewers.get(viewer).map(|viewer| &viewer.signal) else { return };
        if let Some(drained) = signal.in_flight() {
            in_flight.push(InFlight { signal: signal.clone(), drained });
        }
    }

    fn viewers_of(&self, user: UserId) -> Vec<u32> {
        self.members.get(user).map(|member| member.viewers.to_vec()).unwrap_or_default()
    }
}
