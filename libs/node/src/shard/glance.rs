//! What a fan-out looks at first: enough to tell that a friend is too far away to matter. 8 bytes a viewer, so that
//! those of 100,000 viewers lie in a core's own cache, where their eyes, of 64 bytes each, do not.

use model::Place;

use super::viewers::Eye;

/// A place rounded to a grid of about 200 m within the Earth, moved so that all coordinates are positive.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Cell([u16; 3]);

/// Cells in the Earth's radius. The furthest two are 64,000 apart, so that the square of every distance fits into 32 bits.
const CELLS: f64 = 32_000.0;
/// The Earth's middle, half a cell further for rounding.
const MIDDLE: f64 = 32_768.5;
/// What the distance of two cells and that of their places differ by at most: half a cell for each of two ends on each
/// of three axes is the square root of 3. The rest is far more than an `f64` loses here.
const ROUNDING: f64 = 1.75;
/// So far that everybody is within reach.
const EVERYWHERE: u16 = u16::MAX;

impl Cell {
    pub(super) fn of(place: &Place) -> Cell {
        Cell(place.unit().map(|along| (along * CELLS + MIDDLE) as u16))
    }

    fn distance_squared(self, other: Cell) -> u32 {
        let ([x, y, z], [to_x, to_y, to_z]) = (self.0, other.0);
        let squared = |from: u16, to: u16| u32::from(from.abs_diff(to)) * u32::from(from.abs_diff(to));
        squared(x, to_x) + squared(y, to_y) + squared(z, to_z)
    }
}

/// An [`Eye`], roughly.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Glance {
    cell: Cell,
    /// In cells, rounded up: a friend further away is outside the radius, and the border to them is not the nearest.
    reach: u16,
}

const _: () = assert!(size_of::<Glance>() == 8);

impl Glance {
    pub(super) fn of(eye: &Eye) -> Glance {
        match &eye.place {
            Some(place) => {
                let reach = (eye.radius.chord() + eye.slack.max(0.0)) * CELLS + ROUNDING;
                // What is too much for an integer becomes the largest, and the rest loses less than the 1.
                Glance { cell: Cell::of(place), reach: (reach + 1.0) as u16 }
            }
            // In the middle of the Earth, from where nobody is within reach.
            None => Glance { cell: Cell([MIDDLE as u16; 3]), reach: 0 },
        }
    }

    /// In cells.
    pub(super) fn reach(self) -> u16 {
        self.reach
    }

    /// Whether a friend there could be within the radius, or nearer to its border than [`Eye::slack`] says. Errs only by
    /// saying yes.
    pub(super) fn may_matter(self, friend: Cell) -> bool {
        let reach = u32::from(self.reach);
        friend.distance_squared(self.cell) <= reach * reach || self.reach == EVERYWHERE
    }
}

#[cfg(test)]
mod tests {
    use model::{Meters, Position, Radius};
    use proptest::prelude::*;

    use super::*;

    fn places() -> impl Strategy<Value = Place> {
        let lat = prop_oneof![-90.0..=90.0, Just(90.0), Just(-90.0), Just(0.0), 40.0..40.2];
        let lon = prop_oneof![-180.0..=180.0, Just(180.0), Just(-180.0), Just(0.0), 116.0..116.2];
        (lat, lon).prop_map(|(lat, lon)| Place::new(Position::new(lat, lon).unwrap()))
    }

    /// Short ones as people choose them, long ones, and exactly as far as another place.
    fn lengths() -> impl Strategy<Value = f64> {
        prop_oneof![0.0..20_000.0, 0.0..21_000_000.0, Just(0.0), Just(8_046.72)]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(50_000))]

        #[test]
        fn whoever_matters_may_matter(
            viewer in places(), friend in places(), radius in lengths(), slack in prop_oneof![0.0..0.01, 0.0..2.0, Just(-1e-13), Just(f64::INFINITY)],
        ) {
            let radius = Radius::new(Meters(radius));
            let eye = Eye { place: Some(viewer), radius, slack };
            let border = (viewer.chord(&friend) - radius.chord()).abs();
            if radius.holds(&viewer, &friend) || border <= slack {
                prop_assert!(Glance::of(&eye).may_matter(Cell::of(&friend)));
            }
        }

        #[test]
        fn a_friend_at_the_very_border_may_matter(viewer in places(), friend in places()) {
            let chord = viewer.chord(&friend);
            let radius = Radius::new(model::haversine(viewer.position(), friend.position()));
            let eye = Eye { place: Some(viewer), radius, slack: 0.0 };
            prop_assert!(Glance::of(&eye).may_matter(Cell::of(&friend)));
            let eye = Eye { place: Some(viewer), radius: Radius::new(Meters(0.0)), slack: chord };
            prop_assert!(Glance::of(&eye).may_matter(Cell::of(&friend)));
        }

        #[test]
        fn whoever_is_a_kilometre_beyond_does_not(viewer in places(), friend in places(), radius in lengths()) {
            let radius = Radius::new(Meters(radius));
            let eye = Eye { place: Some(viewer), radius, slack: 0.001 };
            let beyond = viewer.chord(&friend) - radius.chord() - eye.slack;
            if beyond * 6_371_008.8 > 1_000.0 {
                prop_assert!(!Glance::of(&eye).may_matter(Cell::of(&friend)));
            }
        }
    }

    #[test]
    fn who_is_nowhere_sees_nobody() {
        let nowhere = Eye { place: None, radius: Radius::new(Meters(21_000_000.0)), slack: 0.0 };
        let friend = Place::new(Position::new(40.0, 116.0).unwrap());
        assert!(!Glance::of(&nowhere).may_matter(Cell::of(&friend)));
    }
}
