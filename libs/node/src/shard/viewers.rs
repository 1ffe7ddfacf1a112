//! Those who watch.

use std::sync::Arc;

use model::{Level, Place, Radius, UserId};
use rustc_hash::FxHashMap;
use smallvec::SmallVec;

use super::glance::{Cell, Glance};
use crate::signal::Signal;

/// A viewer of one shard. Given out again only after its owner has removed it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ViewerId(pub(super) u32);

/// What a fan-out looks at, apart from all else: one cache line, so that it costs one memory access per viewer. Only for
/// those to whom the friend may matter by their [`Glance`].
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
pub(super) struct Eye {
    /// Where the viewer is; `None` until that is known.
    pub(super) place: Option<Place>,
    pub(super) radius: Radius,
    /// How much further the viewer may go, as a sum of chords, until a friend who stands still could change sides.
    pub(super) slack: f64,
}

const _: () = assert!(size_of::<Eye>() == 64);

/// From a viewer to one friend; the other half is a [`super::sources::Watch`]. 8 bytes: people have hundreds.
#[derive(Clone, Copy, Debug)]
pub(super) struct EdgeSlot {
    /// The friend's source; [`FREE`] for a slot without an edge.
    pub(super) source: u32,
    /// Where in the source's list of watches the other half is; the top bit is [`PENDING`].
    watch: u32,
}

/// The slot's index is in `pending`. Outlives the edge, so that an index is never queued twice.
const PENDING: u32 = 1 << 31;

impl EdgeSlot {
    pub(super) const fn free() -> EdgeSlot {
        EdgeSlot { source: FREE, watch: 0 }
    }

    pub(super) fn watch(&self) -> usize {
        (self.watch & !PENDING) as usize
    }

    /// A source has far fewer watches than 2^31: a viewer of 100 bytes stands behind each.
    pub(super) fn set_watch(&mut self, watch: usize) {
        self.watch = (self.watch & PENDING) | watch as u32;
    }

    pub(super) fn is_pending(&self) -> bool {
        self.watch & PENDING != 0
    }

    pub(super) fn set_pending(&mut self, pending: bool) {
        self.watch = (self.watch & !PENDING) | if pending { PENDING } else { 0 };
    }
}

/// The source of a slot without an edge.
pub(super) const FREE: u32 = u32::MAX;

/// A change in the list of friends, to be told in this order: gone, removed, added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Notice {
    pub(super) friend: UserId,
    pub(super) gone: bool,
    pub(super) removed: bool,
    pub(super) added: bool,
}

/// What the control log, and pairs read again because of it, said of friends between registering and admitting. It
/// outranks what was read of the directory as a whole; `None` is nothing to be seen.
pub(super) type Overrides = FxHashMap<UserId, Option<Level>>;

/// The end of a viewer's list of free edge slots.
pub(super) const NO_EDGE: u16 = u16::MAX;

/// The rest of a viewer. Two cache lines: marking and draining touch only the first.
#[derive(Debug)]
#[repr(C, align(64))]
pub(super) struct Viewer {
    pub(super) signal: Arc<Signal>,
    pub(super) edges: Vec<EdgeSlot>,
    /// Indexes of edges with news, oldest first. Few enough are in the line itself.
    pub(super) pending: SmallVec<[u16; 8]>,
    /// Has had its first `nearby`: news may be sent.
    pub(super) live: bool,
    pub(super) woken: bool,
    /// There are `notices`.
    pub(super) noticed: bool,
    /// Asks once and keeps no connection.
    pub(super) visitor: bool,
    /// Registered, and not given what was read of the directory yet.
    pub(super) connecting: bool,
    /// The first free slot of `edges`; each holds the next one in place of its watch.
    pub(super) first_free: u16,
    pub(super) user: UserId,
    pub(super) notices: Vec<Notice>,
    /// Only while connecting, and only if there are some.
    pub(super) overrides: Option<Box<Overrides>>,
}

const _: () = assert!(std::mem::offset_of!(Viewer, visitor) < 64 && size_of::<Option<Viewer>>() == 128);

/// All viewers of a shard: glances and eyes in arrays of their own, the rest in another.
#[derive(Debug, Default)]
pub(super) struct Viewers {
    /// Each made from the eye of the same index whenever that changes.
    glances: Vec<Glance>,
    eyes: Vec<Eye>,
    rest: Vec<Option<Viewer>>,
    free: Vec<u32>,
}

impl Viewers {
    pub(super) fn insert(&mut self, eye: Eye, viewer: Viewer) -> u32 {
        if let Some(index) = self.free.pop() {
            self.change_eye(index, |free| *free = eye);
            self.rest[index as usize] = Some(viewer);
            return index;
        }
        self.glances.push(Glance::of(&eye));
        self.eyes.push(eye);
        self.rest.push(Some(viewer));
        (self.rest.len() - 1) as u32
    }

    pub(super) fn remove(&mut self, index: u32) -> Option<Viewer> {
        let viewer = self.rest.get_mut(index as usize)?.take()?;
        self.free.push(index);
        Some(viewer)
    }

    pub(super) fn get(&self, index: u32) -> Option<&Viewer> {
        self.rest.get(index as usize)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, index: u32) -> Option<&mut Viewer> {
        self.rest.get_mut(index as usize)?.as_mut()
    }

    /// Only for an index of a viewer that is there, or was.
    pub(super) fn eye(&self, index: u32) -> &Eye {
        &self.eyes[index as usize]
    }

    /// Changes an eye, and its glance with it. For indexes as of [`Viewers::eye`].
    pub(super) fn change_eye<R>(&mut self, index: u32, change: impl FnOnce(&mut Eye) -> R) -> R {
        let eye = &mut self.eyes[index as usize];
        let result = change(eye);
        self.glances[index as usize] = Glance::of(eye);
        result
    }

    /// Has the memory of these glances on its way before any of them is looked at, as [`Viewers::fetch`] does of eyes.
    pub(super) fn fetch_glances(&self, indexes: impl Iterator<Item = u32>) {
        let touched = indexes.fold(0, |touched, index| touched ^ self.glances[index as usize].reach());
        std::hint::black_box(touched);
    }

    /// Whether a friend there may matter to this viewer. For indexes as of [`Viewers::eye`].
    pub(super) fn may_matter(&self, index: u32, friend: Cell) -> bool {
        self.glances[index as usize].may_matter(friend)
    }

    /// Has the memory of these eyes on its way before any of them is looked at. For indexes as of [`Viewers::eye`].
    pub(super) fn fetch(&self, indexes: impl Iterator<Item = u32>) {
        // Loads that nobody waits for: what `black_box` takes may not be left out.
        let touched = indexes.fold(0, |touched, index| touched ^ self.eyes[index as usize].slack.to_bits());
        std::hint::black_box(touched);
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &Viewer)> {
        self.rest.iter().enumerate().filter_map(|(index, viewer)| Some((index as u32, viewer.as_ref()?)))
    }

    pub(super) fn len(&self) -> usize {
        self.rest.len() - self.free.len()
    }
}
