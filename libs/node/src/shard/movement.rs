//! Somebody is somewhere else.

use model::{Fix, Level, MonotonicMs, Place, PolicyVersion, Radius};

use super::glance::Cell;
use super::sources::{MOVED, TOLD, WatchKind};
use super::viewers::{FREE, Viewers};
use super::{Shard, ViewerId};

/// What became of a position in one shard.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Heard {
    /// It is the newest of its user here.
    Taken,
    /// Not newer than what is here and has not expired, or past its own time.
    Stale,
    /// Nobody here watches its user.
    Unwatched,
}

/// Chords are computed to about 1e-15: a border nearer than this counts as reached.
const CHORD_SLOP: f64 = 1e-13;

/// Positions whose sources are fetched into the caches at once: what a processor keeps in flight.
const HEARD_AT_ONCE: usize = 8;

/// Watchers looked at together, and their eyes fetched into the caches at once: 4 KiB, an eighth of the nearest cache.
const LOOKED_AT_AT_ONCE: usize = 64;

impl Shard {
    /// Friends are at other places: what [`Shard::heard`] does for each, in this order, and sooner, because what the
    /// next ones need is fetched into the caches meanwhile.
    pub fn heard_all(&mut self, fixes: &[Fix], now: MonotonicMs) {
        for fixes in fixes.chunks(HEARD_AT_ONCE) {
            self.sources.fetch(fixes.iter().map(|fix| fix.user));
            for fix in fixes {
                self.heard(fix, now);
            }
        }
    }

    /// A friend is at another place. The fan-out: one lookup, one run over the watches.
    pub fn heard(&mut self, fix: &Fix, now: MonotonicMs) -> Heard {
        let Some(source) = self.sources.find(fix.user) else { return Heard::Unwatched };
        // What has expired holds up nothing: a clock that was set back, or another way to lose one's place.
        let held = self.sources.fix(source).filter(|held| held.expires > now);
        if fix.expires <= now || held.is_some_and(|held| held.order >= fix.order) {
            return Heard::Stale;
        }
        // A device that rests repeats its report: nothing to show again to those who were shown it.
        let repeats = held.is_some_and(|held| held.policy <= self.applied && held.shows_the_same(fix));
        self.sources.set_fix(source, *fix);
        self.arm(source, now);
        if fix.policy > self.applied {
            self.ahead.push(source);
        } else if !repeats {
            self.tell_watchers(source);
        }
        Heard::Taken
    }

    /// Those sources whose fix was ahead of the control log, now that `applied` has gone up from `before`.
    pub(super) fn catch_up(&mut self, before: PolicyVersion) {
        for source in std::mem::take(&mut self.ahead) {
            let Some(fix) = self.sources.fix(source) else { continue };
            if fix.policy > self.applied {
                self.ahead.push(source);
            } else if fix.policy > before {
                // Else a later fix took its place, which was told when it came.
                self.tell_watchers(source);
            }
        }
    }

    /// Three runs, so that the processor fetches what several viewers need at once: each is a miss of the caches in a
    /// large shard. To most watchers the friend does not matter, which a glance tells; the eyes of the others are looked
    /// at; those with news are marked.
    fn tell_watchers(&mut self, source: u32) {
        let Some(place) = self.sources.fix(source).map(|fix| fix.place) else { return };
        let Some(entry) = self.sources.get_mut(source) else { return };
        let (mut to_mark, mut own, cell) = (std::mem::take(&mut self.to_mark), false, Cell::of(&place));
        for watches in entry.watches.chunks_mut(LOOKED_AT_AT_ONCE) {
            self.viewers.fetch_glances(watches.iter().map(|watch| watch.viewer));
            let (mut to_look, mut looks) = ([0; LOOKED_AT_AT_ONCE], 0);
            for (at, watch) in watches.iter().enumerate() {
                match watch.kind {
                    WatchKind::Own => own = true,
                    WatchKind::Friend(Level::Exact) => {
                        self.tally.checks += 1;
                        to_look[looks] = at as u8;
                        // No branch: who is near cannot be predicted.
                        let may_matter = self.viewers.may_matter(watch.viewer, cell);
                        looks += usize::from(may_matter | (watch.state & TOLD != 0));
                    }
                    WatchKind::Friend(_) => {}
                }
            }
            let to_look = &to_look[..looks];
            self.viewers.fetch(to_look.iter().map(|&at| watches[usize::from(at)].viewer));
            for &at in to_look {
                let watch = &mut watches[usize::from(at)];
                if self.viewers.sees(watch.viewer, &place) || watch.state & TOLD != 0 {
                    // Even when out of sight: the viewer may follow before the news are drained.
                    watch.state |= MOVED;
                    to_mark.push((watch.viewer, watch.edge));
                }
            }
        }
        for (viewer, edge) in to_mark.drain(..) {
            self.mark(viewer, edge);
        }
        self.to_mark = to_mark;
        if own {
            self.move_followers(source, place);
        }
    }

