//! The few JSON values of the hot path, written and read by hand: as `serde_json` writes them.

/// Appends a whole number.
pub(crate) fn write_number(out: &mut Vec<u8>, number: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    let mut rest = number;
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// Appends ten-millionths of a degree as degrees: the shortest text that reads as the same number, with one digit after
/// the point at least. Of at least 1e-5 degree: for less, other encoders change to exponents.
pub(crate) fn write_degrees(out: &mut Vec<u8>, e7: i32) {
    if e7 < 0 {
        out.push(b'-');
    }
    let (whole, mut rest) = (e7.unsigned_abs() / 10_000_000, e7.unsigned_abs() % 10_000_000);
    write_number(out, whole.into());
    out.push(b'.');
    let mut digits = [b'0'; 7];
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    let end = digits.iter().rposition(|&digit| digit != b'0').map_or(1, |last| last + 1);
    out.extend_from_slice(&digits[..end]);
}

/// Appends tenths: 123 as `12.3`.
pub(crate) fn write_tenths(out: &mut Vec<u8>, tenths: u64) {
    write_number(out, tenths / 10);
    out.extend_from_slice(&[b'.', b'0' + (tenths % 10) as u8]);
}

/// Reads a text from its beginning on.
#[derive(Clone, Copy)]
pub(crate) struct Scanner<'a>(pub(crate) &'a [u8]);

impl<'a> Scanner<'a> {
    /// Goes on behind `text`, if that is next.
    pub(crate) fn skip(&mut self, text: &[u8]) -> Option<()> {
        self.0 = self.0.strip_prefix(text)?;
        Some(())
    }

    /// A whole number.
    pub(crate) fn number(&mut self) -> Option<u64> {
        let mut number: u64 = 0;
        let mut read = 0;
        for &byte in self.0.iter().take_while(|byte| byte.is_ascii_digit()) {
            number = number.checked_mul(10)?.checked_add(u64::from(byte - b'0'))?;
            read += 1;
        }
        self.0 = &self.0[read..];
        (read > 0).then_some(number)
    }

    /// Degrees, as ten-millionths; more digits than that are ignored.
    pub(crate) fn degrees(&mut self) -> Option<i32> {
        let is_negative = self.skip(b"-").is_some();
        let whole = i32::try_from(self.number()?).ok().filter(|whole| *whole <= 180)?;
        let (mut part, mut scale) = (0, 1_000_000);
        if self.skip(b".").is_some() {
            let digits = self.0.iter().take_while(|byte| byte.is_ascii_digit());
            let read = digits.fold(0, |read, byte| {
                part += i32::from(byte - b'0') * scale;
                scale /= 10;
                read + 1
            });
            self.0 = &self.0[read..];
        }
        let e7 = whole * 10_000_000 + part;
        Some(if is_negative { -e7 } else { e7 })
    }
}

#[cfg(test)]
mod tests {
    use model::Position;
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::*;

    fn text(write: impl Fn(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn degrees_are_spelled_as_by_serde_and_read_back() {
        let mut rng = StdRng::seed_from_u64(1);
        let some = (0..20_000).map(|_| rng.random_range(-1_800_000_000..=1_800_000_000));
        let round = [0, 100, -100, 10_000_000, -10_000_000, 401_000_000, 1_800_000_000, -1_799_999_999];
        for e7 in some.chain(round).filter(|&e7: &i32| e7 == 0 || e7.abs() >= 100) {
            let written = text(|out| write_degrees(out, e7));
            let wanted = serde_json::to_string(&Position::from_e7(0, e7).unwrap().lon()).unwrap();
            assert_eq!(written, wanted);
            let mut scanner = Scanner(written.as_bytes());
            assert_eq!((scanner.degrees(), scanner.0), (Some(e7), &b""[..]));
        }
    }

    #[test]
    fn numbers_and_tenths_are_spelled_as_by_serde() {
        for number in [0, 7, 10, 1_763_721_600_123, u64::MAX] {
            assert_eq!(text(|out| write_number(out, number)), number.to_string());
            assert_eq!(Scanner(number.to_string().as_bytes()).number(), Some(number));
        }
        for tenths in [0, 3, 10, 80_467, 123_456_789] {
            let wanted = serde_json::to_string(&(tenths as f64 / 10.0)).unwrap();
            assert_eq!(text(|out| write_tenths(out, tenths)), wanted);
        }
    }

    #[test]
    fn what_is_no_number_is_none() {
        assert_eq!(Scanner(b"x").number(), None);
        assert_eq!(Scanner(b"99999999999999999999999").number(), None);
        assert_eq!(Scanner(b"181.0").degrees(), None);
        assert_eq!(Scanner(b"-").degrees(), None);
    }
}
