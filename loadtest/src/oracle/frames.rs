//! What is asked of each frame.

use model::{UserId, haversine};

use super::{DISTANCE_SLACK_M, Oracle, TTL_SLACK, Told, pair};
use crate::clock::At;
use crate::faults::{Fault, ms};
use crate::wire::{Page, Reason, Shown};

/// Sent and shown coordinates may differ by this, in degrees: the precision that positions are kept to.
const COORDINATE_SLACK: f64 = 1.000_001e-7;

impl Oracle {
    /// A page of the list: each friend on it, and the page itself.
    pub fn page(&mut self, viewer: usize, page: &Page<'_>, now: At) {
        if (page.radius_m - self.rules.radius_m).abs() > 1e-6 {
            self.fault(viewer, Fault::PageRadius, &format!("{} m", page.radius_m), now);
        }
        let told = std::time::Duration::from_secs(page.location_ttl_s);
        if *self.rules.ttl.get_or_insert(told) != told {
            self.fault(viewer, Fault::PageTtl, &format!("{} s", page.location_ttl_s), now);
        }
        let order = |shown: &Shown| (shown.distance_m, shown.id);
        // Friends who are equally far to 0.1 m may stand in either order.
        if page.friends.windows(2).any(|two| order(&two[0]).0 > order(&two[1]).0) {
            self.fault(viewer, Fault::PageOrder, "", now);
        }
        for shown in &page.friends {
            self.shown(viewer, shown, now);
        }
    }

    /// A friend with a position, on a page or as a frame of its own.
    pub fn shown(&mut self, viewer: usize, shown: &Shown, now: At) -> Told {
        let Some(friend) = self.known_friend(viewer, shown.id) else {
            self.fault_about(viewer, shown.id, Fault::Stranger, now, String::new);
            return Told::Fault;
        };
        let friendship = self.friendships[&pair(viewer, friend)];
        if friendship.is_over(now, self.rules.removal_grace) {
            self.fault_about(viewer, shown.id, Fault::AfterRemoval, now, String::new);
            return Told::Fault;
        }
        let Some(index) = self.whereabouts[friend].find(shown.ts) else {
            let earlier = self.began_ms.is_some_and(|began| shown.ts < began);
            let advice = if earlier { " is from before this run: choose another --user-base" } else { "" };
            self.fault_about(viewer, shown.id, Fault::NeverSent, now, || format!("ts {}{advice}", shown.ts));
            return Told::Fault;
        };
        let sent_at = self.whereabouts[friend].get(index).at;
        let before = self.views[viewer].seen.get(&friend).and_then(|seen| seen.held);
        if before.is_some_and(|before| before < index) {
            self.arrived_after(now.since(sent_at), now);
        }
        let fault = self.content_fault(viewer, friend, index, shown, now);
        if let Some(fault) = fault {
            let age = ms(now.since(sent_at));
            self.fault_about(viewer, shown.id, fault, now, || format!("ts {}, sent {age} ms before", shown.ts));
        }
        let seen = self.views[viewer].seen.entry(friend).or_default();
        seen.newest = seen.newest.max(Some(index));
        seen.held = Some(index);
        match (fault, before) {
            (Some(_), _) => Told::Fault,
            (None, None) => Told::Entry,
            (None, Some(before)) if before == index => Told::Again,
            (None, Some(_)) => Told::Move(sent_at),
        }
    }

    fn content_fault(&self, viewer: usize, friend: usize, index: usize, shown: &Shown, now: At) -> Option<Fault> {
        let sent = self.whereabouts[friend].get(index);
        let position = sent.position;
        if (shown.lat - position.lat()).abs() > COORDINATE_SLACK
            || (shown.lon - position.lon()).abs() > COORDINATE_SLACK
        {
            return Some(Fault::OtherCoordinates);
        }
        let seen = self.views[viewer].seen.get(&friend);
        if seen.is_some_and(|seen| seen.newest > Some(index)) {
            return Some(Fault::WentBack);
        }
        if self.rules.ttl.is_some_and(|ttl| now.since(sent.at) > ttl + TTL_SLACK) {
            return Some(Fault::Expired);
        }
        let here = self.whereabouts[viewer].maybe_current(now, self.in_flight(now));
        let mut right_but_outside = false;
        let mut all_outside = true;
        for viewer_was in here.iter().rev() {
            let distance = haversine(viewer_was.position, position).0;
            let right = (distance - shown.distance_m).abs() <= DISTANCE_SLACK_M;
            match (right, self.outside(distance)) {
                (true, false) => return None,
                (right, true) => right_but_outside |= right,
                (false, false) => all_outside = false,
            }
        }
        Some(if right_but_outside || all_outside { Fault::OutsideRadius } else { Fault::Distance })
    }

    /// Somebody is near no longer. False if the viewer was not shown them anyway, which is needless but harmless.
    pub fn gone(&mut self, viewer: usize, id: UserId, reason: Reason, now: At) -> bool {
        let Some(friend) = self.known_friend(viewer, id) else {
            self.fault_about(viewer, id, Fault::Stranger, now, String::new);
            return true;
        };
        let held = self.views[viewer].seen.get_mut(&friend).and_then(|seen| seen.held.take());
        let fault = match reason {
            // While a friendship ends, whatever reason comes first is right.
            _ if !self.friendships[&pair(viewer, friend)].stands() => None,
            Reason::OutOfRange => {
                let left =
                    self.distances(viewer, friend, now, self.in_flight(now)).any(|distance| !self.inside(distance));
                (!left).then_some(Fault::GoneInRange)
            }
            Reason::Inactive => self.spoke_within_ttl(friend, now).then_some(Fault::GoneActive),
            Reason::Hidden => {
                (!self.friendships[&pair(viewer, friend)].may_notice_end(now)).then_some(Fault::GoneFriend)
            }
        };
        if let Some(fault) = fault {
            self.fault_about(viewer, id, fault, now, String::new);
        }
        held.is_some() || fault.is_some()
    }

    /// `friend_added`.
    pub fn friend_added(&mut self, viewer: usize, id: UserId, now: At) {
        let right = self
            .known_friend(viewer, id)
            .is_some_and(|friend| self.friendships[&pair(viewer, friend)].may_notice_beginning(now));
        if !right {
            self.fault_about(viewer, id, Fault::ListChange, now, || "friend_added".into());
        }
    }

    /// `friend_removed`: they are no longer shown either.
    pub fn friend_removed(&mut self, viewer: usize, id: UserId, now: At) {
        let right = match self.known_friend(viewer, id) {
            Some(friend) => {
                if let Some(seen) = self.views[viewer].seen.get_mut(&friend) {
                    seen.held = None;
                }
                self.friendships[&pair(viewer, friend)].may_notice_end(now)
            }
            None => false,
        };
        if !right {
            self.fault_about(viewer, id, Fault::ListChange, now, || "friend_removed".into());
        }
    }

    /// The person with this id, if the viewer has ever asked to be friends with them.
    fn known_friend(&self, viewer: usize, id: UserId) -> Option<usize> {
        self.people.person(id).filter(|&friend| self.friendships.contains_key(&pair(viewer, friend)))
    }

    /// Whether the server surely heard of this friend less than the time to live ago.
    fn spoke_within_ttl(&self, friend: usize, now: At) -> bool {
        let Some(ttl) = self.rules.ttl else { return false };
        let sure = self.whereabouts[friend].sure(now, self.in_flight(now));
        sure.is_some_and(|sure| now.since(self.whereabouts[friend].get(sure).at) + TTL_SLACK < ttl)
    }
}
