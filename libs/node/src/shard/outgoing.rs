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

/// Each user is in each queue at most once.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    /// Users with a position that was not sent yet, oldest first.
    fresh: VecDeque<UserId>,
    /// Users whose position has to be sent again.
    again: VecDeque<UserId>,
    /// Something was queued since that was last asked.
    grown: bool,
}

impl Outgoing {
    /// The member has a new position.
    pub(super) fn push_fresh(&mut self, user: UserId, member: &mut Member) {
        if !std::mem::replace(&mut member.is_fresh, true) {
            self.fresh.push_back(user);
            self.grown = true;
        }
    }

    fn push_again(&mut self, user: UserId, member: &mut Member) {
        member.wants_again = true;
        if !std::mem::replace(&mut member.is_in_again, true) {
            self.again.push_back(user);
            self.grown = true;
        }
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
            let Some(member) = self.members.get_mut(user) else { continue };
            member.is_fresh = false;
            // It is the newest: sending it again is not needed any more.
            member.wants_again = false;
            batch.extend(member.last.as_deref().filter(|fix| fix.expires > now));
        }
        while batch.len() < max
            && let Some(user) = self.outgoing.again.pop_front()
        {
            let Some(member) = self.members.get_mut(user) else { continue };
            member.is_in_again = false;
            if std::mem::take(&mut member.wants_again) {
                batch.extend(member.last.as_deref().filter(|fix| fix.expires > now));
            }
        }
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
    use model::{Generation, Motion, Order, Place, PolicyVersion, Position, TimestampMs};

    use super::*;

    const NOW: MonotonicMs = MonotonicMs(1_000);

    fn fix(user: u64, ts: u64) -> Fix {
        Fix {
            user: UserId(user),
            place: Place::new(Position::new(40.0, 116.0).unwrap()),
            order: Order { generation: Generation(1), ts: TimestampMs(ts) },
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
                shard.posted(&fix(user, ts));
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
            shard.posted(&fix(user, 1));
        }
        while shard.has_outgoing() {
            taken(&mut shard, 4);
        }
        let all: Vec<UserId> = shard.all_shared().collect();
        for _ in 0..3 {
            all.iter().for_each(|&user| shard.send_again(user));
        }
        for user in 1..=6 {
            shard.posted(&fix(user, 2));
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
        shard.posted(&fix(7, 1));
        shard.posted(&fix(8, 1));
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
        shard.posted(&fix(7, 1));
        shard.expire(MonotonicMs(599_000), &mut Vec::new());
        assert!(shard.last_shared(UserId(7), NOW).is_some());
        let later = Fix { expires: MonotonicMs(900_000), ..fix(7, 2) };
        shard.posted(&later);
        shard.expire(MonotonicMs(601_000), &mut Vec::new());
        assert!(shard.last_shared(UserId(7), NOW).is_some());
        shard.expire(MonotonicMs(901_000), &mut Vec::new());
        assert_eq!(shard.all_shared().count(), 0);
    }
}
