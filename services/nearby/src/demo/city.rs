//! A made-up city: streets in a grid, a centre where people meet, outskirts where they live. People walk, ride, stand
//! around, and now and then a phone is silent for a while. The same seed is the same city.

use model::Position;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::movement::Step;

/// Where the made-up streets are: in the middle of Berlin.
const CENTRE: (f64, f64) = (52.52, 13.405);
/// A degree of latitude.
const METERS_PER_DEGREE: f64 = 111_195.0;
/// From one street to the next, eastward and northward.
const BLOCK_M: [f64; 2] = [110.0, 80.0];
/// How far a phone's idea of where it is may be off, either way.
const GPS_ERROR_M: f64 = 3.0;
/// The share of stays in which a phone is silent, as in a cellar or with an empty battery.
const SILENT: f64 = 0.12;

/// Somebody who lives in the city.
pub(crate) struct Resident {
    rng: StdRng,
    /// Metres east and north of the centre.
    at: [f64; 2],
    doing: Doing,
    strolls: bool,
}

enum Doing {
    Staying { left_s: f64, silent: bool },
    Going { to: [f64; 2], axis: usize, speed_mps: f64 },
}

impl Resident {
    /// One of the city's people; who strolls keeps to the centre, on foot, and is never silent.
    pub(crate) fn new(seed: u64, number: u64, strolls: bool) -> Resident {
        // The odd factor keeps the people of neighbouring seeds apart.
        let mut rng = StdRng::seed_from_u64(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(number));
        let at = destination(&mut rng, strolls);
        let left_s = rng.random_range(0.0..120.0);
        Resident { rng, at, doing: Doing::Staying { left_s, silent: false }, strolls }
    }

    /// Lives on for some seconds, and says where that led; nothing while the phone is silent.
    pub(crate) fn step(&mut self, mut seconds: f64) -> Option<Step> {
        while seconds > 0.0 {
            seconds = match self.doing {
                Doing::Staying { left_s, silent } if left_s > seconds => {
                    self.doing = Doing::Staying { left_s: left_s - seconds, silent };
                    0.0
                }
                Doing::Staying { left_s, .. } => {
                    self.set_off();
                    seconds - left_s
                }
                Doing::Going { to, axis, speed_mps } => self.go(to, axis, speed_mps, seconds),
            };
        }
        let (speed_mps, heading_deg) = match self.doing {
            Doing::Staying { silent: true, .. } => return None,
            Doing::Staying { .. } => (0.0, None),
            Doing::Going { to, axis, speed_mps } => {
                let backward = to[axis] < self.at[axis];
                let heading = [90.0, 0.0][axis] + if backward { 180.0 } else { 0.0 };
                (speed_mps, Some(heading))
            }
        };
        Some(Step { position: self.position()?, speed_mps, heading_deg })
    }

    /// Along the street until the next crossing, the end of the trip or of the time; answers the time that is left.
    fn go(&mut self, to: [f64; 2], axis: usize, speed_mps: f64, seconds: f64) -> f64 {
        let ahead = to[axis] - self.at[axis];
        if ahead == 0.0 {
            let other = 1 - axis;
            if to[other] == self.at[other] {
                self.doing = self.stay();
            } else {
                self.doing = Doing::Going { to, axis: other, speed_mps };
            }
            return seconds;
        }
        let street = next_street(self.at[axis], ahead > 0.0, BLOCK_M[axis]);
        let until = if (street - self.at[axis]).abs() < ahead.abs() { street } else { to[axis] };
        let needed = (until - self.at[axis]).abs() / speed_mps;
        if needed > seconds {
            self.at[axis] += ahead.signum() * speed_mps * seconds;
            return 0.0;
        }
        self.at[axis] = until;
        let axis = if to[1 - axis] != self.at[1 - axis] && self.rng.random_bool(0.35) { 1 - axis } else { axis };
        self.doing = Doing::Going { to, axis, speed_mps };
        seconds - needed
    }

