//! Making and unmaking the two halves of an edge.

use model::{Level, UserId};

use super::sources::{TOLD, Watch, WatchKind};
use super::viewers::{EdgeSlot, FREE};
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
        let target = self.viewers.get_mut(viewer)?;
        let edge = match target.edges.iter().position(|slot| slot.source == FREE) {
            Some(free) => free,
            None if target.edges.len() < limits::EDGES_PER_VIEWER => {
                target.edges.push(EdgeSlot::free());
                target.edges.len() - 1
            }
            None => return None,
        };
        let (source, new) = self.sources.find_or_insert(friend);
        if new {
            interests.begun.push(friend);
        }
        let entry = self.sources.get_mut(source)?;
        let slot = &mut target.edges[edge];
        slot.source = source;
        slot.set_watch(entry.watches.len());
        entry.watches.push(Watch { viewer, edge: edge as u16, kind, state: 0 });
        Some(edge as u16)
    }

    /// Unmakes an edge and says whether the viewer held the friend as near.
    pub(super) fn unlink(&mut self, viewer: u32, edge: u16, interests: &mut Interests) -> bool {
        let Some(slot) = self.viewers.get_mut(viewer).and_then(|viewer| viewer.edges.get_mut(usize::from(edge))) else {
            return false;
        };
        let source = std::mem::replace(&mut slot.source, FREE);
        let watch = slot.watch();
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
