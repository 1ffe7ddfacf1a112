//! Where: a point on WGS 84.

use std::fmt;

use thiserror::Error;

/// A point on the Earth, WGS 84, kept to 1e-7 degree (11 mm of latitude): as exact as any phone, and half the bytes of
/// two floats. Everything that is computed or shown is computed from the kept point, so all parts agree on it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Position {
    lat_e7: i32,
    lon_e7: i32,
}

/// Why two numbers are not a point on the Earth.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum BadPosition {
    /// Not a number, or beyond a pole.
    #[error("must be a number of degrees from -90 to 90")]
    Lat,
    /// Not a number, or more than once around.
    #[error("must be a number of degrees from -180 to 180")]
    Lon,
}

impl Position {
    /// From degrees: latitude -90 to 90, longitude -180 to 180, both ends included. Neither -180 nor 180 is preferred:
    /// they are the same meridian to every distance.
    pub fn new(lat: f64, lon: f64) -> Result<Position, BadPosition> {
        // The ranges are false for NaN, which makes it an error too.
        if !(-90.0..=90.0).contains(&lat) {
            return Err(BadPosition::Lat);
        }
        if !(-180.0..=180.0).contains(&lon) {
            return Err(BadPosition::Lon);
        }
        Ok(Position { lat_e7: (lat * 1e7).round() as i32, lon_e7: (lon * 1e7).round() as i32 })
    }

    /// From ten-millionths of a degree, as records hold them.
    pub fn from_e7(lat_e7: i32, lon_e7: i32) -> Result<Position, BadPosition> {
        Position::new(f64::from(lat_e7) / 1e7, f64::from(lon_e7) / 1e7)
    }

    /// Latitude in degrees.
    pub fn lat(self) -> f64 {
        f64::from(self.lat_e7) / 1e7
    }

    /// Longitude in degrees.
    pub fn lon(self) -> f64 {
        f64::from(self.lon_e7) / 1e7
    }

    /// Latitude in ten-millionths of a degree.
    pub fn lat_e7(self) -> i32 {
        self.lat_e7
    }

    /// Longitude in ten-millionths of a degree.
    pub fn lon_e7(self) -> i32 {
        self.lon_e7
    }
}

/// Coordinates never go into logs, whoever writes `{:?}` of a struct that holds some.
impl fmt::Debug for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Position(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn poles_and_date_line_are_on_the_earth_and_nothing_beyond_is() {
        for (lat, lon) in [(90.0, 0.0), (-90.0, 0.0), (0.0, 180.0), (0.0, -180.0), (-0.0, -0.0)] {
            assert!(Position::new(lat, lon).is_ok(), "{lat} {lon}");
        }
        for lat in [91.0, -90.000_001, f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert_eq!(Position::new(lat, 0.0), Err(BadPosition::Lat), "{lat}");
        }
        for lon in [180.000_001, -181.0, f64::NAN, f64::INFINITY] {
            assert_eq!(Position::new(0.0, lon), Err(BadPosition::Lon), "{lon}");
        }
    }

    #[test]
    fn seven_decimals_come_back_as_they_went_in() {
        let here = Position::new(40.020_12, 116.421_11).unwrap();
        assert_eq!((here.lat(), here.lon()), (40.020_12, 116.421_11));
        assert_eq!(Position::from_e7(here.lat_e7(), here.lon_e7()), Ok(here));
    }

    #[test]
    fn a_debug_print_tells_nobody_where() {
        assert_eq!(format!("{:?}", Position::new(40.0, 116.0).unwrap()), "Position(..)");
    }
}
