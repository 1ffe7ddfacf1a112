//! What a device says beside where it is.

use std::fmt;

use thiserror::Error;

/// Accuracy, altitude, speed, heading and battery of one fix, each perhaps unknown. 20 bytes, because a node keeps one
/// for every person it has heard of.
#[derive(Clone, Copy, PartialEq)]
pub struct Motion {
    accuracy_m: Known,
    altitude_m: Known,
    speed_mps: Known,
    heading_deg: Known,
    battery_pct: u8,
    charging: u8,
}

/// An `f32` in four bytes where NaN means unknown; no NaN ever gets in as a value.
#[derive(Clone, Copy)]
struct Known(f32);

const UNKNOWN: Known = Known(f32::NAN);
const UNKNOWN_BYTE: u8 = u8::MAX;

impl PartialEq for Known {
    fn eq(&self, other: &Known) -> bool {
        self.get() == other.get()
    }
}

impl Known {
    fn get(self) -> Option<f32> {
        (!self.0.is_nan()).then_some(self.0)
    }
}

/// A field of [`Motion`], by its name on the wire.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MotionField {
    /// Radius of the circle that holds the device with 68 %: 0 to 1,000,000 m.
    AccuracyM,
    /// Height above WGS 84: -20,000 to 1,000,000 m.
    AltitudeM,
    /// Speed over ground: 0 to 10,000 m/s.
    SpeedMps,
    /// Direction of travel, clockwise from north: 0 to 360 degrees.
    HeadingDeg,
    /// Charge: 0 to 100 %.
    BatteryPct,
}

impl MotionField {
    /// The field's name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            MotionField::AccuracyM => "accuracy_m",
            MotionField::AltitudeM => "altitude_m",
            MotionField::SpeedMps => "speed_mps",
            MotionField::HeadingDeg => "heading_deg",
            MotionField::BatteryPct => "battery_pct",
        }
    }

    /// Lowest and highest value.
    pub fn bounds(self) -> (f64, f64) {
        match self {
            MotionField::AccuracyM => (0.0, 1_000_000.0),
            MotionField::AltitudeM => (-20_000.0, 1_000_000.0),
            MotionField::SpeedMps => (0.0, 10_000.0),
            MotionField::HeadingDeg => (0.0, 360.0),
            MotionField::BatteryPct => (0.0, 100.0),
        }
    }
}

/// A value outside its field's bounds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("must be a number from {} to {}", self.0.bounds().0, self.0.bounds().1)]
pub struct BadMotion(pub MotionField);

impl Motion {
    /// Nothing is known.
    pub const UNKNOWN: Motion = Motion {
        accuracy_m: UNKNOWN,
        altitude_m: UNKNOWN,
        speed_mps: UNKNOWN,
        heading_deg: UNKNOWN,
        battery_pct: UNKNOWN_BYTE,
        charging: UNKNOWN_BYTE,
    };

    /// The same with one field known; an error, and nothing changed, if the value is outside the field's bounds.
    pub fn with(mut self, field: MotionField, value: f64) -> Result<Motion, BadMotion> {
        let (low, high) = field.bounds();
        if !(low..=high).contains(&value) {
            return Err(BadMotion(field));
        }
        match field {
            MotionField::AccuracyM => self.accuracy_m = Known(value as f32),
            MotionField::AltitudeM => self.altitude_m = Known(value as f32),
            MotionField::SpeedMps => self.speed_mps = Known(value as f32),
            MotionField::HeadingDeg => self.heading_deg = Known(value as f32),
            MotionField::BatteryPct => self.battery_pct = value.round() as u8,
        }
        Ok(self)
    }

    /// The same with the charger's state known.
    pub fn with_charging(mut self, charging: bool) -> Motion {
        self.charging = u8::from(charging);
        self
    }

    /// One field as it was given, to the precision kept (`f32`; battery in whole percent).
    pub fn get(&self, field: MotionField) -> Option<f32> {
        match field {
            MotionField::AccuracyM => self.accuracy_m.get(),
            MotionField::AltitudeM => self.altitude_m.get(),
            MotionField::SpeedMps => self.speed_mps.get(),
            MotionField::HeadingDeg => self.heading_deg.get(),
            MotionField::BatteryPct => (self.battery_pct != UNKNOWN_BYTE).then(|| f32::from(self.battery_pct)),
        }
    }

    /// Whether the device is being charged.
    pub fn charging(&self) -> Option<bool> {
        (self.charging != UNKNOWN_BYTE).then_some(self.charging == 1)
    }
}

/// Speed and heading tell where somebody goes: as little for logs as coordinates are.
impl fmt::Debug for Motion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Motion(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_hold_and_nan_is_never_a_value() {
        for field in [MotionField::AccuracyM, MotionField::SpeedMps, MotionField::HeadingDeg, MotionField::BatteryPct] {
            let (low, high) = field.bounds();
            assert_eq!(Motion::UNKNOWN.with(field, high).unwrap().get(field), Some(high as f32));
            for bad in [low - 1.0, high + 1.0, f64::NAN, f64::INFINITY] {
                assert_eq!(Motion::UNKNOWN.with(field, bad), Err(BadMotion(field)), "{field:?} {bad}");
            }
        }
        assert_eq!(Motion::UNKNOWN.get(MotionField::BatteryPct), None);
        assert_eq!(Motion::UNKNOWN.charging(), None);
        assert_eq!(Motion::UNKNOWN.with_charging(false).charging(), Some(false));
    }

    #[test]
    fn stays_small() {
        assert_eq!(size_of::<Motion>(), 20);
    }
}
