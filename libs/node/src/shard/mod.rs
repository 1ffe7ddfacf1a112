//! The engine of one core: who watches whom, who is where, and who has to be told.
//!
//! A shard is plain data behind one lock: no async, no I/O, no clock. Verbs go in, [`Shard::take_woken`] says whom to
//! tell, [`Shard::drain`] makes the frames at the moment of sending, from the newest positions and the
//! permissions of that moment. Nothing is queued but the names of friends with news.
//!
//! Draining is level-triggered: near and not told, or moved -> `Friend`; told and no longer near -> `Gone`; edge
//! absent -> nothing. So it never matters how often, or in which order, an edge was marked.

mod viewers;
mod glance;
mod sources;
mod edges;
mod members;
mod permissions;
mod pairs;
mod sharing;
mod outgoing;
mod movement;
mod page;
mod drain;
mod expiry;

use std::sync::Arc;

use model::{Edge, Level, MonotonicMs, PolicyVersion, UserId};
use rustc_hash::{FxHashMap, FxHashSet};

use crate::signal::Signal;

pub use drain::{Drained, News};
pub use movement::Heard;
pub use outgoing::Sent;
pub use page::{Entry, Page};
pub use pairs::Pair;
pub use permissions::{Effects, InFlight};
pub use sharing::Taken;
pub use viewers::ViewerId;

use expiry::Wheel;
use members::Members;
use outgoing::Outgoing;
use sources::Sources;
use viewers::Viewers;

/// What a shard did, since the last time somebody asked. `marked = delivered + replaced + dropped + queued` holds over
/// a shard's life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Edges were marked as having news.
    pub marked: u64,
    /// News became a frame.
    pub delivered: u64,
    /// News came for an edge that had some already: one frame will tell the newest.
    pub replaced: u64,
    /// News came to nothing: back where it was told, edge or viewer gone.
    pub dropped: u64,
    /// A distance was compared with a radius.
    pub checks: u64,
}

/// Users whom this shard now watches and did not before, or the other way round.
#[derive(Debug, Default)]
pub struct Interests {
    /// Watched from now on: to be subscribed to, and owed a read of the cache.
    pub begun: Vec<UserId>,
    /// Watched by nobody any more.
    pub ended: Vec<UserId>,
}

/// The engine of one core.
#[derive(Debug, Default)]
pub struct Shard {
    /// The index of the control log that every edge here is known to hold for.
    applied: PolicyVersion,
    members: Members,
    viewers: Viewers,
    sources: Sources,
    wheel: Wheel,
    /// Sources whose newest fix was taken in under permissions newer than `applied`.
    ahead: Vec<u32>,
    /// Viewers that are registered and not admitted yet.
    connecting: FxHashSet<u32>,
    /// Pairs whose record is to be read again, with the index of the last entry that said so.
    unread: FxHashMap<Pair, PolicyVersion>,
    woken: Vec<u32>,
    outgoing: Outgoing,
    /// Edges found to have news during one run over watches; empty between verbs.
    to_mark: Vec<(u32, u16)>,
    tally: Tally,
}

impl Shard {
    /// An empty shard that has applied the control log up to `applied`.
    pub fn new(applied: PolicyVersion) -> Shard {
        Shard { applied, ..Shard::default() }
    }

    /// Whether somebody is to be told that there is news.
    pub fn has_woken(&self) -> bool {
        !self.woken.is_empty()
    }

    /// Moves up to `max` of those who are to be told into `woken`, each once.
    pub fn take_woken(&mut self, max: usize, woken: &mut Vec<Arc<Signal>>) {
        let taken = self.woken.len().min(max);
        // Each is a miss of the caches in a large shard, now and when it is told and drained: so all of them are on their
        // way at once. Loads that nobody waits for: what `black_box` takes may not be left out.
        let signals =
            self.woken[..taken].iter().filter_map(|&viewer| self.viewers.get(viewer)).map(|viewer| &viewer.signal);
        std::hint::black_box(signals.filter(|signal| signal.in_flight().is_some()).count());
        for viewer in self.woken.drain(..taken) {
            if let Some(viewer) = self.viewers.get_mut(viewer) {
                viewer.woken = false;
                woken.push(viewer.signal.clone());
            }
        }
    }

    /// What was done since the last call.
    pub fn take_tally(&mut self) -> Tally {
        std::mem::take(&mut self.tally)
    }

    /// News that wait to be drained.
    pub fn queued(&self) -> u64 {
        self.viewers.iter().map(|(_, viewer)| viewer.pending.len() as u64).sum()
    }

    /// Viewers, and users watched.
    pub fn population(&self) -> (usize, usize) {
        (self.viewers.len(), self.sources.len())
    }

    /// Whether somebody here watches this user.
    pub fn watches(&self, user: UserId) -> bool {
        self.sources.find(user).is_some()
    }

    /// Rings the bells of those whose own deadline has come.
    pub fn ring_due(&self, now: MonotonicMs, due: &mut Vec<Arc<Signal>>) {
        due.extend(self.viewers.iter().map(|(_, viewer)| &viewer.signal).filter(|signal| signal.is_due(now)).cloned());
    }

    fn edge(&self, level: Level) -> Edge {
        Edge { level, policy: self.applied }
    }

    /// Marks one edge of a viewer as having news, and the viewer as to be woken. Before the first page there is nothing
    /// that a mark could change: the page is made from what is then.
    fn mark(&mut self, viewer: u32, edge: u16) {
        let Some(target) = self.viewers.get_mut(viewer).filter(|viewer| viewer.live) else { return };
        self.tally.marked += 1;
        let slot = &mut target.edges[usize::from(edge)];
        if slot.is_pending() {
            self.tally.replaced += 1;
            return;
        }
        slot.set_pending(true);
        target.pending.push(edge);
        if !std::mem::replace(&mut target.woken, true) {
            self.woken.push(viewer);
        }
    }

    fn wake(&mut self, viewer: u32) {
        let Some(target) = self.viewers.get_mut(viewer) else { return };
        if target.live && !target.woken {
            target.woken = true;
            self.woken.push(viewer);
        }
    }
}
