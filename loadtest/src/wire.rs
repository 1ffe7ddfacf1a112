//! The server's frames, as this judge reads them: its own types, written from the protocol's description, so that a
//! mistake in the server's is not made here a second time.

use std::borrow::Cow;

use model::UserId;
use serde::Deserialize;

/// One frame.
#[derive(Debug, PartialEq)]
pub enum Frame<'a> {
    /// A page of the friends within the radius.
    Nearby(Page<'a>),
    /// A friend came near or moved.
    Friend(Shown),
    /// A friend is near no longer.
    Gone(UserId, Reason),
    /// A new friend.
    FriendAdded(UserId),
    /// A friend no longer.
    FriendRemoved(UserId),
    /// What was sent was not taken.
    Error(Cow<'a, str>),
    /// What was sent was taken, but not as the sender may think.
    Notice(Cow<'a, str>),
    /// The server stops soon.
    Drain,
}

/// A page, nearest first.
#[derive(Debug, PartialEq)]
pub struct Page<'a> {
    /// Who.
    pub friends: Vec<Shown>,
    /// Where the next page begins, if there is one.
    pub next_cursor: Option<Cow<'a, str>>,
    /// The radius watched.
    pub radius_m: f64,
    /// When silent friends are gone.
    pub location_ttl_s: u64,
}

/// A friend as shown.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq)]
pub struct Shown {
    /// Who.
    pub id: UserId,
    /// Latitude in degrees.
    pub lat: f64,
    /// Longitude in degrees.
    pub lon: f64,
    /// When the friend's phone said so.
    pub ts: u64,
    /// From the viewer.
    pub distance_m: f64,
}

/// Why a friend is near no longer.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// One of the two moved away.
    OutOfRange,
    /// Silent for the TTL.
    Inactive,
    /// May no longer be seen.
    Hidden,
}

/// All fields of all frames: one pass, nothing copied. (A tagged enum would have serde buffer each frame.)
#[derive(Deserialize)]
struct Raw<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    id: Option<UserId>,
    lat: Option<f64>,
    lon: Option<f64>,
    ts: Option<u64>,
    distance_m: Option<f64>,
    reason: Option<Reason>,
    friends: Option<Vec<Shown>>,
    #[serde(borrow)]
    next_cursor: Option<Cow<'a, str>>,
    radius_m: Option<f64>,
    location_ttl_s: Option<u64>,
    #[serde(borrow)]
    code: Option<Cow<'a, str>>,
}

/// Reads one frame; `None` if it is none of the protocol's.
pub fn read(text: &str) -> Option<Frame<'_>> {
    let raw: Raw<'_> = serde_json::from_str(text).ok()?;
    Some(match &*raw.kind {
        "friend" => {
            Frame::Friend(Shown { id: raw.id?, lat: raw.lat?, lon: raw.lon?, ts: raw.ts?, distance_m: raw.distance_m? })
        }
        "gone" => Frame::Gone(raw.id?, raw.reason?),
        "nearby" => Frame::Nearby(Page {
            friends: raw.friends?,
            next_cursor: raw.next_cursor,
            radius_m: raw.radius_m?,
            location_ttl_s: raw.location_ttl_s?,
        }),
        "friend_added" => Frame::FriendAdded(raw.id?),
        "friend_removed" => Frame::FriendRemoved(raw.id?),
        "error" => Frame::Error(raw.code?),
        "notice" => Frame::Notice(raw.code?),
        "drain" => Frame::Drain,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use model::{
        Edge, Fix, Generation, Level, Meters, MonotonicMs, Motion, Order, Place, PolicyVersion, Position, TimestampMs,
    };
    use protocol::client::{ErrorCode, ErrorFrame, Friend, GoneReason, Nearby, Notice, NoticeCode, ServerFrame};

    use super::*;

    /// User 7 as the server would write it.
    fn friend() -> Friend {
        let fix = Fix {
            user: UserId(7),
            place: Place::new(Position::new(40.1, 116.2).unwrap()),
            order: Order { generation: Generation(1), ts: TimestampMs(1_000), ..Order::default() },
            expires: MonotonicMs(1),
            policy: PolicyVersion(0),
            motion: Motion::UNKNOWN,
        };
        let shared = Edge { level: Level::Exact, policy: PolicyVersion(0) }.reveal(&fix, MonotonicMs(0)).unwrap();
        Friend::new(&shared, Meters(12.34))
    }

    const SEVEN: Shown = Shown { id: UserId(7), lat: 40.1, lon: 116.2, ts: 1_000, distance_m: 12.3 };

    #[test]
    fn reads_what_the_server_writes() {
        let nearby =
            Nearby { friends: vec![friend()], next_cursor: Some("c".into()), radius_m: 500.0, location_ttl_s: 600 };
        let page = Page { friends: vec![SEVEN], next_cursor: Some("c".into()), radius_m: 500.0, location_ttl_s: 600 };
        let error = ErrorFrame { code: ErrorCode::RateLimited, message: "a \"quote\"".into(), field: None };
        for (written, wanted) in [
            (ServerFrame::Nearby(nearby), Frame::Nearby(page)),
            (ServerFrame::Friend(friend()), Frame::Friend(SEVEN)),
            (
                ServerFrame::Gone { id: UserId(7), reason: GoneReason::Inactive },
                Frame::Gone(UserId(7), Reason::Inactive),
            ),
            (ServerFrame::FriendAdded { id: UserId(7) }, Frame::FriendAdded(UserId(7))),
            (ServerFrame::FriendRemoved { id: UserId(7) }, Frame::FriendRemoved(UserId(7))),
            (ServerFrame::Error(error), Frame::Error("rate_limited".into())),
            (
                ServerFrame::Notice(Notice { code: NoticeCode::TooOld, message: "late".into() }),
                Frame::Notice("too_old".into()),
            ),
            (ServerFrame::Drain { retry_after_ms: 5 }, Frame::Drain),
        ] {
            assert_eq!(read(&written.encode()), Some(wanted));
        }
    }

    #[test]
    fn anything_else_is_no_frame() {
        for bad in [
            "",
            "[]",
            r#"{"type":"other"}"#,
            r#"{"type":"friend","id":"7"}"#,
            r#"{"type":"gone","id":7,"reason":"inactive"}"#,
            r#"{"type":"gone","id":"7","reason":"bored"}"#,
        ] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
