//! What is asked of the whole of what a viewer is shown.
//!
//! One question serves both the end of a run and its middle: what must be shown, given that everything has arrived
//! which was sent at least `patience` ago, and that anything sent since may or may not have? At the end, when nothing
//! has been sent for longer than that, the answer is exact; on the way it is asked only of what has long been settled.

use std::time::Duration;

use super::{Oracle, Seen, TTL_SLACK, pair};
use crate::clock::At;
use crate::faults::Fault;

impl Oracle {
    /// Everything has been quiet for `patience`: whatever is not right now counts as missing.
    pub fn judge_at_rest(&mut self, patience: Duration, now: At) {
        for viewer in 0..self.people.count {
            if self.views[viewer].listed.is_none() {
                self.fault(viewer, Fault::NotConnected, "", now);
            }
            for index in 0..self.acquainted[viewer].len() {
                let friend = self.acquainted[viewer][index];
                if let Some(fault) = self.view_fault(viewer, friend, patience, now) {
                    let id = self.people.user(friend);
                    self.fault_about(viewer, id, fault, now, String::new);
                }
            }
        }
    }

    /// The same for one viewer while people move, for all that is older than the rules' patience. A view that stays
    /// wrong is counted once.
    pub fn judge_under_way(&mut self, viewer: usize, now: At) {
        for index in 0..self.acquainted[viewer].len() {
            let friend = self.acquainted[viewer][index];
            let fault = self.view_fault(viewer, friend, self.rules.patience, now);
            let seen = self.views[viewer].seen.get(&friend).copied().unwrap_or_default();
            match fault {
                Some(fault) if !seen.faulty => self.late(viewer, friend, fault, now),
                _ if fault.is_some() == seen.faulty => continue,
                _ => {}
            }
            self.views[viewer].seen.insert(friend, Seen { faulty: fault.is_some(), ..seen });
        }
    }

    fn view_fault(&self, viewer: usize, friend: usize, patience: Duration, now: At) -> Option<Fault> {
        if self.views[viewer].listed.is_none_or(|listed| now.since(listed) < patience) {
            return None;
        }
        let held = self.views[viewer].seen.get(&friend).and_then(|seen| seen.held);
        let friendship = self.friendships[&pair(viewer, friend)];
        if friendship.is_over(now, patience) {
            return held.map(|_| Fault::ShownRemoved);
        }
        if !friendship.has_stood(now, patience) {
            return None;
        }
        let there = &self.whereabouts[friend];
        let newest = there.newest()?;
        let expired = |spoke: At, slack_ms: i64| {
            let limit = self.rules.ttl.map(|ttl| ttl.as_millis() as i64 + slack_ms);
            limit.is_some_and(|limit| now.since(spoke).as_millis() as i64 > limit)
        };
        let slack = TTL_SLACK.as_millis() as i64;
        if expired(newest.at, slack) {
            return held.map(|_| Fault::ShownInactive);
        }
        let sure = there.sure(now, patience)?;
        if held.is_some_and(|held| held < sure) {
            return Some(Fault::Stale);
        }
        let mut distances = self.distances(viewer, friend, now, patience);
        match held {
            Some(_) => distances.all(|distance| self.outside(distance)).then_some(Fault::ShownOutside),
            None if expired(there.get(sure).at, -slack) => None,
            None => distances.all(|distance| self.inside(distance)).then_some(Fault::NotShown),
        }
    }
}
