//! The one frame that comes a million times, and the moment that is hidden in it.
//!
//! A position's time is in milliseconds, which is too coarse for ages. So the sender writes the microseconds within
//! the millisecond into the last three digits of the latitude, 11 m at most: the viewer can tell the age of a push
//! from the push itself, whoever sent it, and nothing has to be looked up.

use crate::raw::digits::{Scanner, write_degrees, write_number};
use crate::scene::Spot;

/// What a `friend` frame says, as far as ages need it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Push {
    /// Whose position.
    pub(crate) user: u64,
    /// Unix time in microseconds at which it was to be sent.
    pub(crate) intended_us: u64,
}

/// Reads a `friend` frame as this server and the floor spell it; `None` for anything else.
pub(crate) fn read(text: &[u8]) -> Option<Push> {
    let mut scanner = Scanner(text);
    scanner.skip(b"{\"type\":\"friend\",\"id\":\"")?;
    let user = scanner.number()?;
    scanner.skip(b"\",\"lat\":")?;
    let lat = scanner.degrees()?;
    scanner.skip(b",\"lon\":")?;
    scanner.degrees()?;
    scanner.skip(b",\"ts\":")?;
    let ts = scanner.number()?;
    Some(Push { user, intended_us: ts * 1_000 + u64::from(lat.unsigned_abs() % 1_000) })
}

/// Writes `init` or `location` from a spot, to be sent at this moment.
pub(crate) fn write(out: &mut Vec<u8>, kind: &str, spot: Spot, intended_us: u64) {
    out.extend_from_slice(b"{\"type\":\"");
    out.extend_from_slice(kind.as_bytes());
    out.extend_from_slice(b"\",\"lat\":");
    write_degrees(out, spot.lat_e7 + (intended_us % 1_000) as i32);
    out.extend_from_slice(b",\"lon\":");
    write_degrees(out, spot.lon_e7);
    out.extend_from_slice(b",\"ts\":");
    write_number(out, intended_us / 1_000);
    out.push(b'}');
}

#[cfg(test)]
mod tests {
    use protocol::client::{ClientFrame, decode};

    use super::*;

    #[test]
    fn the_moment_comes_back_to_the_microsecond() {
        for micros in [0, 1, 10, 999] {
            let intended_us = 1_763_721_600_123_000 + micros;
            let spot = Spot { lat_e7: 123_457_000, lon_e7: -1_234_567_891 };
            let mut sent = Vec::new();
            write(&mut sent, "location", spot, intended_us);
            let text = std::str::from_utf8(&sent).unwrap();
            let Ok(ClientFrame::Location(report)) = decode(text) else { panic!("{text}") };
            let friend = text.replace(r#""type":"location""#, r#""type":"friend","id":"42""#);
            let friend = friend.replace('}', r#","distance_m":12.3}"#);
            assert_eq!(read(friend.as_bytes()), Some(Push { user: 42, intended_us }));
            assert_eq!(report.ts.0, intended_us / 1_000);
        }
    }

    #[test]
    fn other_frames_are_not_read() {
        for other in [r#"{"type":"gone","id":"7","reason":"hidden"}"#, r#"{"type":"friend","id":"x"}"#, "", "{"] {
            assert_eq!(read(other.as_bytes()), None, "{other}");
        }
    }
}
