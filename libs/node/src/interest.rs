//! Which shards watch which user, and how far the node's subscription to that user's channel has come.
//!
//! One table for the node. Its 0 -> 1 and 1 -> 0 edges are what the broker is told; the invariant is that the last
//! cache read of a channel follows its last subscribe acknowledgement, and that a failed read stays owed.
//!
//! A user whom nobody watches any more waits in a queue until the grace period is over ([`limits::LINGER`]). Each user
//! of the table is in it at most once, whoever is not watched is in it or has a call under way, and nothing ever scans
//! the table.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::hash::BuildHasher;

use model::{MonotonicMs, UserId};
use parking_lot::Mutex;
use rustc_hash::{FxBuildHasher, FxHashMap};

use crate::limits;

/// Shards, a bit each.
pub(crate) type ShardMask = u32;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Held {
    No,
    /// Subscribing and reading, or reading only.
    Asking,
    Yes,
    /// A call failed, and may have taken effect: to be subscribed to by whoever wants it, and else to be given up.
    Unknown,
    /// Unsubscribing.
    Leaving,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    wanted: ShardMask,
    /// Shards that have not had a read since they began to watch, or since the last gap.
    owed: ShardMask,
    held: Held,
    /// In [`Interest::due`].
    queued: bool,
    /// When nobody has watched for so long that the subscription may go.
    linger_until: MonotonicMs,
}

impl Entry {
    const NEW: Entry = Entry { wanted: 0, owed: 0, held: Held::No, queued: false, linger_until: MonotonicMs(0) };

    fn counts(&self) -> (usize, usize) {
        let is_held = matches!(self.held, Held::Yes | Held::Unknown);
        (usize::from(is_held), usize::from(self.owed != 0 || self.held == Held::Asking))
    }
}

const STRIPES: usize = 64;

#[derive(Default)]
struct Stripe {
    entries: FxHashMap<UserId, Entry>,
    /// Channels held, and channels with something to do, among the entries.
    counts: (usize, usize),
}

impl Stripe {
    /// Changes an entry; `None` if there is none.
    fn change<R>(&mut self, user: UserId, change: impl FnOnce(&mut Entry) -> R) -> Option<R> {
        let entry = self.entries.get_mut(&user)?;
        let before = entry.counts();
        let result = change(entry);
        let after = entry.counts();
        self.count(before, after);
        Some(result)
    }

    fn remove(&mut self, user: UserId) {
        if let Some(entry) = self.entries.remove(&user) {
            self.count(entry.counts(), (0, 0));
        }
    }

    fn count(&mut self, before: (usize, usize), after: (usize, usize)) {
        self.counts.0 = self.counts.0 + after.0 - before.0;
        self.counts.1 = self.counts.1 + after.1 - before.1;
    }
}

/// The table.
pub(crate) struct Interest {
    stripes: Box<[Mutex<Stripe>]>,
    /// Users whom nobody watches, by the end of their grace period. Locked after a stripe, never before.
    due: Mutex<BinaryHeap<Reverse<(MonotonicMs, UserId)>>>,
}

/// What is to be done for one channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Work {
    pub(crate) subscribe: bool,
    /// Shards to be given what the cache holds.
    pub(crate) read_for: ShardMask,
}

impl Interest {
    pub(crate) fn new() -> Interest {
        Interest { stripes: (0..STRIPES).map(|_| Mutex::default()).collect(), due: Mutex::default() }
    }

    fn stripe(&self, user: UserId) -> &Mutex<Stripe> {
        // The low bits choose the bucket within a stripe.
        &self.stripes[(FxBuildHasher.hash_one(user) >> 48) as usize % STRIPES]
    }

    /// Changes an entry; `None` if there is none. Whoever is watched by nobody after it, with no call under way, waits
    /// in the queue, or leaves the table if there is no subscription.
    fn change<R>(&self, user: UserId, change: impl FnOnce(&mut Entry) -> R) -> Option<R> {
        let mut stripe = self.stripe(user).lock();
        let (result, is_done) = stripe.change(user, |entry| {
            let result = change(entry);
            let is_idle = entry.wanted == 0 && !entry.queued;
            if is_idle && matches!(entry.held, Held::Yes | Held::Unknown) {
                entry.queued = true;
                self.due.lock().push(Reverse((entry.linger_until, user)));
            }
            (result, is_idle && entry.held == Held::No)
        })?;
        if is_done {
            stripe.remove(user);
        }
        Some(result)
    }

