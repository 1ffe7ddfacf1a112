//! Those who are watched: each user once per shard, with the newest fix and the list of watches.

use hashbrown::HashTable;
use model::{Fix, Level, UserId};
use rustc_hash::FxBuildHasher;
use smallvec::SmallVec;
use std::hash::BuildHasher;

/// From a friend to one of those who watch them; the other half is a [`super::viewers::EdgeSlot`]. 8 bytes, and all
/// that a fan-out needs to decide that nothing is to be done.
#[derive(Clone, Copy, Debug)]
pub(super) struct Watch {
    pub(super) viewer: u32,
    pub(super) edge: u16,
    pub(super) kind: WatchKind,
    /// Bits of [`TOLD`] and [`MOVED`].
    pub(super) state: u8,
}

/// The viewer holds this friend as near.
pub(super) const TOLD: u8 = 1;
/// The friend has moved since the viewer was told.
pub(super) const MOVED: u8 = 2;

/// What a watch is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WatchKind {
    /// A friend, seen as far as the level says.
    Friend(Level),
    /// The viewer's own user: the viewer is where this source is.
    Own,
}

/// A fix slot that does not exist.
pub(super) const NO_FIX: u32 = u32::MAX;

/// One watched user. Most friends are offline at any time, so the fix is kept apart.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) user: UserId,
    pub(super) fix: u32,
    /// Is on the wheel.
    pub(super) armed: bool,
    /// Was reported as silent since it was last heard.
    pub(super) silent: bool,
    pub(super) watches: SmallVec<[Watch; 2]>,
}

/// All sources of a shard.
#[derive(Debug, Default)]
pub(super) struct Sources {
    index: HashTable<u32>,
    entries: Vec<Option<Source>>,
    free: Vec<u32>,
    fixes: Vec<Fix>,
    free_fixes: Vec<u32>,
}

impl Sources {
    pub(super) fn find(&self, user: UserId) -> Option<u32> {
        self.index.find(hash(user), |&at| self.entries[at as usize].as_ref().is_some_and(|s| s.user == user)).copied()
    }

    /// The user's source, and whether it is new.
    pub(super) fn find_or_insert(&mut self, user: UserId) -> (u32, bool) {
        if let Some(at) = self.find(user) {
            return (at, false);
        }
        let source = Source { user, fix: NO_FIX, armed: false, silent: false, watches: SmallVec::new() };
        let at = match self.free.pop() {
            Some(at) => {
                self.entries[at as usize] = Some(source);
                at
            }
            None => {
                self.entries.push(Some(source));
                (self.entries.len() - 1) as u32
            }
        };
        let entries = &self.entries;
        self.index.insert_unique(hash(user), at, |&at| entries[at as usize].as_ref().map_or(0, |s| hash(s.user)));
        (at, true)
    }

    /// Removes a source that nobody watches.
    pub(super) fn remove(&mut self, at: u32) {
        self.drop_fix(at);
        if let Some(source) = self.entries[at as usize].take() {
            debug_assert!(source.watches.is_empty());
            if let Ok(found) = self.index.find_entry(hash(source.user), |&other| other == at) {
                found.remove();
            }
            self.free.push(at);
        }
    }

    pub(super) fn get(&self, at: u32) -> Option<&Source> {
        self.entries.get(at as usize)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, at: u32) -> Option<&mut Source> {
        self.entries.get_mut(at as usize)?.as_mut()
    }

    pub(super) fn fix(&self, at: u32) -> Option<&Fix> {
        let slot = self.get(at)?.fix;
        self.fixes.get(slot as usize)
    }

    /// Has the memory of these users' sources, fixes and lists of watches on its way before any of them is looked at.
    pub(super) fn fetch(&self, users: impl Iterator<Item = UserId>) {
        let touched = users.filter_map(|user| self.find(user)).fold(0, |touched, at| {
            let Some(source) = self.get(at) else { return touched };
            let fix = self.fixes.get(source.fix as usize).map_or(0, |fix| fix.order.ts.0 ^ fix.policy.0);
            // A line holds eight; long lists are read ahead by the processor itself.
            let watches = source.watches.iter().step_by(8).take(8).fold(0, |touched, watch| touched ^ watch.viewer);
            touched ^ fix ^ u64::from(watches)
        });
        // Loads that nobody waits for: what `black_box` takes may not be left out.
        std::hint::black_box(touched);
    }

    /// A source with its fix.
    pub(super) fn with_fix(&mut self, at: u32) -> Option<(&mut Source, Option<&Fix>)> {
        let source = self.entries.get_mut(at as usize)?.as_mut()?;
        let fix = self.fixes.get(source.fix as usize);
        Some((source, fix))
    }

    pub(super) fn set_fix(&mut self, at: u32, fix: Fix) {
        let Some(source) = self.entries.get_mut(at as usize).and_then(Option::as_mut) else { return };
        source.silent = false;
        if source.fix != NO_FIX {
            self.fixes[source.fix as usize] = fix;
        } else if let Some(slot) = self.free_fixes.pop() {
            source.fix = slot;
            self.fixes[slot as usize] = fix;
        } else {
            source.fix = self.fixes.len() as u32;
            self.fixes.push(fix);
        }
    }

    pub(super) fn drop_fix(&mut self, at: u32) {
        if let Some(source) = self.get_mut(at)
            && source.fix != NO_FIX
        {
            let slot = std::mem::replace(&mut source.fix, NO_FIX);
            self.free_fixes.push(slot);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.index.len()
    }
}

fn hash(user: UserId) -> u64 {
    FxBuildHasher.hash_one(user)
}
