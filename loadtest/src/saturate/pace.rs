//! Who sends when.

use std::time::Duration;

use crate::clock::At;

/// An update whose pushes have not all come by then is counted as unanswered, and another takes its place.
const UNANSWERED: Duration = Duration::from_secs(2);

/// An open loop: every update is due at a moment fixed before the run, whatever the server does meanwhile. Ages count
/// from that moment, so what a stall kept from being sent in time has its wait counted too.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Schedule {
    start: At,
    per_second: f64,
    next: u64,
}

impl Schedule {
    pub(crate) fn new(start: At, per_second: f64) -> Schedule {
        Schedule { start, per_second, next: 0 }
    }

    /// When the next one is due.
    pub(crate) fn due(&self) -> At {
        self.start.after(Duration::from_secs_f64(self.next as f64 / self.per_second))
    }

    /// Takes the next one, if it is due by now: which it is, and when it was due.
    pub(crate) fn take(&mut self, now: At) -> Option<(u64, At)> {
        let due = self.due();
        (due <= now).then(|| {
            self.next += 1;
            (self.next - 1, due)
        })
    }
}

/// A closed loop: so many updates are under way, and another is sent when all pushes of one have come.
#[derive(Debug)]
pub(crate) struct Outstanding {
    most: u32,
    now: u32,
    /// By person.
    waiting: Vec<Waiting>,
    /// Persons in the order of their sending.
    sent: std::collections::VecDeque<(u32, At)>,
    pub(crate) unanswered: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Waiting {
    /// The moment that the pushes show.
    shown: At,
    /// Pushes still to come; none if nothing is waited for.
    left: u32,
}

impl Outstanding {
    pub(crate) fn new(most: u32, people: usize) -> Outstanding {
        Outstanding {
            most,
            now: 0,
            waiting: vec![Waiting::default(); people],
            sent: std::collections::VecDeque::new(),
            unanswered: 0,
        }
    }

    /// Whether another may be sent.
    pub(crate) fn has_room(&self) -> bool {
        self.now < self.most
    }

    /// Whether this person's last update is complete.
    pub(crate) fn is_free(&self, person: u32) -> bool {
        self.waiting[person as usize].left == 0
    }

    /// This person has sent, and so many pushes will show that moment.
    pub(crate) fn sent(&mut self, person: u32, shown: At, pushes: u32) {
        if pushes > 0 {
            self.waiting[person as usize] = Waiting { shown, left: pushes };
            self.sent.push_back((person, shown));
            self.now += 1;
        }
    }

    /// A push of this person's position has come.
    pub(crate) fn came(&mut self, person: u32, shown: At) {
        let Some(waiting) = self.waiting.get_mut(person as usize) else { return };
        if waiting.left > 0 && waiting.shown == shown {
            waiting.left -= 1;
            self.now -= u32::from(waiting.left == 0);
        }
    }

    /// Gives up waiting for what was sent too long ago.
    pub(crate) fn give_up(&mut self, now: At) {
        while let Some(&(person, shown)) = self.sent.front() {
            let waiting = &mut self.waiting[person as usize];
            let is_open = waiting.left > 0 && waiting.shown == shown;
            if is_open && now.since(shown) < UNANSWERED {
                return;
            }
            if is_open {
                waiting.left = 0;
                self.now -= 1;
                self.unanswered += 1;
            }
            self.sent.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> At {
        At(ms * 1_000)
    }

    #[test]
    fn a_late_generator_sends_what_was_due_with_the_moment_it_was_due_at() {
        let mut schedule = Schedule::new(ms(1_000), 100.0);
        assert_eq!(schedule.take(ms(999)), None);
        assert_eq!(schedule.take(ms(1_000)), Some((0, ms(1_000))));
        // Nobody asked for 45 ms: the four that were due meanwhile are due when they were.
        let late: Vec<_> = std::iter::from_fn(|| schedule.take(ms(1_045))).collect();
        assert_eq!(late, [(1, ms(1_010)), (2, ms(1_020)), (3, ms(1_030)), (4, ms(1_040))]);
        assert_eq!(schedule.due(), ms(1_050));
    }

    #[test]
    fn another_is_sent_when_all_pushes_of_one_have_come() {
        let mut open = Outstanding::new(2, 5);
        open.sent(0, ms(1), 2);
        open.sent(1, ms(1), 1);
        assert!(!open.has_room() && !open.is_free(0) && open.is_free(2));
        open.came(0, ms(1));
        open.came(0, ms(7));
        assert!(!open.has_room(), "what shows another moment is no answer");
        open.came(0, ms(1));
        assert!(open.has_room() && open.is_free(0));
        open.came(0, ms(1));
        open.came(99, ms(1));
        open.sent(3, ms(2), 0);
        assert_eq!(open.now, 1, "what nobody is told of is complete at once");
    }

    #[test]
    fn what_is_never_answered_holds_its_place_for_two_seconds() {
        let mut open = Outstanding::new(2, 5);
        open.sent(0, ms(0), 1);
        open.sent(1, ms(500), 1);
        open.came(1, ms(500));
        open.sent(1, ms(600), 1);
        open.give_up(ms(1_999));
        assert_eq!((open.now, open.unanswered), (2, 0));
        open.give_up(ms(2_100));
        assert_eq!((open.now, open.unanswered, open.is_free(0), open.is_free(1)), (1, 1, true, false));
        open.give_up(ms(2_600));
        assert_eq!((open.now, open.unanswered), (0, 2));
    }
}
