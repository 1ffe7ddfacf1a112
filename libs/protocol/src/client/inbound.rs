//! What a phone says.

use std::borrow::Cow;
use std::fmt;

use model::{Meters, Motion, MotionField, Position, TimestampMs};
use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use thiserror::Error;

use super::cursor::PageCursor;
use super::number::Scalar;
use super::outbound::{ErrorCode, ErrorFrame};

/// One decoded frame. Every value in it is within its bounds, except those that depend on the server's configuration
/// or clock (the radius' maximum, how far ahead `ts` may be): the session checks these.
#[derive(Clone, Debug, PartialEq)]
pub enum ClientFrame {
    /// `init`, the first frame.
    Init(Init),
    /// `location`.
    Location(Report),
    /// `more`: the next page of the `nearby` list.
    More(PageCursor),
    /// `radius`: watch another radius from now on.
    Radius(Meters),
    /// `auth`: a fresh token of the same user.
    Auth(String),
}

/// The first frame of a connection.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Init {
    /// Where the device is; `None` for a viewer that uses the user's own newest position.
    pub report: Option<Report>,
    /// The radius to watch; `None` for the server's default.
    pub radius: Option<Meters>,
    /// How many friends to a page; `None` for the default.
    pub limit: Option<Limit>,
}

/// One position as a device reports it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Report {
    /// Where.
    pub position: Position,
    /// When, by the device's clock.
    pub ts: TimestampMs,
    /// What else it knows.
    pub motion: Motion,
    /// When it was sent, by the same clock as `ts`; `None` if the device does not say so.
    pub sent_at: Option<TimestampMs>,
}

/// Friends to a page: 1 to 100, 20 if nothing is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit(u8);

impl Limit {
    /// The most friends one page holds.
    pub const MAX: u8 = 100;

    /// `None` outside 1 to 100.
    pub fn new(limit: u64) -> Option<Limit> {
        (1..=u64::from(Limit::MAX)).contains(&limit).then_some(Limit(limit as u8))
    }

    /// As a length.
    pub fn get(self) -> usize {
        usize::from(self.0)
    }
}

impl Default for Limit {
    fn default() -> Limit {
        Limit(20)
    }
}

/// Why a frame was not understood. It changed nothing.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{message}")]
pub struct BadFrame {
    /// The kind of mistake.
    pub code: ErrorCode,
    /// The field that is wrong, if it is one.
    pub field: Option<&'static str>,
    /// What is wrong and what would be right; never repeats a position or a token.
    pub message: String,
}

impl BadFrame {
    /// A value that cannot be taken.
    pub fn value(field: &'static str, must: impl std::fmt::Display) -> BadFrame {
        BadFrame { code: ErrorCode::BadValue, field: Some(field), message: format!("{field} {must}") }
    }
}

impl From<BadFrame> for ErrorFrame {
    fn from(bad: BadFrame) -> ErrorFrame {
        ErrorFrame { code: bad.code, message: bad.message, field: bad.field.map(str::to_owned) }
    }
}

/// The fields of every frame as they arrive; which of them a type needs is decided after.
#[derive(Deserialize)]
struct Raw<'a> {
    #[serde(rename = "type", borrow, default)]
    kind: Option<Cow<'a, str>>,
    #[serde(default)]
    lat: Option<Scalar>,
    #[serde(default)]
    lon: Option<Scalar>,
    #[serde(default)]
    ts: Option<Scalar>,
    #[serde(default)]
    sent_at: Option<Scalar>,
    #[serde(default)]
    accuracy_m: Option<Scalar>,
    #[serde(default)]
    altitude_m: Option<Scalar>,
    #[serde(default)]
    speed_mps: Option<Scalar>,
    #[serde(default)]
    heading_deg: Option<Scalar>,
    #[serde(default)]
    battery_pct: Option<Scalar>,
    #[serde(default)]
    charging: Option<Scalar>,
    #[serde(default)]
    radius_m: Option<Scalar>,
    #[serde(default)]
    limit: Option<Scalar>,
    #[serde(borrow, default)]
    cursor: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    token: Option<Cow<'a, str>>,
}

