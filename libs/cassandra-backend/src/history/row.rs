//! One point as the bytes of its cell; `schema/cassandra/0001_history.cql` says which.

use model::{Motion, MotionField, Position, TimestampMs, UserId};
use ports::{HistoryPoint, PortError};
use scylla::value::CqlTimestamp;

use crate::error::damaged;

/// Latitude, longitude, four numbers of motion, battery, charger.
const BYTES: usize = 2 * 4 + 4 * 4 + 2;

/// The motion numbers in the order of their bytes; absent is NaN.
const NUMBERS: [MotionField; 4] =
    [MotionField::AccuracyM, MotionField::AltitudeM, MotionField::SpeedMps, MotionField::HeadingDeg];

/// In the battery's and the charger's byte: not known.
const UNKNOWN: u8 = u8::MAX;

pub(super) fn encode(point: &HistoryPoint) -> [u8; BYTES] {
    let mut row = [0; BYTES];
    row[0..4].copy_from_slice(&point.position.lat_e7().to_be_bytes());
    row[4..8].copy_from_slice(&point.position.lon_e7().to_be_bytes());
    for (number, bytes) in NUMBERS.iter().zip(row[8..24].chunks_exact_mut(4)) {
        bytes.copy_from_slice(&point.motion.get(*number).unwrap_or(f32::NAN).to_be_bytes());
    }
    // Whole percents, 0 to 100: nothing is cut off.
    row[24] = point.motion.get(MotionField::BatteryPct).map_or(UNKNOWN, |percent| percent as u8);
    row[25] = point.motion.charging().map_or(UNKNOWN, u8::from);
    row
}

pub(super) fn decode(user: UserId, ts: CqlTimestamp, row: &[u8]) -> Result<HistoryPoint, PortError> {
    read(user, ts, row).ok_or_else(|| damaged("position"))
}

fn read(user: UserId, ts: CqlTimestamp, row: &[u8]) -> Option<HistoryPoint> {
    let ts = TimestampMs(u64::try_from(ts.0).ok()?);
    let row: &[u8; BYTES] = row.try_into().ok()?;
    let four = |at: usize| [row[at], row[at + 1], row[at + 2], row[at + 3]];
    let position = Position::from_e7(i32::from_be_bytes(four(0)), i32::from_be_bytes(four(4))).ok()?;
    let mut motion = Motion::UNKNOWN;
    for (index, number) in NUMBERS.into_iter().enumerate() {
        let value = f32::from_be_bytes(four(8 + 4 * index));
        if !value.is_nan() {
            motion = motion.with(number, f64::from(value)).ok()?;
        }
    }
    if row[24] != UNKNOWN {
        motion = motion.with(MotionField::BatteryPct, f64::from(row[24])).ok()?;
    }
    if row[25] != UNKNOWN {
        motion = motion.with_charging(row[25] == 1);
    }
    Some(HistoryPoint { user, ts, position, motion })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_comes_back_as_it_went_in() {
        let position = Position::new(-89.999_999_9, 179.999_999_9).unwrap();
        let full = NUMBERS.into_iter().fold(Motion::UNKNOWN, |motion, field| motion.with(field, 12.25).unwrap());
        let full = full.with(MotionField::BatteryPct, 100.0).unwrap().with_charging(true);
        for motion in [Motion::UNKNOWN, full, Motion::UNKNOWN.with_charging(false)] {
            let point = HistoryPoint { user: UserId(u64::MAX), ts: TimestampMs(1), position, motion };
            assert_eq!(decode(point.user, CqlTimestamp(1), &encode(&point)), Ok(point));
        }
    }

    #[test]
    fn a_damaged_row_is_an_error_and_no_panic() {
        for (ts, row) in [(1, &[0x7F; BYTES][..]), (-1, &[0; BYTES]), (1, &[0; BYTES - 1])] {
            assert!(decode(UserId(1), CqlTimestamp(ts), row).is_err());
        }
    }
}
