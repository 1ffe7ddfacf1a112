//! Where a page of the `nearby` list ended. The server keeps nothing for it: the list is ordered by (distance, id), so
//! the last pair says where the next page begins, whatever has moved meanwhile.

use std::fmt;
use std::str::FromStr;

use model::{Meters, UserId};
use thiserror::Error;

use super::inbound::Limit;

/// The end of one page of friends, nearest first. Opaque to clients.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PageCursor {
    /// The last friend's distance, unrounded.
    pub distance: Meters,
    /// The last friend, who decides between equal distances.
    pub id: UserId,
    /// Friends to a page, as the first page was asked for.
    pub limit: Limit,
}

/// A text that no server gave out as cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("must be the `next_cursor` of an earlier `nearby` answer")]
pub struct BadCursor;

impl fmt::Display for PageCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}{:016x}{:02x}", self.distance.0.to_bits(), self.id.0, self.limit.get())
    }
}

impl FromStr for PageCursor {
    type Err = BadCursor;

    fn from_str(text: &str) -> Result<PageCursor, BadCursor> {
        let hex = |range: std::ops::Range<usize>| {
            let digits = text.get(range).filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))?;
            u64::from_str_radix(digits, 16).ok()
        };
        let parts = (text.len() == 34).then(|| Some((hex(0..16)?, hex(16..32)?, hex(32..34)?))).flatten();
        let (distance, id, limit) = parts.ok_or(BadCursor)?;
        let distance = Meters(f64::from_bits(distance));
        if !(0.0..=1e8).contains(&distance.0) {
            return Err(BadCursor);
        }
        Ok(PageCursor { distance, id: UserId(id), limit: Limit::new(limit).ok_or(BadCursor)? })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn comes_back_as_it_was_given(distance in 0.0..2e7, id: u64, limit in 1u64..=100) {
            let cursor = PageCursor { distance: Meters(distance), id: UserId(id), limit: Limit::new(limit).unwrap() };
            prop_assert_eq!(cursor.to_string().parse(), Ok(cursor));
        }

        #[test]
        fn any_other_text_is_refused_and_never_panics(text in ".*") {
            let _ = text.parse::<PageCursor>();
        }
    }

    #[test]
    fn no_made_up_values() {
        for bad in ["", "zz", &"f".repeat(34), &"+".repeat(34), &"0".repeat(34), &"é".repeat(17)] {
            assert_eq!(bad.parse::<PageCursor>(), Err(BadCursor), "{bad}");
        }
    }
}
