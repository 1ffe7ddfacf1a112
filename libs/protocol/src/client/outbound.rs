//! What a gateway says.

use model::{Meters, MotionField, SharedFix, UserId};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One frame to a client. A position gets in only as [`Friend`], and a [`Friend`] is made only from a [`SharedFix`].
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, PartialEq)]
#[serde(tag = "type", rename_all = "snake_case")]
#[schemars(title = "Frames from server to client, nearby.v1.json")]
pub enum ServerFrame {
    /// The friends within the radius; answers `init`, `more` and `radius`.
    Nearby(Nearby),
    /// A friend entered the radius, or moved within it.
    Friend(Friend),
    /// A friend who was told is near no longer.
    Gone {
        /// Who.
        #[schemars(with = "String")]
        id: UserId,
        /// Why.
        reason: GoneReason,
    },
    /// Somebody became a friend. Names come from `GET /v1/me/friends`.
    FriendAdded {
        /// Who.
        #[schemars(with = "String")]
        id: UserId,
    },
    /// Somebody is a friend no longer.
    FriendRemoved {
        /// Who.
        #[schemars(with = "String")]
        id: UserId,
    },
    /// The frame before was not taken; it changed nothing.
    Error(ErrorFrame),
    /// What was sent was taken, but not as the sender may think; each code once a connection.
    Notice(Notice),
    /// The server is about to stop: a close with code 1012 follows.
    Drain {
        /// How long to wait before connecting again.
        retry_after_ms: u64,
    },
}

/// A page of the friends within the radius, nearest first.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, PartialEq)]
pub struct Nearby {
    /// Nearest first; equal distances by id.
    pub friends: Vec<Friend>,
    /// Send it with `more` to get the next page; null on the last.
    pub next_cursor: Option<String>,
    /// The radius now watched.
    pub radius_m: f64,
    /// After how long without a new position a friend is gone.
    pub location_ttl_s: u64,
}

/// A friend as the viewer may see them.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, PartialEq)]
pub struct Friend {
    #[schemars(with = "String")]
    pub(super) id: UserId,
    pub(super) lat: f64,
    pub(super) lon: f64,
    /// Unix time in ms, by the friend's device.
    pub(super) ts: u64,
    /// From the viewer, rounded to 0.1 m.
    pub(super) distance_m: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) accuracy_m: Option<f32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) speed_mps: Option<f32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) heading_deg: Option<f32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) battery_pct: Option<u8>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) charging: Option<bool>,
}

impl Friend {
    /// What the viewer is told of a shared fix at this distance.
    pub fn new(shared: &SharedFix, distance: Meters) -> Friend {
        let motion = shared.motion();
        Friend {
            id: shared.user(),
            lat: shared.position().lat(),
            lon: shared.position().lon(),
            ts: shared.ts().0,
            distance_m: distance.to_decimeter().0,
            accuracy_m: motion.get(MotionField::AccuracyM),
            speed_mps: motion.get(MotionField::SpeedMps),
            heading_deg: motion.get(MotionField::HeadingDeg),
            battery_pct: motion.get(MotionField::BatteryPct).map(|percent| percent as u8),
            charging: motion.charging(),
        }
    }

    /// Who.
    pub fn id(&self) -> UserId {
        self.id
    }

    /// Latitude and longitude in degrees.
    pub fn lat_lon(&self) -> (f64, f64) {
        (self.lat, self.lon)
    }

    /// Unix time in ms, by the friend's device.
    pub fn ts(&self) -> u64 {
        self.ts
    }

    /// From the viewer, rounded to 0.1 m.
    pub fn distance_m(&self) -> f64 {
        self.distance_m
    }

    /// How fast, if the friend shares it.
    pub fn speed_mps(&self) -> Option<f32> {
        self.speed_mps
    }

    /// Where to, clockwise from north, if the friend shares it.
    pub fn heading_deg(&self) -> Option<f32> {
        self.heading_deg
    }
}

/// Why a friend is near no longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum GoneReason {
    /// One of the two moved away.
    OutOfRange,
    /// The friend sent no position for the TTL.
    Inactive,
    /// The friend may no longer be seen; whether by unfriending, blocking or hiding is not said.
    Hidden,
}

/// Why a frame was not taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ErrorFrame {
    /// The kind of mistake, for programs.
    pub code: ErrorCode,
    /// What is wrong and what would be right, for people.
    pub message: String,
    /// The field that is wrong, if it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
}

/// The kinds of mistakes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// Not JSON, or not an object with a string `type`.
    BadJson,
    /// A `type` that this protocol does not have.
    UnknownType,
    /// A field is missing or outside its bounds.
    BadValue,
    /// The first frame must be `init`.
    NotInitialized,
    /// `init` was sent twice on one connection.
    AlreadyInitialized,
    /// More frames than the limit; the frame was dropped.
    RateLimited,
    /// Another device of this user shares its position now; this connection watches.
    NotSharing,
    /// The token of an `auth` frame was not accepted; the old one stays in use.
    BadToken,
}

/// What the sender of something that was taken should know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Notice {
    /// What it is about, for programs.
    pub code: NoticeCode,
    /// What became of it and what would be right, for people.
    pub message: String,
}

/// What notices are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum NoticeCode {
    /// The position is older than positions are shown: it went to the history only.
    TooOld,
}

impl ServerFrame {
    /// Appends the frame's JSON text to `out`.
    pub fn encode_into(&self, out: &mut Vec<u8>) {
        if let ServerFrame::Friend(friend) = self {
            return friend.write_frame(out);
        }
        // Writing these types to memory has no way to fail: no map keys but strings, and `Vec` takes every byte.
        let written = serde_json::to_writer(out, self);
        debug_assert!(written.is_ok());
    }

    /// The frame's JSON text.
    pub fn encode(&self) -> String {
        let mut out = Vec::with_capacity(200);
        self.encode_into(&mut out);
        String::from_utf8(out).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_spelled_as_the_protocol_says() {
        let gone = ServerFrame::Gone { id: UserId(7), reason: GoneReason::OutOfRange };
        assert_eq!(gone.encode(), r#"{"type":"gone","id":"7","reason":"out_of_range"}"#);
        let drain = ServerFrame::Drain { retry_after_ms: 500 };
        assert_eq!(drain.encode(), r#"{"type":"drain","retry_after_ms":500}"#);
        let error = ErrorFrame { code: ErrorCode::BadJson, message: "no".into(), field: None };
        assert_eq!(ServerFrame::Error(error).encode(), r#"{"type":"error","code":"bad_json","message":"no"}"#);
        let notice = Notice { code: NoticeCode::TooOld, message: "late".into() };
        assert_eq!(ServerFrame::Notice(notice).encode(), r#"{"type":"notice","code":"too_old","message":"late"}"#);
        let nearby = Nearby { friends: vec![], next_cursor: None, radius_m: 500.0, location_ttl_s: 600 };
        assert_eq!(
            ServerFrame::Nearby(nearby).encode(),
            r#"{"type":"nearby","friends":[],"next_cursor":null,"radius_m":500.0,"location_ttl_s":600}"#
        );
    }
}
