//! The span of time that a request asks for.

use std::time::Duration;

use jiff::Timestamp;
use model::TimestampMs;
use web::{Problem, cursor};

/// How far back a request that says nothing looks.
const LAST: Duration = Duration::from_secs(24 * 3_600);

/// This list, in its cursors.
const LIST: u8 = b'h';

/// `from <= ts < to`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Span {
    pub(super) from: TimestampMs,
    pub(super) to: TimestampMs,
}

impl Span {
    /// From the parameters: `to` is now and `from` a day before `to` unless given. A cursor holds the rest of the span
    /// that the first page asked for, so that pages later on do not drift with the time.
    pub(super) fn read(
        from: Option<&str>,
        to: Option<&str>,
        cursor: Option<&str>,
        now: TimestampMs,
    ) -> Result<Span, Problem> {
        let from = from.map(|text| time("from", text)).transpose()?;
        let to = to.map(|text| time("to", text)).transpose()?.unwrap_or(now);
        let from = from.unwrap_or(to.before(LAST));
        if from > to {
            return Err(Problem::bad_value("from", "not be after `to`"));
        }
        match cursor {
            None => Ok(Span { from, to }),
            Some(text) => {
                cursor::decode(LIST, text).map(|[from, to]| Span { from: TimestampMs(from), to: TimestampMs(to) })
            }
        }
    }

    /// Where the page after `last` begins: (user, ts) names a point, so there is no other at the same time.
    pub(super) fn cursor_after(self, last: TimestampMs) -> String {
        cursor::encode(LIST, [last.0.saturating_add(1), self.to.0])
    }
}

/// Reads a time. Positions have whole milliseconds, so both ends of a span round up: `from <= ts` and `ts < to` hold
/// for the same positions as before.
fn time(field: &'static str, text: &str) -> Result<TimestampMs, Problem> {
    let bad = || {
        Problem::bad_value(
            field,
            "be a time of RFC 3339, such as 2025-01-01T00:00:00Z (in a URL, `+` is written `%2B`)",
        )
    };
    let nanos = text.parse::<Timestamp>().map_err(|_| bad())?.as_nanosecond();
    Ok(TimestampMs(u64::try_from(nanos.max(0)).map_err(|_| bad())?.div_ceil(1_000_000)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: TimestampMs = TimestampMs(1_735_689_600_000);
    const DAY: u64 = TimestampMs::DAY_MS;

    fn read(from: Option<&str>, to: Option<&str>) -> Result<(u64, u64), Option<String>> {
        let span = Span::read(from, to, None, NOW).map_err(|problem| problem.field().map(str::to_owned))?;
        Ok((span.from.0, span.to.0))
    }

    #[test]
    fn the_last_day_unless_said_otherwise() {
        assert_eq!(read(None, None), Ok((NOW.0 - DAY, NOW.0)));
        assert_eq!(read(None, Some("2024-12-01T00:00:00Z")), Ok((1_733_011_200_000 - DAY, 1_733_011_200_000)));
        assert_eq!(read(Some("2024-12-31T23:59:59.999Z"), None), Ok((NOW.0 - 1, NOW.0)));
    }

    #[test]
    fn times_have_offsets_and_round_up_to_milliseconds() {
        assert_eq!(read(Some("2025-01-01T01:00:00.0001+02:00"), None), Ok((NOW.0 - 3_599_999, NOW.0)));
        assert_eq!(read(Some("1969-01-01T00:00:00Z"), Some("1970-01-01T00:00:00Z")), Ok((0, 0)));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for bad in ["", "yesterday", "1735689600000", "2025-01-01", "2025-01-01T00:00:00", "2025-01-01T00:00:00 02:00"]
        {
            assert_eq!(read(Some(bad), None), Err(Some("from".into())), "{bad}");
            assert_eq!(read(None, Some(bad)), Err(Some("to".into())), "{bad}");
        }
        assert_eq!(read(Some("2025-01-01T00:00:01Z"), None), Err(Some("from".into())));
    }
}
