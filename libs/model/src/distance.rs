//! How far apart, and the fast test whether that is within a radius.
//!
//! The distance is the haversine of the `geo` crate (Earth radius 6,371,008.8 m). The engine asks "within the radius?"
//! millions of times a second, so it compares the squared chord between two unit vectors with that of the radius: six
//! additions and three multiplications. The chord (the straight line through the Earth) grows with the distance on the
//! surface, chord = 2 sin(distance / 2R), so both tests agree but for rounding, and where rounding could matter the
//! haversine decides. The chord is used and not the dot product because the cosine of a small angle is all ones: at
//! 1 m the dot product is off by 1 %.

use geo::{Distance, Haversine, Point};

use crate::{Meters, Position};

/// `geo`'s Earth radius: the mean radius (2a + b) / 3 of WGS 84, IUGG.
const EARTH_RADIUS_M: f64 = 6_371_008.8;

/// Two unit vectors of equal points differ by at most a few ulp (2.2e-16) in each coordinate, and the haversine rounds
/// as much: within this absolute difference of chords (64 nm on the Earth) the haversine decides.
const CHORD_ROUNDING: f64 = 1e-14;

/// The distance between two points along the Earth's surface.
pub fn haversine(from: Position, to: Position) -> Meters {
    Meters(Haversine.distance(Point::new(from.lon(), from.lat()), Point::new(to.lon(), to.lat())))
}

/// A position with its unit vector: computed once per position, compared many times.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Place {
    unit: [f64; 3],
    position: Position,
}

impl Place {
    /// Computes the unit vector: about 40 ns, most of it sines and cosines.
    pub fn new(position: Position) -> Place {
        let (sin_lat, cos_lat) = position.lat().to_radians().sin_cos();
        let (sin_lon, cos_lon) = position.lon().to_radians().sin_cos();
        Place { unit: [cos_lat * cos_lon, cos_lat * sin_lon, sin_lat], position }
    }

    /// The point itself.
    pub fn position(&self) -> Position {
        self.position
    }

    /// The unit vector from the middle of the Earth: each coordinate from -1 to 1.
    #[inline]
    pub fn unit(&self) -> [f64; 3] {
        self.unit
    }

    /// The straight line to another place, as a fraction of the Earth's radius: 0 to 2. A metric: the triangle
    /// inequality holds, which the engine's border bound relies on.
    #[inline]
    pub fn chord(&self, other: &Place) -> f64 {
        self.chord_squared(other).sqrt()
    }

    #[inline]
    fn chord_squared(&self, other: &Place) -> f64 {
        // Not a `map` over the axes, which the compiler leaves as a call.
        let ([x, y, z], [to_x, to_y, to_z]) = (self.unit, other.unit);
        let (x, y, z) = (x - to_x, y - to_y, z - to_z);
        x * x + y * y + z * z
    }
}

/// A radius around a viewer, prepared for [`Radius::holds`]. 16 bytes: with a [`Place`] and one number more it fills the
/// cache line that an engine reads for each viewer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Radius {
    meters: Meters,
    chord: f64,
}

impl Radius {
    /// Of any length from 0 m; what is longer than half around the Earth holds every place.
    pub fn new(meters: Meters) -> Radius {
        let angle = (meters.0 / EARTH_RADIUS_M).clamp(0.0, std::f64::consts::PI);
        Radius { meters, chord: 2.0 * (angle / 2.0).sin() }
    }

    /// The length.
    pub fn meters(&self) -> Meters {
        self.meters
    }

    /// The straight line of this length, as a fraction of the Earth's radius.
    #[inline]
    pub fn chord(&self) -> f64 {
        self.chord
    }

