//! One remembered position as it is sent.

use jiff::Timestamp;
use model::MotionField::{AccuracyM, AltitudeM, BatteryPct, HeadingDeg, SpeedMps};
use model::TimestampMs;
use ports::HistoryPoint;
use serde::Serialize;
use utoipa::ToSchema;

/// One remembered position.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = HistoryPoint)]
pub(crate) struct PointBody {
    /// When, by the device: RFC 3339.
    #[schema(example = "2025-01-01T00:00:00.250Z", format = "date-time")]
    ts: String,
    /// Latitude in degrees, WGS 84.
    lat: f64,
    /// Longitude in degrees, WGS 84.
    lon: f64,
    /// Radius of the circle that holds the device with 68 %.
    #[serde(skip_serializing_if = "Option::is_none")]
    accuracy_m: Option<f32>,
    /// Height above WGS 84.
    #[serde(skip_serializing_if = "Option::is_none")]
    altitude_m: Option<f32>,
    /// Speed over ground.
    #[serde(skip_serializing_if = "Option::is_none")]
    speed_mps: Option<f32>,
    /// Direction of travel, clockwise from north.
    #[serde(skip_serializing_if = "Option::is_none")]
    heading_deg: Option<f32>,
    /// Charge of the battery.
    #[serde(skip_serializing_if = "Option::is_none")]
    battery_pct: Option<f32>,
    /// Whether the device was being charged.
    #[serde(skip_serializing_if = "Option::is_none")]
    charging: Option<bool>,
}

impl From<HistoryPoint> for PointBody {
    fn from(point: HistoryPoint) -> PointBody {
        let motion = point.motion;
        PointBody {
            ts: rfc3339(point.ts),
            lat: point.position.lat(),
            lon: point.position.lon(),
            accuracy_m: motion.get(AccuracyM),
            altitude_m: motion.get(AltitudeM),
            speed_mps: motion.get(SpeedMps),
            heading_deg: motion.get(HeadingDeg),
            battery_pct: motion.get(BatteryPct),
            charging: motion.charging(),
        }
    }
}

/// What lies beyond the year 9999 is shown as its end.
fn rfc3339(ts: TimestampMs) -> String {
    let ms = i64::try_from(ts.0).ok();
    ms.and_then(|ms| Timestamp::from_millisecond(ms).ok()).unwrap_or(Timestamp::MAX).to_string()
}