    /// Those viewers who are where their own user is.
    fn move_followers(&mut self, source: u32, place: Place) {
        for at in 0..self.sources.get(source).map_or(0, |source| source.watches.len()) {
            match self.sources.get(source).and_then(|source| source.watches.get(at)) {
                Some(watch) if watch.kind == WatchKind::Own => self.place(ViewerId(watch.viewer), place),
                _ => {}
            }
        }
    }

    /// One friend of one viewer, who may have become visible: the same as if the friend had just been heard.
    pub(super) fn look_at(&mut self, viewer: u32, edge: u16) {
        let Some((source, watch)) = self.watch(viewer, edge) else { return };
        if Shard::level(watch) != Some(Level::Exact) {
            return;
        }
        let Some(fix) = self.sources.fix(source) else { return };
        let (place, ahead) = (fix.place, fix.policy > self.applied);
        if !ahead && self.viewers.sees(viewer, &place) {
            self.mark(viewer, edge);
        }
    }

    /// A viewer is at another place. Friends who stand still are told only when they enter or leave.
    ///
    /// Chords obey the triangle inequality: as long as the viewer has moved less than the nearest border was away at
    /// the last full look around, nobody can have changed sides, and there is nothing to do.
    pub fn place(&mut self, viewer: ViewerId, place: Place) {
        let ViewerId(viewer) = viewer;
        // Whether the viewer is still there is not asked, which would cost a memory access: the eye of one who is not
        // is seen by nobody, and the next to get it brings its own.
        let may_have_crossed = self.viewers.change_eye(viewer, |eye| {
            let before = eye.place.replace(place);
            eye.slack -= before.map_or(0.0, |before| before.chord(&place));
            before.is_none() || eye.slack <= 0.0
        });
        if may_have_crossed {
            self.look_around(viewer);
        }
    }

    /// Watches another radius.
    pub fn set_radius(&mut self, viewer: ViewerId, radius: Radius) {
        if self.viewers.get(viewer.0).is_some() {
            self.viewers.change_eye(viewer.0, |eye| eye.radius = radius);
            self.look_around(viewer.0);
        }
    }

    fn look_around(&mut self, viewer: u32) {
        let edges = self.viewers.get(viewer).map_or(0, |viewer| viewer.edges.len());
        let eye = *self.viewers.eye(viewer);
        let (Some(place), radius) = (eye.place, eye.radius) else { return };
        let mut slack = f64::INFINITY;
        for edge in 0..edges {
            let slot = match self.viewers.get(viewer) {
                Some(viewer) if viewer.edges[edge].source != FREE => viewer.edges[edge],
                _ => continue,
            };
            let Some(fix) = self.sources.fix(slot.source) else { continue };
            let (friend, ahead) = (fix.place, fix.policy > self.applied);
            let Some(watch) = self.sources.get(slot.source).and_then(|s| s.watches.get(slot.watch())) else {
                continue;
            };
            if Shard::level(watch) != Some(Level::Exact) || ahead {
                continue;
            }
            self.tally.checks += 1;
            slack = slack.min((place.chord(&friend) - radius.chord()).abs());
            let told = watch.state & TOLD != 0;
            if radius.holds(&place, &friend) != told {
                self.mark(viewer, edge as u16);
            }
        }
        self.viewers.change_eye(viewer, |eye| eye.slack = slack - CHORD_SLOP);
    }
}

impl Viewers {
    /// Whether a friend at this place is within the radius; keeps the bound on the nearest border true.
    fn sees(&mut self, viewer: u32, friend: &Place) -> bool {
        let eye = self.eye(viewer);
        let Some(place) = &eye.place else { return false };
        // To cross this border, the viewer has to go at least as far from here as it is away. Hardly ever is it the
        // nearest: an eye that is only read need not be written back to memory.
        let (holds, border) =
            (eye.radius.holds(place, friend), (place.chord(friend) - eye.radius.chord()).abs() - CHORD_SLOP);
        if border < eye.slack {
            self.change_eye(viewer, |eye| eye.slack = border);
        }
        holds
    }
}
