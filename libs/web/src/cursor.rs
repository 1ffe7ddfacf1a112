//! Lists page by page. The server keeps nothing for a page: an opaque cursor says where the next one begins.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use utoipa::ToSchema;

use crate::Problem;

/// One page of a list.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Page<T> {
    /// What is on it.
    pub items: Vec<T>,
    /// Give it back as `cursor` for the next page; null on the last.
    pub next_cursor: Option<String>,
}

/// Writes a cursor. `list` is a byte of the list's own, so that the cursor of one list is an error in another.
pub fn encode<const N: usize>(list: u8, place: [u64; N]) -> String {
    let mut bytes = vec![list];
    bytes.extend(place.iter().flat_map(|number| number.to_be_bytes()));
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Reads a cursor that [`encode`] wrote for the same list.
pub fn decode<const N: usize>(list: u8, text: &str) -> Result<[u64; N], Problem> {
    let bad = || Problem::bad_value("cursor", "be the `next_cursor` of an earlier answer of this list");
    // Longer texts are not worth decoding: 4 characters hold 3 bytes.
    if text.len() > (1 + 8 * N).div_ceil(3) * 4 {
        return Err(bad());
    }
    let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| bad())?;
    let place = bytes.strip_prefix(&[list]).filter(|place| place.len() == 8 * N).ok_or_else(bad)?;
    let mut numbers = [0; N];
    for (number, chunk) in numbers.iter_mut().zip(place.chunks_exact(8)) {
        *number = chunk.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
    }
    Ok(numbers)
}

/// How many items a page holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PageSize {
    /// When the request says nothing.
    pub default: usize,
    /// At most.
    pub max: usize,
}

impl PageSize {
    /// Reads the parameter `limit`.
    pub fn read(self, limit: Option<&str>) -> Result<usize, Problem> {
        let Some(text) = limit else { return Ok(self.default) };
        let wanted = text.parse().ok().filter(|wanted| (1..=self.max).contains(wanted));
        wanted.ok_or_else(|| Problem::bad_value("limit", format_args!("be a whole number from 1 to {}", self.max)))
    }
}

impl<T> Page<T> {
    /// Makes a page of at most `limit` from up to `limit + 1` items: the extra one says that there is a next page, and
    /// is not on this one. `cursor` is made from the last item on the page.
    pub fn cut(mut items: Vec<T>, limit: usize, cursor: impl FnOnce(&T) -> String) -> Page<T> {
        let more = items.len() > limit;
        items.truncate(limit);
        let next_cursor = items.last().filter(|_| more).map(cursor);
        Page { items, next_cursor }
    }

    /// The same page with each item shown otherwise, or left out.
    pub fn filter_map<U>(self, show: impl FnMut(T) -> Option<U>) -> Page<U> {
        Page { items: self.items.into_iter().filter_map(show).collect(), next_cursor: self.next_cursor }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_comes_back_as_it_was_given() {
        for place in [[0, 0], [1, u64::MAX], [0x0102_0304_0506_0708, 9]] {
            assert_eq!(decode(b'h', &encode(b'h', place)), Ok(place));
        }
    }

    #[test]
    fn anything_else_is_an_error_that_names_the_cursor() {
        let other_list = encode(b'f', [1, 2]);
        let other_length = encode(b'h', [1]);
        for text in ["", "7", "é", "=", &other_list, &other_length, &"A".repeat(1_000_000)] {
            let problem = decode::<2>(b'h', text).unwrap_err();
            assert_eq!((problem.status().as_u16(), problem.field()), (400, Some("cursor")));
        }
    }

    #[test]
    fn a_limit_has_bounds() {
        let size = PageSize { default: 100, max: 1_000 };
        assert_eq!((size.read(None), size.read(Some("1")), size.read(Some("1000"))), (Ok(100), Ok(1), Ok(1_000)));
        for bad in ["", "0", "1001", "-1", "1.5", "many", "99999999999999999999999"] {
            assert_eq!(size.read(Some(bad)).unwrap_err().field(), Some("limit"), "{bad}");
        }
    }

    #[test]
    fn only_a_page_with_a_next_one_has_a_cursor() {
        let cursor = |last: &u32| last.to_string();
        assert_eq!(Page::cut(vec![1, 2, 3], 2, cursor).next_cursor, Some("2".into()));
        assert_eq!(Page::cut(vec![1, 2], 2, cursor).next_cursor, None);
        assert_eq!(Page::cut(vec![], 2, cursor).next_cursor, None);
    }
}
