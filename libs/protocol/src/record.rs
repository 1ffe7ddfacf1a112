//! What one node tells another: a position on its user's channel, or in the location cache. Fixed binary, little
//! endian, because it is written and read hundreds of thousands of times a second:
//!
//! ```text
//! 0      magic 0xF1, which is no ASCII and no JSON
//! 1      version 1
//! 2      reserved, 0
//! 4      time left to live, ms            u32
//! 8      user                             u64
//! 16     generation                       u64
//! 24     ts, Unix ms by the device        u64
//! 32     policy version                   u64
//! 40     latitude, longitude in 1e-7 deg  i32 i32
//! 48     accuracy, altitude, speed, heading, NaN = unknown    f32 x 4
//! 64     battery in %, 255 = unknown      u8
//! 65     charging 0 or 1, 255 = unknown   u8
//! 66     sequence                         u64
//! ```
//!
//! It carries the time left and not a time, so that no two machines' clocks are compared. Longer records of the same
//! version are read as far as they are known, so that fields can be added at the end. `sequence` was added so: nodes
//! before it read the first 66 bytes, and a record of theirs has sequence 0.

use std::time::Duration;

use model::{
    Fix, Generation, MonotonicMs, Motion, MotionField, Order, Place, PolicyVersion, Position, Sequence, TimestampMs,
    UserId,
};
use thiserror::Error;

/// Bytes of a record.
pub const RECORD_LEN: usize = 74;
/// Bytes of the shortest record that is read: one of a node that knows no sequence.
pub const SHORTEST_RECORD_LEN: usize = 66;
const MAGIC: u8 = 0xF1;
const VERSION: u8 = 1;
const FLOATS: [MotionField; 4] =
    [MotionField::AccuracyM, MotionField::AltitudeM, MotionField::SpeedMps, MotionField::HeadingDeg];

/// Bytes that are no record. Counted and dropped by whoever receives them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BadRecord {
    /// Fewer bytes than a record has.
    #[error("shorter than a record")]
    Short,
    /// Not written by a node of this protocol.
    #[error("not a record of version 1")]
    Foreign,
    /// A field outside its bounds.
    #[error("a value outside its bounds")]
    Value,
}

/// The fix as a record, as of `now`: what is left of its time to live is what the record says.
pub fn encode(fix: &Fix, now: MonotonicMs) -> [u8; RECORD_LEN] {
    let mut record = [0; RECORD_LEN];
    let left = u32::try_from(fix.expires.since(now).as_millis()).unwrap_or(u32::MAX);
    record[0] = MAGIC;
    record[1] = VERSION;
    record[4..8].copy_from_slice(&left.to_le_bytes());
    record[8..16].copy_from_slice(&fix.user.0.to_le_bytes());
    record[16..24].copy_from_slice(&fix.order.generation.0.to_le_bytes());
    record[24..32].copy_from_slice(&fix.order.ts.0.to_le_bytes());
    record[32..40].copy_from_slice(&fix.policy.0.to_le_bytes());
    record[40..44].copy_from_slice(&fix.place.position().lat_e7().to_le_bytes());
    record[44..48].copy_from_slice(&fix.place.position().lon_e7().to_le_bytes());
    for (field, at) in FLOATS.into_iter().zip((48..).step_by(4)) {
        record[at..at + 4].copy_from_slice(&fix.motion.get(field).unwrap_or(f32::NAN).to_le_bytes());
    }
    record[64] = fix.motion.get(MotionField::BatteryPct).map_or(u8::MAX, |percent| percent as u8);
    record[65] = fix.motion.charging().map_or(u8::MAX, u8::from);
    record[66..74].copy_from_slice(&fix.order.seq.0.to_le_bytes());
    record
}

/// The fix that a record says, received at `now`. Any bytes are safe to give.
pub fn decode(record: &[u8], now: MonotonicMs) -> Result<Fix, BadRecord> {
    let seq = record.get(66..74).and_then(|bytes| bytes.first_chunk()).map_or(0, |bytes| u64::from_le_bytes(*bytes));
    let record: &[u8; SHORTEST_RECORD_LEN] = record.first_chunk().ok_or(BadRecord::Short)?;
    if record[0] != MAGIC || record[1] != VERSION {
        return Err(BadRecord::Foreign);
    }
    let position = Position::from_e7(i32_at(record, 40), i32_at(record, 44)).map_err(|_| BadRecord::Value)?;
    Ok(Fix {
        user: UserId(u64_at(record, 8)),
        place: Place::new(position),
        order: Order {
            generation: Generation(u64_at(record, 16)),
            ts: TimestampMs(u64_at(record, 24)),
            seq: Sequence(seq),
        },
        expires: now.after(Duration::from_millis(u64::from(u32_at(record, 4)))),
        policy: PolicyVersion(u64_at(record, 32)),
        motion: motion(record)?,
    })
}

