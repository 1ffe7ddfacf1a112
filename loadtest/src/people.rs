//! Which user a person is, and when which point of their track is due.

use std::time::Duration;

use model::UserId;

use crate::tracks::{Point, Track};

/// Recordings have a point every so many seconds, all at the same second.
const RECORDING_INTERVAL_S: f64 = 30.0;

/// Person i of the files is the user with the id `base + i`, so that repeated runs on one server need not meet.
#[derive(Clone, Copy, Debug)]
pub struct People {
    /// The id of person 0.
    pub base: u64,
    /// How many there are.
    pub count: usize,
}

impl People {
    /// The user that this person is.
    pub fn user(&self, person: usize) -> UserId {
        UserId(self.base + person as u64)
    }

    /// The person that this user is, if it is one of them.
    pub fn person(&self, user: UserId) -> Option<usize> {
        let person = usize::try_from(user.0.checked_sub(self.base)?).ok()?;
        (person < self.count).then_some(person)
    }
}

/// When points are sent.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    /// Recorded seconds to one real second.
    pub speedup: f64,
    /// Nothing recorded later than this is sent.
    pub duration_s: u32,
}

impl Schedule {
    /// The real time from the start until this point of this person is sent.
    ///
    /// All tracks have their points at the same multiples of 30 s; sent so, a whole city would speak in one instant
    /// and then be silent. So everybody has a part of 30 s of their own by which all their points but the first are
    /// late. The golden ratio spreads any number of people evenly, and the same person is as late in every run.
    pub fn due(&self, person: usize, point: &Point) -> Duration {
        let phase = (person as f64 * 0.618_033_988_749_894_9).fract() * RECORDING_INTERVAL_S;
        Duration::from_secs_f64((f64::from(point.offset_s) + phase) / self.speedup)
    }

    /// The index after the last point that is sent at all; the first is always sent, it is said when connecting.
    pub fn end(&self, track: &Track) -> usize {
        track.partition_point(|point| point.offset_s <= self.duration_s).max(1)
    }

    /// When the last point of all is sent.
    pub fn total(&self, tracks: &[Track]) -> Duration {
        let last = |(person, track): (usize, &Track)| match self.end(track) {
            1 => Duration::ZERO,
            end => self.due(person, &track[end - 1]),
        };
        tracks.iter().enumerate().map(last).max().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use model::Position;

    use super::*;

    fn point(offset_s: u32) -> Point {
        Point { offset_s, position: Position::new(40.0, 116.0).unwrap() }
    }

    #[test]
    fn people_are_users_from_the_base_on() {
        let people = People { base: 100, count: 3 };
        assert_eq!(people.user(2), UserId(102));
        assert_eq!(people.person(UserId(102)), Some(2));
        for stranger in [99, 103, u64::MAX, 0] {
            assert_eq!(people.person(UserId(stranger)), None, "{stranger}");
        }
    }

    #[test]
    fn points_keep_their_distance_in_time() {
        let schedule = Schedule { speedup: 60.0, duration_s: u32::MAX };
        for person in 0..1_500 {
            let gap = schedule.due(person, &point(60)) - schedule.due(person, &point(30));
            assert!(gap.abs_diff(Duration::from_millis(500)) < Duration::from_micros(1), "{gap:?}");
        }
    }

    #[test]
    fn nobody_speaks_with_everybody_else() {
        let schedule = Schedule { speedup: 60.0, duration_s: u32::MAX };
        let mut per_slot = [0; 10];
        for person in 0..1_500 {
            let late = schedule.due(person, &point(30)) - Duration::from_millis(500);
            per_slot[(late.as_millis() / 50) as usize] += 1;
        }
        assert!(per_slot.iter().all(|&people| (145..=155).contains(&people)), "{per_slot:?}");
    }

    #[test]
    fn nothing_recorded_after_the_end_is_sent_but_the_first_point_always() {
        let track: Track = [0, 30, 60, 90].map(point).into();
        let schedule = |duration_s| Schedule { speedup: 1.0, duration_s };
        assert_eq!(schedule(60).end(&track), 3);
        assert_eq!(schedule(0).end(&vec![point(10)]), 1);
        assert_eq!(schedule(60).total(std::slice::from_ref(&track)), Duration::from_secs(60));
        assert_eq!(schedule(0).total(&[track]), Duration::ZERO);
    }
}