    /// Whether the haversine between the two is at most this radius: the same answer, in a nanosecond. The border
    /// itself is inside.
    #[inline]
    pub fn holds(&self, viewer: &Place, friend: &Place) -> bool {
        let squared = viewer.chord_squared(friend);
        // Squared chords below are surely inside, those above surely outside.
        let (low, high) = ((self.chord - CHORD_ROUNDING).max(0.0), self.chord + CHORD_ROUNDING);
        if squared < low * low {
            true
        } else if squared > high * high {
            false
        } else {
            haversine(viewer.position, friend.position).0 <= self.meters.0
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(lat: f64, lon: f64) -> Position {
        Position::new(lat, lon).unwrap()
    }

    /// Anywhere, and more often where the maths is delicate: poles, date line, equator.
    fn positions() -> impl Strategy<Value = Position> {
        let lat = prop_oneof![-90.0..=90.0, Just(90.0), Just(-90.0), Just(0.0), 89.999..=90.0, -90.0..=-89.999];
        let lon = prop_oneof![-180.0..=180.0, Just(180.0), Just(-180.0), Just(0.0), 179.999..=180.0];
        (lat, lon).prop_map(|(lat, lon)| at(lat, lon))
    }

    fn antipode(of: Position) -> Position {
        let lon = if of.lon() > 0.0 { of.lon() - 180.0 } else { of.lon() + 180.0 };
        at(-of.lat(), lon)
    }

    fn agree(radius: f64, viewer: Position, friend: Position) -> Result<(), TestCaseError> {
        let expected = haversine(viewer, friend).0 <= radius;
        let holds = Radius::new(Meters(radius)).holds(&Place::new(viewer), &Place::new(friend));
        prop_assert_eq!(holds, expected, "radius {} at {}", radius, haversine(viewer, friend).0);
        Ok(())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]

        #[test]
        fn equals_the_haversine_anywhere(viewer in positions(), friend in positions(), radius in 0.0..21_000_000.0) {
            agree(radius, viewer, friend)?;
        }

        #[test]
        fn equals_the_haversine_nearby(
            viewer in positions(), north in -0.1..0.1f64, east in -0.1..0.1f64, radius in 0.0..50_000.0,
        ) {
            let friend = at((viewer.lat() + north).clamp(-90.0, 90.0), (viewer.lon() + east).clamp(-180.0, 180.0));
            agree(radius, viewer, friend)?;
        }

        #[test]
        fn equals_the_haversine_at_the_exact_border_and_one_ulp_either_side(
            viewer in positions(), friend in positions(), near in any::<bool>(),
        ) {
            let friend = if near {
                at((viewer.lat() * 0.999 + friend.lat() * 0.001).clamp(-90.0, 90.0), viewer.lon())
            } else {
                friend
            };
            let border = haversine(viewer, friend).0;
            for radius in [border, border.next_up(), border.next_down().max(0.0)] {
                agree(radius, viewer, friend)?;
            }
        }

        #[test]
        fn equals_the_haversine_at_antipodes(viewer in positions(), off in -2000i32..2000, radius in 20_010_000.0..20_020_000.0) {
            let there = antipode(viewer);
            let friend = at((there.lat() + f64::from(off) * 1e-6).clamp(-90.0, 90.0), there.lon());
            agree(radius, viewer, friend)?;
            agree(haversine(viewer, friend).0, viewer, friend)?;
        }

        #[test]
        fn chords_obey_the_triangle_inequality(a in positions(), b in positions(), c in positions()) {
            let [a, b, c] = [a, b, c].map(Place::new);
            prop_assert!(a.chord(&c) <= a.chord(&b) + b.chord(&c) + 1e-15);
        }
    }

    #[test]
    fn both_ends_of_the_date_line_are_one_place() {
        let (west, east) = (at(12.0, -180.0), at(12.0, 180.0));
        assert!(haversine(west, east).0 < 1e-6);
        assert!(Radius::new(Meters(0.001)).holds(&Place::new(west), &Place::new(east)));
    }

    #[test]
    fn a_radius_of_nothing_holds_the_place_itself() {
        let here = Place::new(at(40.0, 116.0));
        assert!(Radius::new(Meters(0.0)).holds(&here, &here));
    }

    #[test]
    fn the_earth_radius_is_that_of_geo() {
        let quarter = haversine(at(0.0, 0.0), at(90.0, 0.0)).0;
        assert!((quarter / std::f64::consts::FRAC_PI_2 - EARTH_RADIUS_M).abs() < 1e-6);
    }
}