fn motion(record: &[u8; SHORTEST_RECORD_LEN]) -> Result<Motion, BadRecord> {
    let mut motion = Motion::UNKNOWN;
    for (field, at) in FLOATS.into_iter().zip((48..).step_by(4)) {
        let value = f32::from_bits(u32_at(record, at));
        if !value.is_nan() {
            motion = motion.with(field, f64::from(value)).map_err(|_| BadRecord::Value)?;
        }
    }
    if record[64] != u8::MAX {
        motion = motion.with(MotionField::BatteryPct, f64::from(record[64])).map_err(|_| BadRecord::Value)?;
    }
    match record[65] {
        u8::MAX => Ok(motion),
        charging @ 0..=1 => Ok(motion.with_charging(charging == 1)),
        _ => Err(BadRecord::Value),
    }
}

fn bytes_at<const N: usize>(record: &[u8; SHORTEST_RECORD_LEN], at: usize) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.copy_from_slice(&record[at..at + N]);
    bytes
}

fn u32_at(record: &[u8; SHORTEST_RECORD_LEN], at: usize) -> u32 {
    u32::from_le_bytes(bytes_at(record, at))
}

fn i32_at(record: &[u8; SHORTEST_RECORD_LEN], at: usize) -> i32 {
    i32::from_le_bytes(bytes_at(record, at))
}

fn u64_at(record: &[u8; SHORTEST_RECORD_LEN], at: usize) -> u64 {
    u64::from_le_bytes(bytes_at(record, at))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fixes() -> impl Strategy<Value = Fix> {
        let motion = (0.0f64..360.0, proptest::option::of(0u8..=100), proptest::option::of(any::<bool>()));
        (any::<(u64, u64, u64, u64, u64)>(), -90.0..=90.0, -180.0..=180.0, 0u64..600_000, motion).prop_map(
            |((user, generation, ts, seq, policy), lat, lon, left, (heading, battery, charging))| {
                let mut motion = Motion::UNKNOWN.with(MotionField::HeadingDeg, heading).unwrap();
                if let Some(battery) = battery {
                    motion = motion.with(MotionField::BatteryPct, f64::from(battery)).unwrap();
                }
                if let Some(charging) = charging {
                    motion = motion.with_charging(charging);
                }
                Fix {
                    user: UserId(user),
                    place: Place::new(Position::new(lat, lon).unwrap()),
                    order: Order { generation: Generation(generation), ts: TimestampMs(ts), seq: Sequence(seq) },
                    expires: MonotonicMs(1_000 + left),
                    policy: PolicyVersion(policy),
                    motion,
                }
            },
        )
    }

    proptest! {
        #[test]
        fn a_record_says_what_the_fix_said(fix in fixes()) {
            let record = encode(&fix, MonotonicMs(1_000));
            prop_assert_eq!(decode(&record, MonotonicMs(1_000)), Ok(fix));
        }

        #[test]
        fn the_time_left_travels_and_not_a_time(fix in fixes(), here in 0u64..u64::MAX / 2) {
            let there = decode(&encode(&fix, MonotonicMs(1_000)), MonotonicMs(here)).unwrap();
            prop_assert_eq!(there.expires.since(MonotonicMs(here)), fix.expires.since(MonotonicMs(1_000)));
        }

        /// A record of a node that knows no sequence is the first 66 bytes of one of ours, and the other way round.
        #[test]
        fn nodes_with_and_without_a_sequence_read_each_other(fix in fixes(), cut in SHORTEST_RECORD_LEN..RECORD_LEN) {
            let record = encode(&fix, MonotonicMs(1_000));
            let without = Fix { order: Order { seq: Sequence(0), ..fix.order }, ..fix };
            prop_assert_eq!(decode(&record[..cut], MonotonicMs(1_000)), Ok(without));
            prop_assert_eq!(record[1], 1, "a node that knows no sequence drops records of another version");
            prop_assert_eq!(decode(&record[..SHORTEST_RECORD_LEN - 1], MonotonicMs(1_000)), Err(BadRecord::Short));
            let longer = [&record[..], &[7; 9]].concat();
            prop_assert_eq!(decode(&longer, MonotonicMs(1_000)), Ok(fix));
        }

        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = decode(&bytes, MonotonicMs(0));
        }

        #[test]
        fn a_damaged_record_is_refused_or_within_bounds(fix in fixes(), at in 0usize..RECORD_LEN, to: u8) {
            let mut record = encode(&fix, MonotonicMs(1_000));
            record[at] = to;
            if let Ok(read) = decode(&record, MonotonicMs(0)) {
                prop_assert!((-90.0..=90.0).contains(&read.place.position().lat()));
            }
        }
    }
}
