//! What a phone says, as a schema.

use schemars::JsonSchema;

/// The frames a client may send, as their schema says them. [`super::decode`] reads the same fields by hand, so that a wrong
/// one is answered by its name; a test holds the two together.
#[derive(JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
#[schemars(
    title = "Frames from client to server, nearby.v1.json",
    description = "One JSON object per WebSocket text message. Unknown fields are ignored; null is the same as absent."
)]
#[allow(dead_code, reason = "only its schema is used")]
pub(crate) enum ClientFrameSchema {
    /// The first frame. With `lat`, `lon` and `ts` this connection shares its user's position from now on; without all
    /// three it watches around the user's own newest position.
    Init {
        #[schemars(range(min = -90.0, max = 90.0))]
        lat: Option<f64>,
        #[schemars(range(min = -180.0, max = 180.0))]
        lon: Option<f64>,
        /// Unix time in ms, by the device.
        #[schemars(range(min = 1, max = 9_007_199_254_740_992_u64))]
        ts: Option<u64>,
        /// Unix time in ms at the sending, by the same clock as `ts`: tells how old the position is where that clock is
        /// wrong. If not given, the server's time is taken.
        #[schemars(range(min = 1, max = 9_007_199_254_740_992_u64))]
        sent_at: Option<u64>,
        #[schemars(range(min = 0.0, max = 1_000_000.0))]
        accuracy_m: Option<f32>,
        #[schemars(range(min = -20_000.0, max = 1_000_000.0))]
        altitude_m: Option<f32>,
        #[schemars(range(min = 0.0, max = 10_000.0))]
        speed_mps: Option<f32>,
        #[schemars(range(min = 0.0, max = 360.0))]
        heading_deg: Option<f32>,
        #[schemars(range(min = 0.0, max = 100.0))]
        battery_pct: Option<f32>,
        charging: Option<bool>,
        /// Above 0, at most the server's maximum (50 km by default).
        #[schemars(extend("exclusiveMinimum" = 0))]
        radius_m: Option<f64>,
        /// Friends to a page; 20 if not given.
        #[schemars(range(min = 1, max = 100))]
        limit: Option<u8>,
    },
    /// A new position; no reply.
    Location {
        #[schemars(range(min = -90.0, max = 90.0))]
        lat: f64,
        #[schemars(range(min = -180.0, max = 180.0))]
        lon: f64,
        /// Unix time in ms, by the device.
        #[schemars(range(min = 1, max = 9_007_199_254_740_992_u64))]
        ts: u64,
        /// Unix time in ms at the sending, by the same clock as `ts`: tells how old the position is where that clock is
        /// wrong. If not given, the server's time is taken.
        #[schemars(range(min = 1, max = 9_007_199_254_740_992_u64))]
        sent_at: Option<u64>,
        #[schemars(range(min = 0.0, max = 1_000_000.0))]
        accuracy_m: Option<f32>,
        #[schemars(range(min = -20_000.0, max = 1_000_000.0))]
        altitude_m: Option<f32>,
        #[schemars(range(min = 0.0, max = 10_000.0))]
        speed_mps: Option<f32>,
        #[schemars(range(min = 0.0, max = 360.0))]
        heading_deg: Option<f32>,
        #[schemars(range(min = 0.0, max = 100.0))]
        battery_pct: Option<f32>,
        charging: Option<bool>,
    },
    /// The next page of `nearby`.
    More {
        /// `next_cursor` of the page before.
        cursor: String,
    },
    /// Watch another radius from now on; answered with `nearby`.
    Radius {
        /// Above 0, at most the server's maximum (50 km by default).
        #[schemars(extend("exclusiveMinimum" = 0))]
        radius_m: f64,
    },
    /// A fresh token of the same user.
    Auth {
        /// A JWT.
        token: String,
    },
}