    fn set_off(&mut self) {
        let to = destination(&mut self.rng, self.strolls);
        let far = (to[0] - self.at[0]).abs() + (to[1] - self.at[1]).abs();
        let (walk, cycle, drive) = (1.1..1.7, 3.5..6.0, 7.0..11.0);
        let speed = if self.strolls || far < 500.0 {
            walk
        } else if far < 1_800.0 {
            if self.rng.random_bool(0.4) { walk } else { cycle }
        } else if self.rng.random_bool(0.5) {
            cycle
        } else {
            drive
        };
        let speed_mps = self.rng.random_range(speed);
        self.doing = Doing::Going { to, axis: self.rng.random_range(0..2), speed_mps };
    }

    fn stay(&mut self) -> Doing {
        if !self.strolls && self.rng.random_bool(SILENT) {
            Doing::Staying { left_s: self.rng.random_range(700.0..1_800.0), silent: true }
        } else {
            Doing::Staying { left_s: self.rng.random_range(60.0..600.0), silent: false }
        }
    }

    fn position(&mut self) -> Option<Position> {
        let [east, north] = self.at.map(|meters| meters + self.rng.random_range(-GPS_ERROR_M..GPS_ERROR_M));
        let lat = CENTRE.0 + north / METERS_PER_DEGREE;
        let lon = CENTRE.1 + east / (METERS_PER_DEGREE * CENTRE.0.to_radians().cos());
        Position::new(lat, lon).ok()
    }
}

/// A crossing: in the centre, or at home further out.
fn destination(rng: &mut StdRng, strolls: bool) -> [f64; 2] {
    let far = if strolls {
        rng.random_range(0.0..300.0)
    } else if rng.random_bool(0.5) {
        rng.random_range(50.0..700.0)
    } else {
        rng.random_range(1_000.0..2_100.0)
    };
    let (sin, cos) = rng.random_range(0.0..std::f64::consts::TAU).sin_cos();
    [(far * sin / BLOCK_M[0]).round() * BLOCK_M[0], (far * cos / BLOCK_M[1]).round() * BLOCK_M[1]]
}

fn next_street(at: f64, forward: bool, block: f64) -> f64 {
    // On a street, rounding may put the place a hair before it: without the margin nobody would get further.
    const MARGIN: f64 = 1e-6;
    if forward { (at / block + MARGIN).floor() * block + block } else { (at / block - MARGIN).ceil() * block - block }
}

#[cfg(test)]
mod tests {
    use model::haversine;

    use super::*;

    fn day(seed: u64, number: u64) -> Vec<Option<Step>> {
        let mut resident = Resident::new(seed, number, false);
        (0..2_000).map(|_| resident.step(20.0)).collect()
    }

    #[test]
    fn the_same_seed_is_the_same_life() {
        assert_eq!(day(7, 3), day(7, 3));
        assert_ne!(day(7, 3), day(7, 4));
        assert_ne!(day(7, 3), day(8, 3));
    }

    #[test]
    fn nobody_is_faster_than_what_they_ride() {
        for number in 0..20 {
            for pair in day(1, number).windows(2) {
                let [Some(before), Some(after)] = pair else { continue };
                let went = haversine(before.position, after.position).0;
                assert!(went <= 11.0 * 20.0 + 4.0 * GPS_ERROR_M, "{went} m in 20 s");
            }
        }
    }

    #[test]
    fn people_come_go_stand_and_fall_silent() {
        let centre = Position::new(CENTRE.0, CENTRE.1).unwrap();
        let (mut inside, mut outside, mut standing, mut silent) = (0, 0, 0, 0);
        for step in (0..20).flat_map(|number| day(1, number)) {
            match step {
                None => silent += 1,
                Some(step) => {
                    standing += usize::from(step.speed_mps == 0.0);
                    let near = haversine(centre, step.position).0 < 1_000.0;
                    *if near { &mut inside } else { &mut outside } += 1;
                }
            }
        }
        for (what, count) in [("inside", inside), ("outside", outside), ("standing", standing), ("silent", silent)] {
            assert!(count > 2_000, "{what}: {count} of 40,000");
        }
    }
}