    /// The shards that watch this user: looked up once per arriving position.
    pub(crate) fn shards(&self, user: UserId) -> ShardMask {
        self.stripe(user).lock().entries.get(&user).map_or(0, |entry| entry.wanted)
    }

    /// A shard watches this user from now on: arrivals reach it, and it is owed a read.
    pub(crate) fn begin(&self, shard: usize, user: UserId) {
        let mut stripe = self.stripe(user).lock();
        stripe.entries.entry(user).or_insert(Entry::NEW);
        stripe.change(user, |entry| {
            entry.wanted |= 1 << shard;
            entry.owed |= 1 << shard;
        });
    }

    /// A shard watches this user no longer.
    pub(crate) fn end(&self, shard: usize, user: UserId, now: MonotonicMs) {
        self.change(user, |entry| {
            entry.wanted &= !(1 << shard);
            entry.owed &= !(1 << shard);
            entry.linger_until = now.after(limits::LINGER);
        });
    }

    /// Something may have been lost: every shard that watches is owed a read again.
    pub(crate) fn lost(&self, user: UserId) {
        self.change(user, |entry| entry.owed = entry.wanted);
    }

    /// Takes on what is to be done for this user; `None` if there is nothing, or somebody else is at it and will see
    /// to it.
    pub(crate) fn take_on(&self, user: UserId) -> Option<Work> {
        self.change(user, |entry| match entry.held {
            Held::Asking | Held::Leaving => None,
            _ if entry.owed == 0 => None,
            held => {
                let work = Work { subscribe: held != Held::Yes, read_for: entry.owed };
                // Cleared before the read begins: who begins to watch while it runs is owed another.
                entry.owed = 0;
                entry.held = Held::Asking;
                Some(work)
            }
        })?
    }

    /// How it went. Returns whether there is more to do for this user.
    pub(crate) fn report(&self, user: UserId, work: Work, subscribed: bool, read: bool) -> bool {
        let reported = self.change(user, |entry| {
            entry.held = if subscribed || !work.subscribe { Held::Yes } else { Held::Unknown };
            if !read {
                entry.owed |= work.read_for & entry.wanted;
            }
            entry.owed != 0
        });
        reported.unwrap_or(false)
    }

    /// Looks at the first users of the queue, at most `max`, and returns those whose grace period is over: they are to
    /// be unsubscribed from, and [`Interest::left`] called. `None` when nobody is due.
    pub(crate) fn take_due(&self, now: MonotonicMs, max: usize) -> Option<Vec<UserId>> {
        let mut first = Vec::new();
        {
            let mut due = self.due.lock();
            while first.len() < max
                && let Some(next) = due.peek_mut().filter(|next| next.0.0 <= now)
            {
                first.push(PeekMut::pop(next).0.1);
            }
        }
        if first.is_empty() {
            return None;
        }
        first.retain(|&user| self.is_to_leave(user, now));
        Some(first)
    }

    /// For a user who was taken out of the queue.
    fn is_to_leave(&self, user: UserId, now: MonotonicMs) -> bool {
        let is_over = |entry: &Entry| entry.wanted == 0 && entry.linger_until <= now;
        let leaving = self.change(user, |entry| {
            entry.queued = false;
            let leaves = is_over(entry) && matches!(entry.held, Held::Yes | Held::Unknown);
            if leaves {
                entry.held = Held::Leaving;
            }
            leaves
        });
        leaving.unwrap_or(false)
    }

    /// The unsubscription ended, one way or the other: one that failed is tried again after [`limits::RETRY`] if nobody
    /// watches then. Returns whether somebody wants the user again.
    pub(crate) fn left(&self, user: UserId, unsubscribed: bool, now: MonotonicMs) -> bool {
        let is_wanted = self.change(user, |entry| {
            // Unknown counts as not held: subscribing again changes nothing for a channel that is.
            entry.held = if unsubscribed { Held::No } else { Held::Unknown };
            if !unsubscribed {
                entry.linger_until = entry.linger_until.max(now.after(limits::RETRY));
            }
            entry.owed != 0
        });
        is_wanted.unwrap_or(false)
    }

    /// Channels held, and channels with something to do.
    pub(crate) fn counts(&self) -> (usize, usize) {
        self.stripes.iter().map(|stripe| stripe.lock().counts).fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
    }
}

#[cfg(test)]
mod tests;
