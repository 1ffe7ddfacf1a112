//! Who has a position to be carried to the location cache and the broker.
//!
//! Names are queued, never positions: what is sent is the user's newest position at the moment of sending. So the queue
//! is bounded by the users who are here, a retry never brings back an older position, and nothing is sent of a deleted
//! user, who has no position any more.

use std::collections::VecDeque;

use model::{Fix, MonotonicMs, UserId};

use super::Shard;
use super::members::Member;

/// Of a full batch, one part in so many is left to positions that are sent again, as long as there are some.
const SHARE_OF_AGAIN: usize = 4;

/// What became of the positions that were queued to be sent. Over a shard's life `queued = replaced + taken + dropped +`
/// [`Shard::outgoing`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// A position was queued, for the first time or once more.
    pub queued: u64,
    /// A newer one of the same user, or the same for another reason, was queued before it was taken.
    pub replaced: u64,
    /// It was taken to be sent.
    pub taken: u64,
    /// It expired, or its user was deleted or shares from elsewhere.
    pub dropped: u64,
}

impl Sent {
    /// The sum of both.
    #[must_use]
    pub fn and(self, other: Sent) -> Sent {
        Sent {
            queued: self.queued + other.queued,
            replaced: self.replaced + other.replaced,
            taken: self.taken + other.taken,
            dropped: self.dropped + other.dropped,
        }
    }
}

/// Each user is in each queue at most once, as long as the user is here.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    /// Users with a position that was not sent yet, oldest first.
    fresh: VecDeque<UserId>,
    /// Users whose position has to be sent again.
    again: VecDeque<UserId>,
    /// Something was queued since that was last asked.
    grown: bool,
    sent: Sent,
}

impl Outgoing {
    /// The member has a new position.
    pub(super) fn push_fresh(&mut self, user: UserId, member: &mut Member) {
        self.sent.queued += 1;
        if std::mem::replace(&mut member.is_fresh, true) {
            self.sent.replaced += 1;
        } else {
            self.fresh.push_back(user);
            self.grown = true;
        }
    }

    fn push_again(&mut self, user: UserId, member: &mut Member) {
        self.sent.queued += 1;
        self.sent.replaced += u64::from(std::mem::replace(&mut member.wants_again, true));
        if !std::mem::replace(&mut member.is_in_again, true) {
            self.again.push_back(user);
            self.grown = true;
        }
    }

    /// Takes a member's position along, unless it has expired.
    fn take(&mut self, member: &Member, now: MonotonicMs, batch: &mut Vec<Fix>) {
        let live = member.last.as_deref().filter(|fix| fix.expires > now);
        self.sent.taken += u64::from(live.is_some());
        self.sent.dropped += u64::from(live.is_none());
        batch.extend(live);
    }
}

impl Shard {
    /// The user's newest position is to be sent once more, if there is one.
    pub fn send_again(&mut self, user: UserId) {
        if let Some(member) = self.members.get_mut(user).filter(|member| member.last.is_some()) {
            self.outgoing.push_again(user, member);
        }
    }

    /// Whether positions were queued since the last call.
    pub fn take_outgoing_grown(&mut self) -> bool {
        std::mem::take(&mut self.outgoing.grown)
    }

    /// Whether somebody has a position to be sent.
    pub fn has_outgoing(&self) -> bool {
        !self.outgoing.fresh.is_empty() || !self.outgoing.again.is_empty()
    }

    /// Takes the newest positions of up to `max` users who have something to send, those with a new one first.
    pub fn take_outgoing(&mut self, max: usize, now: MonotonicMs, batch: &mut Vec<Fix>) {
        let reserved = self.outgoing.again.len().min(max / SHARE_OF_AGAIN);
        while batch.len() < max - reserved
            && let Some(user) = self.outgoing.fresh.pop_front()
        {
            // Gone meanwhile, or gone, back and sent.
            let Some(member) = self.members.get_mut(user).filter(|member| member.is_fresh) else { continue };
            member.is_fresh = false;
            // It is the newest: sending it again is not needed any more.
            self.outgoing.sent.replaced += u64::from(std::mem::take(&mut member.wants_again));
            self.outgoing.take(member, now, batch);
        }
        while batch.len() < max
            && let Some(user) = self.outgoing.again.pop_front()
        {
            let Some(member) = self.members.get_mut(user) else { continue };
            member.is_in_again = false;
            if std::mem::take(&mut member.wants_again) {
                self.outgoing.take(member, now, batch);
            }
        }
    }

    /// The location cache has a newer position of this user than this one, which was taken in here. Returns whether a
    /// connection here shares: it may have been superseded. Otherwise what is kept here is sent no more, unless it is
    /// newer than this one: whoever took in the newer one sends that.
    pub fn outdated(&mut self, fix: &Fix) -> bool {
        let Some(member) = self.members.get_mut(fix.user) else { return false };
        if member.sharing.is_some() {
            return true;
        }
        if member.last.as_ref().is_some_and(|last| last.order <= fix.order) {
            member.last = None;
            self.members.settle(fix.user);
        }
        false
    }