/// Decodes one text message. Unknown fields are ignored; `null` is the same as absent.
pub fn decode(text: &str) -> Result<ClientFrame, BadFrame> {
    let raw = Raw::parse(text)?;
    match raw.kind.as_deref() {
        Some("location") => raw.report().map(ClientFrame::Location),
        Some("init") => raw.init().map(ClientFrame::Init),
        Some("more") => raw.more(),
        Some("radius") => match raw.radius()? {
            Some(radius) => Ok(ClientFrame::Radius(radius)),
            None => Err(BadFrame::value("radius_m", "is missing: the radius to watch, in metres")),
        },
        Some("auth") => match raw.token {
            Some(token) => Ok(ClientFrame::Auth(token.into_owned())),
            None => Err(BadFrame::value("token", "is missing: a fresh token of the same user")),
        },
        Some(_) => Err(BadFrame {
            code: ErrorCode::UnknownType,
            field: Some("type"),
            message: "type must be one of init, location, more, radius, auth".into(),
        }),
        None => Err(BadFrame::value("type", "is missing: one of init, location, more, radius, auth")),
    }
}

/// The fields, from an object only: serde's own would also take a list, for the fields in their order.
struct Object<'a>(Raw<'a>);

impl<'de: 'a, 'a> Deserialize<'de> for Object<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Object<'a>, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Object<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Object<'de>, A::Error> {
                Raw::deserialize(MapAccessDeserializer::new(map)).map(Object)
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

/// Decodes the body of `POST /v1/locations`: one position, with the fields of a `location` frame, or a list of at
/// most `max`. `type` is not needed. An error about a list says which of its items is wrong.
pub fn decode_reports(json: &str, max: usize) -> Result<Vec<Report>, BadFrame> {
    let bad = |error: serde_json::Error| BadFrame {
        code: ErrorCode::BadJson,
        field: None,
        message: format!(
            "not a position or a list of positions (line {} column {}): a position is a JSON object, each field once",
            error.line(),
            error.column()
        ),
    };
    if !json.trim_start().starts_with('[') {
        let Object(raw) = serde_json::from_str(json).map_err(bad)?;
        return Ok(vec![raw.report()?]);
    }
    let list: Vec<Object<'_>> = serde_json::from_str(json).map_err(bad)?;
    if list.is_empty() || list.len() > max {
        let message = format!("a list must hold 1 to {max} positions");
        return Err(BadFrame { code: ErrorCode::BadValue, field: None, message });
    }
    let of_item = |(at, Object(raw)): (usize, &Object<'_>)| {
        raw.report().map_err(|bad| BadFrame { message: format!("[{at}]: {}", bad.message), ..bad })
    };
    list.iter().enumerate().map(of_item).collect()
}

impl<'a> Raw<'a> {
    fn parse(text: &'a str) -> Result<Raw<'a>, BadFrame> {
        let bad = |line, column| BadFrame {
            code: ErrorCode::BadJson,
            field: None,
            message: format!(
                "not a frame (line {line} column {column}): a frame is a JSON object with a string `type`, each field once"
            ),
        };
        // serde_json's own text may quote the input: only the place is told.
        let raw = serde_json::from_str::<Object<'_>>(text);
        raw.map(|Object(raw)| raw).map_err(|error| bad(error.line(), error.column()))
    }

    fn init(&self) -> Result<Init, BadFrame> {
        let watches = self.lat.is_none() && self.lon.is_none() && self.ts.is_none();
        let report = if watches { None } else { Some(self.report()?) };
        let limit = match self.limit {
            None => None,
            Some(Scalar::Number(n)) if n.fract() == 0.0 && Limit::new(n as u64).is_some() => Limit::new(n as u64),
            Some(_) => {
                return Err(BadFrame::value("limit", format!("must be a whole number from 1 to {}", Limit::MAX)));
            }
        };
        Ok(Init { report, radius: self.radius()?, limit })
    }

    fn report(&self) -> Result<Report, BadFrame> {
        let (lat, lon) = (required("lat", self.lat)?, required("lon", self.lon)?);
        let position = Position::new(lat, lon).map_err(|bad| {
            let field = if bad == model::BadPosition::Lat { "lat" } else { "lon" };
            BadFrame::value(field, bad)
        })?;
        let ts = time("ts", required("ts", self.ts)?)?;
        let sent_at = match self.sent_at {
            None => None,
            sent_at => Some(time("sent_at", required("sent_at", sent_at)?)?),
        };
        Ok(Report { position, ts, motion: self.motion()?, sent_at })
    }

    fn motion(&self) -> Result<Motion, BadFrame> {
        let fields = [
            (MotionField::AccuracyM, self.accuracy_m),
            (MotionField::AltitudeM, self.altitude_m),
            (MotionField::SpeedMps, self.speed_mps),
            (MotionField::HeadingDeg, self.heading_deg),
            (MotionField::BatteryPct, self.battery_pct),
        ];
        let mut motion = Motion::UNKNOWN;
        for (field, value) in fields {
            motion = match value {
                None => Ok(motion),
                Some(Scalar::Number(value)) => motion.with(field, value),
                Some(_) => Err(model::BadMotion(field)),
            }
            .map_err(|bad| BadFrame::value(field.name(), bad))?;
        }
        match self.charging {
            None => Ok(motion),
            Some(Scalar::Bool(charging)) => Ok(motion.with_charging(charging)),
            Some(_) => Err(BadFrame::value("charging", "must be true or false")),
        }
    }

    fn radius(&self) -> Result<Option<Meters>, BadFrame> {
        match self.radius_m {
            None => Ok(None),
            Some(Scalar::Number(radius)) if radius > 0.0 && radius.is_finite() => Ok(Some(Meters(radius))),
            Some(_) => Err(BadFrame::value("radius_m", "must be a number of metres above 0")),
        }
    }

    fn more(&self) -> Result<ClientFrame, BadFrame> {
        let cursor = self.cursor.as_deref().unwrap_or_default();
        cursor.parse().map(ClientFrame::More).map_err(|bad| BadFrame::value("cursor", bad))
    }
}

fn time(field: &'static str, ms: f64) -> Result<TimestampMs, BadFrame> {
    // 2^53: up to there every whole number of milliseconds is exact in a JSON number.
    if ms.fract() != 0.0 || !(1.0..=9_007_199_254_740_992.0).contains(&ms) {
        return Err(BadFrame::value(field, "must be a time in whole milliseconds since 1970-01-01 UTC"));
    }
    Ok(TimestampMs(ms as u64))
}

fn required(field: &'static str, value: Option<Scalar>) -> Result<f64, BadFrame> {
    match value {
        Some(Scalar::Number(value)) => Ok(value),
        Some(_) => Err(BadFrame::value(field, "must be a number")),
        None => Err(BadFrame::value(field, "is missing")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> (ErrorCode, Option<&'static str>) {
        let bad = decode(text).expect_err(text);
        assert!(!bad.message.is_empty());
        (bad.code, bad.field)
    }

    #[test]
    fn a_location_as_phones_send_it() {
        let text = r#"{"type":"location","lat":40.02,"lon":116.42,"ts":1700000000000,"speed_mps":1.5,"battery_pct":80,
            "charging":false,"some_new_field":{"a":[1,2]}}"#;
        let ClientFrame::Location(report) = decode(text).unwrap() else { panic!("not a location") };
        assert_eq!(report.position, Position::new(40.02, 116.42).unwrap());
        assert_eq!(report.ts, TimestampMs(1_700_000_000_000));
        assert_eq!(report.sent_at, None);
        assert_eq!(report.motion.get(MotionField::SpeedMps), Some(1.5));
        assert_eq!(report.motion.charging(), Some(false));
    }

    #[test]
    fn init_with_and_without_a_position() {
        let Ok(ClientFrame::Init(init)) = decode(r#"{"type":"init"}"#) else { panic!() };
        assert_eq!(init, Init { report: None, radius: None, limit: None });
        let Ok(ClientFrame::Init(init)) = decode(r#"{"type":"init","lat":1,"lon":2,"ts":3,"radius_m":500,"limit":5}"#)
        else {
            panic!()
        };
        assert_eq!((init.radius, init.limit), (Some(Meters(500.0)), Limit::new(5)));
        assert_eq!(refused(r#"{"type":"init","lat":1,"ts":3}"#), (ErrorCode::BadValue, Some("lon")));
    }

    #[test]
    fn the_time_of_sending_comes_with_every_position() {
        let at = Some(TimestampMs(4));
        let fields = r#""lat":1,"lon":2,"ts":3,"sent_at":4"#;
        let ClientFrame::Location(report) = decode(&format!(r#"{{"type":"location",{fields}}}"#)).unwrap() else {
            panic!("not a location")
        };
        assert_eq!(report.sent_at, at);
        let Ok(ClientFrame::Init(init)) = decode(&format!(r#"{{"type":"init",{fields}}}"#)) else {
            panic!("not an init")
        };
        assert_eq!(init.report.unwrap().sent_at, at);
        let posted =
            decode_reports(&format!(r#"[{{{fields}}},{{"lat":1,"lon":2,"ts":3,"sent_at":null}}]"#), 2).unwrap();
        assert_eq!((posted[0].sent_at, posted[1].sent_at), (at, None));
        let wrong =
            decode_reports(&format!(r#"[{{{fields}}},{{"lat":1,"lon":2,"ts":3,"sent_at":-4}}]"#), 2).unwrap_err();
        assert_eq!((wrong.code, wrong.field), (ErrorCode::BadValue, Some("sent_at")));
    }

    #[test]
    fn one_position_or_a_list() {
        let one = r#"{"lat":1,"lon":2,"ts":3}"#;
        assert_eq!(decode_reports(one, 2).unwrap().len(), 1);
        assert_eq!(decode_reports(&format!(" [{one},{one}]"), 2).unwrap().len(), 2);
        for bad in [
            "[]",
            &format!("[{one},{one},{one}]"),
            "[[1,2]]",
            "7",
            r#"[{"lat":1,"lon":2,"ts":3},{"lat":91,"lon":2,"ts":3}]"#,
        ] {
            assert!(decode_reports(bad, 2).is_err(), "{bad}");
        }
        let second = decode_reports(&format!("[{one},{{}}]"), 2).unwrap_err();
        assert_eq!((second.field, second.message.as_str()), (Some("lat"), "[1]: lat is missing"));
    }

    #[test]
    fn a_wrong_value_is_named() {
        for (fields, field) in [
            (r#""lat":91,"lon":0,"ts":1"#, "lat"),
            (r#""lat":0,"lon":-180.5,"ts":1"#, "lon"),
            (r#""lat":"40","lon":0,"ts":1"#, "lat"),
            (r#""lat":null,"lon":0,"ts":1"#, "lat"),
            (r#""lat":0,"lon":0"#, "ts"),
            (r#""lat":0,"lon":0,"ts":-5"#, "ts"),
            (r#""lat":0,"lon":0,"ts":1.5"#, "ts"),
            (r#""lat":0,"lon":0,"ts":1e300"#, "ts"),
            (r#""lat":0,"lon":0,"ts":1,"sent_at":0"#, "sent_at"),
            (r#""lat":0,"lon":0,"ts":1,"sent_at":1.5"#, "sent_at"),
            (r#""lat":0,"lon":0,"ts":1,"sent_at":"2""#, "sent_at"),
            (r#""lat":0,"lon":0,"ts":1,"heading_deg":400"#, "heading_deg"),
            (r#""lat":0,"lon":0,"ts":1,"battery_pct":{}"#, "battery_pct"),
            (r#""lat":0,"lon":0,"ts":1,"charging":1"#, "charging"),
        ] {
            let text = format!(r#"{{"type":"location",{fields}}}"#);
            assert_eq!(refused(&text), (ErrorCode::BadValue, Some(field)), "{text}");
        }
        assert_eq!(refused(r#"{"type":"radius","radius_m":0}"#), (ErrorCode::BadValue, Some("radius_m")));
        assert_eq!(refused(r#"{"type":"radius"}"#), (ErrorCode::BadValue, Some("radius_m")));
        assert_eq!(refused(r#"{"type":"init","limit":101}"#), (ErrorCode::BadValue, Some("limit")));
        assert_eq!(refused(r#"{"type":"more"}"#), (ErrorCode::BadValue, Some("cursor")));
        assert_eq!(refused(r#"{"type":"auth"}"#), (ErrorCode::BadValue, Some("token")));
    }

    #[test]
    fn what_is_no_frame_is_refused_without_repeating_it() {
        assert_eq!(refused(r#"{"type":"teleport"}"#), (ErrorCode::UnknownType, Some("type")));
        assert_eq!(refused("{}"), (ErrorCode::BadValue, Some("type")));
        for text in
            ["", "NaN", "[]", "\"init\"", r#"{"type":5}"#, r#"{"type":"location","lat":NaN}"#, "{\"type\":\"init\""]
        {
            assert_eq!(refused(text), (ErrorCode::BadJson, None), "{text}");
        }
        let secret = decode(r#"{"type":"auth","token":"s3cret","token":"s3cret"}"#).unwrap_err();
        assert!(!secret.message.contains("s3cret"));
    }
}
