//! History on local disk: one keyspace a UTC day, so that dropping a day deletes files instead of rows.

use std::sync::Arc;

use async_trait::async_trait;
use fjall::{Guard, Keyspace, Readable};
use model::{Motion, MotionField, Position, TimestampMs, UserId};

use super::{HistoryPoint, LocationHistory};
use crate::PortError;
use crate::health::{Health, Switch};
use crate::store::{Store, damaged, failed, pair, unpair};

/// Rows removed in one batch when a user is forgotten: a few MB of memory.
const FORGET_BATCH: usize = 10_000;

/// Latitude, longitude, four numbers of motion, battery, charger.
const ROW_BYTES: usize = 2 * 4 + 4 * 4 + 2;

/// The motion numbers in the order of their bytes; absent is NaN.
const NUMBERS: [MotionField; 4] =
    [MotionField::AccuracyM, MotionField::AltitudeM, MotionField::SpeedMps, MotionField::HeadingDeg];

/// In the battery's and the charger's byte: not known.
const UNKNOWN: u8 = u8::MAX;

/// The history of a [`Store`].
pub struct FjallHistory {
    store: Arc<Store>,
    health: Switch,
}

impl FjallHistory {
    /// On an open store.
    pub fn new(store: Arc<Store>) -> FjallHistory {
        FjallHistory { store, health: Switch::up("embedded history") }
    }

    /// Makes writing sick or well, for tests.
    pub fn set_health(&self, health: Health) {
        self.health.set(health);
    }
}

#[async_trait]
impl LocationHistory for FjallHistory {
    async fn append(&self, points: &[HistoryPoint]) -> Result<(), PortError> {
        if points.is_empty() {
            return Ok(());
        }
        let mut points = points.to_vec();
        // Where one is put in, the next is put in near by: most of what a put costs is finding the way there.
        points.sort_by_key(|point| (point.user, point.ts));
        self.health.ask().await?;
        self.store.change(move |store| append(store, &points)).await?;
        self.health.answer(()).await
    }

    async fn range(
        &self,
        user: UserId,
        from: TimestampMs,
        to: TimestampMs,
        limit: usize,
    ) -> Result<Vec<HistoryPoint>, PortError> {
        if from >= to {
            return Ok(Vec::new());
        }
        self.store.read(move |store| range(store, user, from, TimestampMs(to.0 - 1), limit)).await
    }

    async fn export_day(
        &self,
        day: u64,
        after: Option<(UserId, TimestampMs)>,
        limit: usize,
    ) -> Result<Vec<HistoryPoint>, PortError> {
        self.store.read(move |store| export_day(store, day, after, limit)).await
    }

    async fn forget(&self, user: UserId) -> Result<(), PortError> {
        self.store.change(move |store| forget(store, user)).await
    }

    async fn drop_days_before(&self, day: u64) -> Result<(), PortError> {
        self.store.change(move |store| store.drop_days_before(day)).await
    }
}

fn append(store: &Store, points: &[HistoryPoint]) -> Result<(), PortError> {
    let mut batch = store.batch();
    let mut current: Option<(u64, Keyspace)> = None;
    for point in points {
        let day = point.ts.day();
        let keyspace = match current.take() {
            Some((known, keyspace)) if known == day => keyspace,
            _ => store.day(day)?,
        };
        batch.insert(&keyspace, pair(point.user.0, point.ts.0), encode(point));
        current = Some((day, keyspace));
    }
    store.commit(batch)
}

fn range(
    store: &Store,
    user: UserId,
    from: TimestampMs,
    last: TimestampMs,
    limit: usize,
) -> Result<Vec<HistoryPoint>, PortError> {
    let snapshot = store.snapshot();
    let span = pair(user.0, from.0)..=pair(user.0, last.0);
    let days = store.days_between(from.day(), last.day());
    days.iter().flat_map(|day| snapshot.range(day, span.clone())).take(limit).map(decode).collect()
}

fn export_day(
    store: &Store,
    day: u64,
    after: Option<(UserId, TimestampMs)>,
    limit: usize,
) -> Result<Vec<HistoryPoint>, PortError> {
    let Some(keyspace) = store.existing_day(day) else {
        return Ok(Vec::new());
    };
    let snapshot = store.snapshot();
    let rows = match after {
        None => snapshot.iter(&keyspace),
        Some((user, ts)) => {
            use std::ops::Bound::{Excluded, Unbounded};
            snapshot.range(&keyspace, (Excluded(pair(user.0, ts.0)), Unbounded))
        }
    };
    rows.take(limit).map(decode).collect()
}

fn forget(store: &Store, user: UserId) -> Result<(), PortError> {
    for day in store.days_between(0, u64::MAX) {
        let snapshot = store.snapshot();
        let mut rows = snapshot.prefix(&day, user.0.to_be_bytes());
        loop {
            let mut batch = store.batch();
            for row in rows.by_ref().take(FORGET_BATCH) {
                batch.remove(&day, row.key().map_err(failed)?);
            }
            if batch.is_empty() {
                break;
            }
            store.commit(batch)?;
        }
    }
    Ok(())
}

fn encode(point: &HistoryPoint) -> [u8; ROW_BYTES] {
    let mut row = [0; ROW_BYTES];
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

fn decode(row: Guard) -> Result<HistoryPoint, PortError> {
    let (key, value) = row.into_inner().map_err(failed)?;
    decode_row(&key, &value).ok_or_else(|| damaged("position"))
}

fn decode_row(key: &[u8], value: &[u8]) -> Option<HistoryPoint> {
    let (user, ts) = unpair(key)?;
    let row: &[u8; ROW_BYTES] = value.try_into().ok()?;
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
    Some(HistoryPoint { user: UserId(user), ts: TimestampMs(ts), position, motion })
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
            assert_eq!(decode_row(&pair(u64::MAX, 1), &encode(&point)), Some(point));
        }
    }

    #[test]
    fn a_damaged_row_is_an_error_and_no_panic() {
        assert_eq!(decode_row(&[1; 16], &[0x7F; ROW_BYTES]), None);
        assert_eq!(decode_row(&[1; 15], &[0; ROW_BYTES]), None);
        assert_eq!(decode_row(&[1; 16], &[0; ROW_BYTES - 1]), None);
    }
}
