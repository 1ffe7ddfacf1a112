//! Making and unmaking the two halves of an edge.

use model::{Level, UserId};

use super::sources::{TOLD, Watch, WatchKind};
use super::viewers::{EdgeSlot, FREE, NO_EDGE, Viewer};
use super::{Interests, Shard};
use crate::limits;

impl Shard {
    /// Makes an edge; `None` if the viewer has it already, or has as many as it may have.
    pub(super) fn link(
        &mut self,
        viewer: u32,
        friend: UserId,
        kind: WatchKind,
        interests: &mut Interests,
    ) -> Option<u16> {
        if self.find_edge(viewer, friend, kind).is_some() {
            return None;
        }
        self.link_new(viewer, friend, kind, interests)
    }

    /// The same for an edge that the viewer certainly does not have.
    pub(super) fn link_new(
        &mut self,
        viewer: u32,
        friend: UserId,
        kind: WatchKind,
        interests: &mut Interests,
    ) -> Option<u16> {
        let target = self.viewers.get_mut(viewer)?;
        let edge = target.take_edge_slot()?;
        let (source, new) = self.sources.find_or_insert(friend);
        if new {
            interests.begun.push(friend);
        }
        let entry = self.sources.get_mut(source)?;
        let slot = &mut target.edges[usize::from(edge)];
        slot.source = source;
        slot.set_watch(entry.watches.len());
        entry.watches.push(Watch { viewer, edge, kind, state: 0 });
        Some(edge)
    }

    /// Unmakes an edge and says whether the viewer held the friend as near.
    pub(super) fn unlink(&mut self, viewer: u32, edge: u16, interests: &mut Interests) -> bool {
        let Some((source, watch)) = self.viewers.get_mut(viewer).and_then(|viewer| viewer.free_edge_slot(edge)) else {
            return false;
        };
        let Some(entry) = self.sources.get_mut(source) else { return false };
        let removed = entry.watches.swap_remove(watch);
        debug_assert_eq!((removed.viewer, removed.edge), (viewer, edge));
        if let Some(moved) = entry.watches.get(watch).copied()
            && let Some(other) = self.viewers.get_mut(moved.viewer)
        {
            other.edges[usize::from(moved.edge)].set_watch(watch);
        }
        if self.sources.get(source).is_some_and(|entry| entry.watches.is_empty()) {
            if let Some(entry) = self.sources.get(source) {
                interests.ended.push(entry.user);
            }
            self.sources.remove(source);
        }
        removed.state & TOLD != 0
    }

    /// The viewer's edge to a friend, or to its own user.
    pub(super) fn find_edge(&self, viewer: u32, friend: UserId, kind: WatchKind) -> Option<u16> {
        let source = self.sources.get(self.sources.find(friend)?)?;
        let own = kind == WatchKind::Own;
        let is_it = |watch: &&Watch| watch.viewer == viewer && (watch.kind == WatchKind::Own) == own;
        source.watches.iter().find(is_it).map(|watch| watch.edge)
    }

    /// The other half of an edge slot.
    pub(super) fn watch(&mut self, viewer: u32, edge: u16) -> Option<(u32, &mut Watch)> {
        let slot = *self.viewers.get(viewer)?.edges.get(usize::from(edge))?;
        let watch = self.sources.get_mut(slot.source)?.watches.get_mut(slot.watch())?;
        Some((slot.source, watch))
    }

    /// How much of a friend this watch shows; `None` for a viewer's own user.
    pub(super) fn level(watch: &Watch) -> Option<Level> {
        match watch.kind {
            WatchKind::Friend(level) => Some(level),
            WatchKind::Own => None,
        }
    }
}

impl Viewer {
    /// A slot that is free, or a new one; `None` if there are as many as there may be. Takes no longer when there are
    /// many.
    fn take_edge_slot(&mut self) -> Option<u16> {
        if let Some(slot) = self.edges.get(usize::from(self.first_free)) {
            let next = slot.watch() as u16;
            return Some(std::mem::replace(&mut self.first_free, next));
        }
        if self.edges.len() >= limits::EDGES_PER_VIEWER {
            return None;
        }
        self.edges.push(EdgeSlot::free());
        Some((self.edges.len() - 1) as u16)
    }

    /// Frees a slot, and returns its source and its watch; `None` if it is free.
    fn free_edge_slot(&mut self, edge: u16) -> Option<(u32, usize)> {
        let slot = self.edges.get_mut(usize::from(edge)).filter(|slot| slot.source != FREE)?;
        let freed = (std::mem::replace(&mut slot.source, FREE), slot.watch());
        slot.set_watch(usize::from(std::mem::replace(&mut self.first_free, edge)));
        Some(freed)
    }
}

const _: () = assert!(limits::EDGES_PER_VIEWER < NO_EDGE as usize, "no slot has the number that ends the list");
