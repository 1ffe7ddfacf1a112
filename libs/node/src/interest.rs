//! Which shards watch which user, and how far the node's subscription to that user's channel has come.
//!
//! One table for the node. Its 0 -> 1 and 1 -> 0 edges are what the broker is told; the invariant is that the last
//! cache read of a channel follows its last subscribe acknowledgement, and that a failed read stays owed.

use std::hash::BuildHasher;
use std::time::Duration;

use model::{MonotonicMs, UserId};
use parking_lot::Mutex;
use rustc_hash::{FxBuildHasher, FxHashMap};

use crate::limits;

/// Shards, a bit each.
pub(crate) type ShardMask = u32;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Held {
    No,
    Asking,
    Yes,
    Leaving,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    wanted: ShardMask,
    /// Shards that have not had a read since they began to watch, or since the last gap.
    owed: ShardMask,
    held: Held,
    /// When nobody has watched for so long that the subscription may go.
    linger_until: MonotonicMs,
}

const STRIPES: usize = 64;

/// The table.
pub(crate) struct Interest {
    stripes: Box<[Mutex<FxHashMap<UserId, Entry>>]>,
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
        Interest { stripes: (0..STRIPES).map(|_| Mutex::default()).collect() }
    }

    fn stripe(&self, user: UserId) -> &Mutex<FxHashMap<UserId, Entry>> {
        // The low bits choose the bucket within a stripe.
        &self.stripes[(FxBuildHasher.hash_one(user) >> 48) as usize % STRIPES]
    }

    /// The shards that watch this user: looked up once per arriving position.
    pub(crate) fn shards(&self, user: UserId) -> ShardMask {
        self.stripe(user).lock().get(&user).map_or(0, |entry| entry.wanted)
    }

    /// A shard watches this user from now on: arrivals reach it, and it is owed a read.
    pub(crate) fn begin(&self, shard: usize, user: UserId) {
        let mut stripe = self.stripe(user).lock();
        let entry =
            stripe.entry(user).or_insert(Entry { wanted: 0, owed: 0, held: Held::No, linger_until: MonotonicMs(0) });
        entry.wanted |= 1 << shard;
        entry.owed |= 1 << shard;
    }

    /// A shard watches this user no longer.
    pub(crate) fn end(&self, shard: usize, user: UserId, now: MonotonicMs) {
        let mut stripe = self.stripe(user).lock();
        let Some(entry) = stripe.get_mut(&user) else { return };
        entry.wanted &= !(1 << shard);
        entry.owed &= !(1 << shard);
        entry.linger_until = now.after(limits::LINGER);
    }

    /// Something may have been lost: every shard that watches is owed a read again.
    pub(crate) fn lost(&self, user: UserId) {
        if let Some(entry) = self.stripe(user).lock().get_mut(&user) {
            entry.owed = entry.wanted;
        }
    }

    /// Takes on what is to be done for this user; `None` if there is nothing, or somebody else is at it and will see
    /// to it.
    pub(crate) fn take_on(&self, user: UserId) -> Option<Work> {
        let mut stripe = self.stripe(user).lock();
        let entry = stripe.get_mut(&user)?;
        match entry.held {
            Held::Asking | Held::Leaving => None,
            _ if entry.owed == 0 => None,
            held => {
                let work = Work { subscribe: held == Held::No, read_for: entry.owed };
                // Cleared before the read begins: who begins to watch while it runs is owed another.
                entry.owed = 0;
                entry.held = Held::Asking;
                Some(work)
            }
        }
    }

    /// How it went. Returns whether there is more to do for this user.
    pub(crate) fn report(&self, user: UserId, work: Work, subscribed: bool, read: bool) -> bool {
        let mut stripe = self.stripe(user).lock();
        let Some(entry) = stripe.get_mut(&user) else { return false };
        entry.held = if subscribed || !work.subscribe { Held::Yes } else { Held::No };
        if !read {
            entry.owed |= work.read_for & entry.wanted;
        }
        entry.owed != 0
    }

    /// Users whom nobody has watched for long, taken out to be unsubscribed from; at most `max`.
    pub(crate) fn take_lingering(&self, now: MonotonicMs, max: usize) -> Vec<UserId> {
        let mut leaving = Vec::new();
        for stripe in &self.stripes {
            let mut stripe = stripe.lock();
            stripe.retain(|_, entry| entry.wanted != 0 || entry.held != Held::No);
            let idle = |entry: &Entry| entry.wanted == 0 && entry.held == Held::Yes && entry.linger_until <= now;
            for (user, entry) in stripe.iter_mut().filter(|(_, entry)| idle(entry)) {
                if leaving.len() == max {
                    return leaving;
                }
                entry.held = Held::Leaving;
                leaving.push(*user);
            }
        }
        leaving
    }

    /// The unsubscription ended, one way or the other. Returns whether somebody wants the user again.
    pub(crate) fn left(&self, user: UserId, unsubscribed: bool) -> bool {
        let mut stripe = self.stripe(user).lock();
        let Some(entry) = stripe.get_mut(&user) else { return false };
        // Unknown counts as not held: subscribing again changes nothing for a channel that is.
        entry.held = if unsubscribed { Held::No } else { Held::Yes };
        if entry.wanted == 0 && unsubscribed {
            stripe.remove(&user);
            return false;
        }
        entry.wanted != 0 && entry.owed != 0
    }

    /// Channels held, and channels with something to do.
    pub(crate) fn counts(&self) -> (usize, usize) {
        let mut counts = (0, 0);
        for stripe in &self.stripes {
            for entry in stripe.lock().values() {
                counts.0 += usize::from(entry.held == Held::Yes);
                counts.1 += usize::from(entry.owed != 0 || entry.held == Held::Asking);
            }
        }
        counts
    }

    /// How long a sweep of the table may leave things as they are.
    pub(crate) const SWEEP: Duration = Duration::from_secs(5);
}
