//! Where somebody is next: made up or recorded.

use model::{Position, haversine};

use super::city::Resident;

/// What a phone says of a moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Step {
    /// Where.
    pub(crate) position: Position,
    /// How fast, in the seconds of those who move.
    pub(crate) speed_mps: f64,
    /// Where to, clockwise from north; nothing for who stands.
    pub(crate) heading_deg: Option<f64>,
}

/// Somebody's way through the day.
pub(crate) enum Movement {
    /// Made up.
    MadeUp(Box<Resident>),
    /// Recorded.
    Recorded(Recording),
}

impl Movement {
    /// Where somebody is so many of their seconds later; nothing while the phone is silent.
    pub(crate) fn step(&mut self, seconds: f64) -> Option<Step> {
        match self {
            Movement::MadeUp(resident) => resident.step(seconds),
            Movement::Recorded(recording) => recording.step(seconds),
        }
    }
}

/// A point of a recording: seconds since it began, and where.
pub(crate) type Point = (f64, Position);

/// Recorded points, and how much of them has been lived.
pub(crate) struct Recording {
    points: Vec<Point>,
    at_s: f64,
}

impl Recording {
    /// From its beginning; offsets grow.
    pub(crate) fn new(points: Vec<Point>) -> Recording {
        Recording { points, at_s: 0.0 }
    }

    /// Between two points on the straight line; silent after the last.
    fn step(&mut self, seconds: f64) -> Option<Step> {
        self.at_s += seconds;
        let after = self.points.partition_point(|(offset_s, _)| *offset_s <= self.at_s);
        let (end_s, end) = *self.points.get(after)?;
        let Some((start_s, start)) = after.checked_sub(1).and_then(|before| self.points.get(before)).copied() else {
            return Some(Step { position: end, speed_mps: 0.0, heading_deg: None });
        };
        let part = (self.at_s - start_s) / (end_s - start_s);
        let between = |from: f64, to: f64| from + (to - from) * part;
        let position = Position::new(between(start.lat(), end.lat()), between(start.lon(), end.lon())).ok()?;
        let speed_mps = haversine(start, end).0 / (end_s - start_s);
        // Below a slow stroll it is the phone that wavers.
        let heading_deg = (speed_mps > 0.3).then(|| bearing_deg(start, end));
        Some(Step { position, speed_mps, heading_deg })
    }
}

/// The direction from one place to another nearby, clockwise from north, 0 to 360.
pub(crate) fn bearing_deg(from: Position, to: Position) -> f64 {
    let north = to.lat() - from.lat();
    let east = (to.lon() - from.lon()) * from.lat().to_radians().cos();
    east.atan2(north).to_degrees().rem_euclid(360.0)
}

/// A direction in words.
pub(crate) fn compass(deg: f64) -> &'static str {
    const WORDS: [&str; 8] = ["N", "NE", "E", "SE", "S", "SW", "W", "NW"];
    WORDS[(deg.rem_euclid(360.0) / 45.0).round() as usize % WORDS.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(lat: f64, lon: f64) -> Position {
        Position::new(lat, lon).unwrap()
    }

    #[test]
    fn directions_have_names() {
        let here = at(52.0, 13.0);
        for (there, name) in
            [(at(52.1, 13.0), "N"), (at(52.0, 13.1), "E"), (at(51.9, 13.0), "S"), (at(52.1, 12.838), "NW")]
        {
            assert_eq!(compass(bearing_deg(here, there)), name);
        }
        assert_eq!(compass(359.9), "N");
    }

    #[test]
    fn a_recording_goes_straight_between_points_and_ends_in_silence() {
        let mut recording = Recording::new(vec![(30.0, at(40.0, 116.0)), (60.0, at(40.001, 116.0))]);
        let waits = recording.step(20.0).unwrap();
        assert_eq!((waits.position, waits.heading_deg), (at(40.0, 116.0), None));
        let walks = recording.step(25.0).unwrap();
        assert_eq!(walks.position, at(40.0005, 116.0));
        assert!((walks.speed_mps - 3.7).abs() < 0.1 && walks.heading_deg == Some(0.0), "{walks:?}");
        assert_eq!(recording.step(20.0), None);
    }
}