    /// Removes from `users` those who have no position here to be sent, now or later.
    pub fn retain_shared(&self, users: &mut Vec<UserId>, now: MonotonicMs) {
        users.retain(|&user| self.last_shared(user, now).is_some());
    }

    /// Positions that are queued to be sent.
    pub fn outgoing(&self) -> u64 {
        let Sent { queued, replaced, taken, dropped } = self.outgoing.sent;
        queued - replaced - taken - dropped - self.members.dropped
    }

    /// What became of positions that were queued to be sent, since the shard began.
    pub fn sent(&self) -> Sent {
        let sent = self.outgoing.sent;
        Sent { dropped: sent.dropped + self.members.dropped, ..sent }
    }

    /// The newest position of a user that was taken in here and has not expired.
    pub fn last_shared(&self, user: UserId, now: MonotonicMs) -> Option<&Fix> {
        self.members.get(user)?.last.as_deref().filter(|fix| fix.expires > now)
    }

    /// Everybody whose newest position was taken in here.
    pub fn all_shared(&self) -> impl Iterator<Item = UserId> {
        self.members.with_positions()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use model::{Generation, Meters, Motion, Order, Place, PolicyVersion, Position, Radius, TimestampMs};
    use ports::{ControlEntry, ControlRecord};

    use super::*;
    use crate::shard::Interests;

    const NOW: MonotonicMs = MonotonicMs(1_000);

    fn fix(user: u64, ts: u64) -> Fix {
        Fix {
            user: UserId(user),
            place: Place::new(Position::new(40.0, 116.0).unwrap()),
            order: Order { generation: Generation(1), ts: TimestampMs(ts), ..Order::default() },
            expires: MonotonicMs(600_000),
            policy: PolicyVersion(0),
            motion: Motion::UNKNOWN,
        }
    }

    fn taken(shard: &mut Shard, max: usize) -> Vec<(u64, u64)> {
        let mut batch = Vec::new();
        shard.take_outgoing(max, NOW, &mut batch);
        assert!(batch.len() <= max);
        batch.iter().map(|fix| (fix.user.0, fix.order.ts.0)).collect()
    }

    #[test]
    fn each_is_sent_once_however_often_it_moved() {
        let mut shard = Shard::default();
        for ts in 1..=5 {
            for user in 1..=10 {
                shard.posted(&fix(user, ts), Duration::ZERO, NOW);
            }
        }
        let mut all = Vec::new();
        while shard.has_outgoing() {
            all.extend(taken(&mut shard, 4));
        }
        assert_eq!(all, (1..=10).map(|user| (user, 5)).collect::<Vec<_>>());
    }

    /// With batches of 4 and everybody to be sent again: it ends, nobody is left out, and new positions go first.
    #[test]
    fn sending_everybody_again_ends() {
        let mut shard = Shard::default();
        for user in 1..=50 {
            shard.posted(&fix(user, 1), Duration::ZERO, NOW);
        }
        while shard.has_outgoing() {
            taken(&mut shard, 4);
        }
        let all: Vec<UserId> = shard.all_shared().collect();
        for _ in 0..3 {
            all.iter().for_each(|&user| shard.send_again(user));
        }
        for user in 1..=6 {
            shard.posted(&fix(user, 2), Duration::ZERO, NOW);
        }
        let first = taken(&mut shard, 4);
        assert_eq!(first[..3], [(1, 2), (2, 2), (3, 2)], "a quarter is left to the others");
        let mut sent = first;
        while shard.has_outgoing() {
            sent.extend(taken(&mut shard, 4));
        }
        assert!((1..=50).all(|user| sent.contains(&(user, if user <= 6 { 2 } else { 1 }))), "{sent:?}");
        assert!(sent.len() <= 50 + 6, "{} sent", sent.len());
    }

    #[test]
    fn a_deleted_user_has_nothing_to_send() {
        let mut shard = Shard::default();
        shard.posted(&fix(7, 1), Duration::ZERO, NOW);
        shard.posted(&fix(8, 1), Duration::ZERO, NOW);
        let record =
            ports::ControlRecord { index: PolicyVersion(1), entry: ports::ControlEntry::UserDeleted(UserId(7)) };
        shard.apply(&record, &mut Default::default(), &mut Default::default());
        shard.send_again(UserId(7));
        assert_eq!(taken(&mut shard, 4), [(8, 1)]);
        assert_eq!(shard.last_shared(UserId(7), NOW), None);
    }

    #[test]
    fn who_only_posts_is_kept_until_the_position_expires() {
        let mut shard = Shard::default();
        shard.posted(&fix(7, 1), Duration::ZERO, NOW);
        shard.expire(MonotonicMs(599_000), &mut Vec::new());
        assert!(shard.last_shared(UserId(7), NOW).is_some());
        let later = Fix { expires: MonotonicMs(900_000), ..fix(7, 2) };
        shard.posted(&later, Duration::ZERO, NOW);
        shard.expire(MonotonicMs(601_000), &mut Vec::new());
        assert!(shard.last_shared(UserId(7), NOW).is_some());
        shard.expire(MonotonicMs(901_000), &mut Vec::new());
        assert_eq!(shard.all_shared().count(), 0);
    }

    /// Posts, connections, moves, deletions and expiry in any order, with batches of 4: nothing is lost uncounted, nobody
    /// is sent twice for one reason, and in the end nobody is kept.
    #[test]
    fn every_queued_position_is_accounted_for() {
        for seed in 0..200_u64 {
            let (mut shard, mut interests) =
                (Shard::default().with_ttl(Duration::from_secs(600)), Interests::default());
            let (mut state, mut now, mut viewers, mut deleted) =
                (seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1, 1_000_u64, Vec::new(), 0);
            let mut draw = |below: u64| {
                // Xorshift: enough to mix a few verbs.
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state % below
            };
            for step in 0..400_u64 {
                let (user, at) = (UserId(draw(6)), MonotonicMs(now));
                let fix = Fix { expires: MonotonicMs(now + 600_000), ..fix(user.0, step + 1) };
                match draw(12) {
                    0..=2 => _ = shard.posted(&fix, Duration::ZERO, at),
                    3..=4 => _ = shard.moved(&fix, Duration::ZERO, at),
                    5 => {
                        let viewer = shard.register(user, Arc::default(), Radius::new(Meters::FIVE_MILES));
                        shard.share(viewer, Generation(1));
                        viewers.push(viewer);
                    }
                    6 if !viewers.is_empty() => {
                        let viewer = viewers.swap_remove(draw(viewers.len() as u64) as usize);
                        shard.unregister(viewer, &mut interests);
                    }
                    7 => shard.send_again(user),
                    8 => {
                        deleted += 1;
                        let index = PolicyVersion(step);
                        let record = ControlRecord { index, entry: ControlEntry::UserDeleted(user) };
                        shard.apply(&record, &mut interests, &mut Default::default());
                    }
                    9 => _ = shard.outdated(&fix),
                    10 => {
                        now += draw(500_000);
                        shard.expire(MonotonicMs(now), &mut Vec::new());
                    }
                    _ => {
                        let mut batch = Vec::new();
                        shard.take_outgoing(4, at, &mut batch);
                        assert!(batch.iter().all(|fix| fix.expires > at), "seed {seed}");
                    }
                }
                let marks = |member: &Member| u64::from(member.is_fresh) + u64::from(member.wants_again);
                let queued: u64 = (0..6).filter_map(|user| shard.members.get(UserId(user))).map(marks).sum();
                assert_eq!(shard.outgoing(), queued, "seed {seed}, step {step}: {:?}", shard.sent());
                // Who is deleted goes at once and may come back: an entry for each deletion at the most.
                assert!(shard.members.idle() <= 6 + deleted, "seed {seed}, step {step}");
            }
            while shard.has_outgoing() {
                shard.take_outgoing(4, MonotonicMs(now), &mut Vec::new());
            }
            assert_eq!(shard.outgoing(), 0, "seed {seed}");
            viewers.into_iter().for_each(|viewer| shard.unregister(viewer, &mut interests));
            shard.expire(MonotonicMs(now + 600_000), &mut Vec::new());
            assert_eq!((shard.all_shared().count(), shard.members.idle()), (0, 0), "seed {seed}");
        }
    }

    /// What was taken in here turns out to be old again and again, because the user posts to another node, too.
    #[test]
    fn who_posts_here_and_elsewhere_is_kept_once() {
        let mut shard = Shard::default();
        for ts in 1..=100 {
            shard.posted(&fix(7, ts), Duration::ZERO, NOW);
            assert_eq!(taken(&mut shard, 4), [(7, ts)]);
            assert!(!shard.outdated(&fix(7, ts)), "nobody shares here");
            shard.send_again(UserId(7));
            assert_eq!(taken(&mut shard, 4), [], "whoever took in the newer one sends that");
        }
        assert_eq!(shard.members.idle(), 1);
    }

    #[test]
    fn what_is_newer_than_the_stale_one_is_kept() {
        let mut shard = Shard::default();
        shard.posted(&fix(7, 2), Duration::ZERO, NOW);
        shard.outdated(&fix(7, 1));
        assert_eq!(taken(&mut shard, 4), [(7, 2)]);
    }
}
