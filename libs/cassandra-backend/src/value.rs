//! Numbers as the database keeps them.

use model::{TimestampMs, UserId};
use ports::PortError;
use scylla::value::{CqlTimestamp, CqlVarint};

use crate::error::{damaged, refused};

/// A user's id. Not a `bigint`, which has no room above 2^63 and would sort those ids first; and not one with the sign
/// turned, in which nobody who looks into the database would find user 7.
///
/// The fewest bytes that leave the sign bit clear: partitions are told apart by their bytes.
pub(crate) fn varint(user: UserId) -> CqlVarint {
    let bytes = user.0.to_be_bytes();
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count().min(7);
    let mut digits = Vec::with_capacity(9);
    if bytes[zeros] > 0x7F {
        digits.push(0);
    }
    digits.extend_from_slice(&bytes[zeros..]);
    CqlVarint::from_signed_bytes_be(digits)
}

/// The user of a [`varint`].
pub(crate) fn user(id: &CqlVarint) -> Result<UserId, PortError> {
    let digits = id.as_signed_bytes_be_slice();
    let digits = digits.strip_prefix(&[0]).unwrap_or(digits);
    let mut bytes = [0; 8];
    let start = bytes.len().checked_sub(digits.len()).ok_or_else(|| damaged("id"))?;
    bytes[start..].copy_from_slice(digits);
    Ok(UserId(u64::from_be_bytes(bytes)))
}

/// Partitions that share what has to be found without knowing the users.
pub(crate) const BUCKETS: i16 = 64;

/// A user's bucket. Kept in the database: never changed without a migration.
pub(crate) fn bucket(user: UserId) -> i16 {
    (user.0.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 58) as i16
}

/// A time that is stored.
pub(crate) fn timestamp(ts: TimestampMs) -> Result<CqlTimestamp, PortError> {
    i64::try_from(ts.0).map(CqlTimestamp).map_err(|_| refused("a time is beyond what can be stored"))
}

/// The last time that can be stored, for spans that end later.
pub(crate) fn timestamp_or_last(ts: TimestampMs) -> CqlTimestamp {
    CqlTimestamp(i64::try_from(ts.0).unwrap_or(i64::MAX))
}

/// The number of a day; every `u64` of milliseconds has one.
pub(crate) fn day(day: u64) -> i64 {
    i64::try_from(day).unwrap_or(i64::MAX)
}

/// A limit, as far as the database counts.
pub(crate) fn limit(limit: usize) -> i32 {
    i32::try_from(limit).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_id_comes_back_and_takes_the_fewest_bytes() {
        for (id, bytes) in
            [(0, 1), (7, 1), (127, 1), (128, 2), (255, 2), (256, 2), ((1 << 63) - 1, 8), (1 << 63, 9), (u64::MAX, 9)]
        {
            let stored = varint(UserId(id));
            assert_eq!(stored.as_signed_bytes_be_slice().len(), bytes, "{id}");
            assert_eq!(user(&stored), Ok(UserId(id)));
        }
        assert!(user(&CqlVarint::from_signed_bytes_be(vec![1; 9])).is_err());
    }
    #[test]
    fn neighbours_spread_over_all_buckets() {
        let mut users = [0; BUCKETS as usize];
        for user in 0..6_400 {
            users[bucket(UserId(user)) as usize] += 1;
        }
        assert!(users.iter().all(|users| (80..=120).contains(users)), "{users:?}");
    }
}
