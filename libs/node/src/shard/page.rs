//! The list of near friends, page by page.

use model::{Edge, Fix, Meters, MonotonicMs, Place, PolicyVersion, Radius, SharedFix, UserId};
use ports::Friendship;
use protocol::client::{Limit, PageCursor};

use super::sources::{MOVED, TOLD};
use super::viewers::Eye;
use super::{Shard, ViewerId};

/// One friend of a page.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Entry {
    /// What the viewer may see.
    pub shared: SharedFix,
    /// From the viewer, unrounded.
    pub distance: Meters,
}

/// A page of near friends, nearest first, equal distances by id.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Page {
    /// The friends.
    pub entries: Vec<Entry>,
    /// Where the next page begins; `None` on the last.
    pub next: Option<PageCursor>,
}

impl Page {
    /// The page after `after` of these entries.
    pub fn of(mut entries: Vec<Entry>, after: Option<PageCursor>, limit: Limit) -> Page {
        let key = |entry: &Entry| (entry.distance.0, entry.shared.user());
        let later = |entry: &Entry| match after {
            Some(after) => key(entry) > (after.distance.0, after.id),
            None => true,
        };
        entries.retain(later);
        entries.sort_by(|one, other| one.distance.0.total_cmp(&other.distance.0).then(key(one).1.cmp(&key(other).1)));
        let full = entries.len() > limit.get();
        entries.truncate(limit.get());
        let last = entries.last().filter(|_| full);
        let next = last.map(|last| PageCursor { distance: last.distance, id: last.shared.user(), limit });
        Page { entries, next }
    }
}

impl Shard {
    /// The first page: from now on the viewer is live, and counts as told of everybody who is near, whatever the
    /// page; it is pushed what changes from here.
    pub fn first_page(&mut self, viewer: ViewerId, limit: Limit, now: MonotonicMs) -> Page {
        let near = self.near(viewer, now);
        self.forget_told(viewer.0);
        if let Some(target) = self.viewers.get_mut(viewer.0) {
            // The page replaces what the client holds: a friend lost before it is not in it, and one who came back is.
            target.notices.iter_mut().for_each(|notice| notice.gone = false);
            self.tally.dropped += target.pending.len() as u64;
            for edge in std::mem::take(&mut target.pending) {
                target.edges[usize::from(edge)].set_pending(false);
            }
        }
        for (edge, _) in &near {
            if let Some((_, watch)) = self.watch(viewer.0, *edge) {
                watch.state = TOLD;
            }
        }
        self.page_out(viewer, near, None, limit)
    }

    /// A later page.
    pub fn next_page(&mut self, viewer: ViewerId, after: PageCursor, now: MonotonicMs) -> Page {
        let near = self.near(viewer, now);
        self.page_out(viewer, near, Some(after), after.limit)
    }

    /// Who of these friends is near a visitor, from what was read of the directory and the cache, less what has
    /// changed since the visitor registered.
    pub fn look_once(
        &mut self,
        viewer: ViewerId,
        friends: &[Friendship],
        found: &[Fix],
        place: &Place,
        radius: &Radius,
        now: MonotonicMs,
    ) -> Vec<Entry> {
        let Some(target) = self.viewers.get(viewer.0) else { return Vec::new() };
        if !target.connecting {
            return Vec::new();
        }
        target.signal.drained();
        let level = |friend: UserId| match target.overrides.as_ref().and_then(|overrides| overrides.get(&friend)) {
            Some(level) => *level,
            // Ascending by id, as the directory gives them.
            None => friends.binary_search_by_key(&friend, |known| known.friend).ok().map(|at| friends[at].level),
        };
        let shared = found.iter().filter_map(|fix| self.edge(level(fix.user)?).reveal(fix, now));
        let near = shared.filter(|shared| radius.holds(place, shared.place()));
        near.map(|shared| Entry { shared, distance: shared.distance_from(place.position()) }).collect()
    }

    fn page_out(&mut self, viewer: ViewerId, near: Vec<(u16, Entry)>, after: Option<PageCursor>, limit: Limit) -> Page {
        let page = Page::of(near.into_iter().map(|(_, entry)| entry).collect(), after, limit);
        if let Some(target) = self.viewers.get_mut(viewer.0) {
            target.live = true;
            target.signal.drained();
        }
        page
    }

    fn forget_told(&mut self, viewer: u32) {
        for edge in 0..self.viewers.get(viewer).map_or(0, |viewer| viewer.edges.len()) {
            if let Some((_, watch)) = self.watch(viewer, edge as u16) {
                watch.state &= !(TOLD | MOVED);
            }
        }
    }

    fn near(&mut self, viewer: ViewerId, now: MonotonicMs) -> Vec<(u16, Entry)> {
        let mut near = Vec::new();
        for edge in 0..self.viewers.get(viewer.0).map_or(0, |viewer| viewer.edges.len()) {
            let edge = edge as u16;
            if let Some(entry) = self.entry(viewer.0, edge, now) {
                near.push((edge, entry));
            }
        }
        near
    }

    fn entry(&mut self, viewer: u32, edge: u16, now: MonotonicMs) -> Option<Entry> {
        let (source, watch) = self.watch(viewer, edge)?;
        let level = Shard::level(watch)?;
        let permission = self.edge(level);
        self.viewers.eye(viewer).entry(permission, self.sources.fix(source)?, now)
    }

    /// The index of the control log up to which edges here are known to hold.
    pub fn applied(&self) -> PolicyVersion {
        self.applied
    }

    /// Who an edge leads to.
    pub(super) fn friend(&self, source: u32) -> Option<UserId> {
        self.sources.get(source).map(|source| source.user)
    }
}

impl Eye {
    /// What a viewer may see of one friend now, if that is within the radius. The only place in the engine that lets
    /// a position out to who stays; a visitor's is [`Shard::look_once`].
    pub(super) fn entry(&self, permission: Edge, fix: &Fix, now: MonotonicMs) -> Option<Entry> {
        let shared = permission.reveal(fix, now)?;
        let place = self.place.as_ref()?;
        self.radius
            .holds(place, shared.place())
            .then(|| Entry { shared, distance: shared.distance_from(place.position()) })
    }
}
