//! The text of a `friend` frame, written by hand: the frame that is made a million times a second. The same bytes as
//! serde's, which the tests compare.

use super::{Friend, ServerFrame};

/// "00" to "99".
const PAIRS: [u8; 200] = {
    let mut pairs = [b'0'; 200];
    let mut at = 0;
    while at < 100 {
        pairs[2 * at] += (at / 10) as u8;
        pairs[2 * at + 1] += (at % 10) as u8;
        at += 1;
    }
    pairs
};
/// Of a `u64`.
const MOST_DIGITS: usize = 20;
/// Decimals of degrees, as [`model::Position`] keeps them.
const DEGREE_DECIMALS: usize = 7;
/// Whole numbers up to here have at most 15 digits: no two decimals of so many are one `f64`, so a decimal that gives
/// the number back is the shortest that does, which is what serde writes.
const EXACT_F64: f64 = 1e15;
/// The same for 6 digits and an `f32`.
const EXACT_F32: f64 = 1e6;

/// Remembers the texts of the friends who were told last: many are told of one position in a row, and their frames
/// differ by the distance alone. The default remembers none.
#[derive(Debug, Default)]
pub struct FriendTexts(Vec<FriendText>);

/// The frame of one friend at one place and time.
#[derive(Clone, Debug, Default)]
struct FriendText {
    /// Of whom it is, where and when: all but the distance.
    key: [u64; 8],
    text: Vec<u8>,
    /// Where in it the distance belongs.
    distance_at: usize,
}

impl FriendTexts {
    /// Remembers so many at most, rounded up to a power of two.
    pub fn new(texts: usize) -> FriendTexts {
        FriendTexts(vec![FriendText::default(); texts.next_power_of_two()])
    }

    /// Appends the frame's text: the same bytes as [`ServerFrame::encode_into`].
    pub fn encode_into(&mut self, frame: &ServerFrame, out: &mut Vec<u8>) {
        let ServerFrame::Friend(friend) = frame else { return frame.encode_into(out) };
        // Any spread will do. Without texts the mask has all bits, and nothing is found.
        let spread = friend.id.0.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
        let at = spread as usize & self.0.len().wrapping_sub(1);
        let Some(known) = self.0.get_mut(at) else {
            return friend.write_frame(out);
        };
        let key = friend.key();
        if known.key != key || known.text.is_empty() {
            known.key = key;
            known.text.clear();
            friend.write_before_distance(&mut known.text);
            known.distance_at = known.text.len();
            friend.write_after_distance(&mut known.text);
        }
        let (before, after) = known.text.split_at(known.distance_at);
        out.extend_from_slice(before);
        friend.write_distance(out);
        out.extend_from_slice(after);
    }
}

impl Friend {
    /// All but the distance, to the bit.
    fn key(&self) -> [u64; 8] {
        let said = |value: Option<f32>| value.map_or(1 << 32, |value| u64::from(value.to_bits()));
        let battery = u64::from(self.battery_pct.map_or(u16::MAX, u16::from));
        let charging = self.charging.map_or(2, u64::from);
        let said = [self.accuracy_m, self.speed_mps, self.heading_deg].map(said);
        let [lat, lon] = [self.lat, self.lon].map(f64::to_bits);
        [self.id.0, lat, lon, self.ts, said[0], said[1], said[2], battery << 2 | charging]
    }

    /// Appends the text of the frame of this friend.
    pub(super) fn write_frame(&self, out: &mut Vec<u8>) {
        self.write_before_distance(out);
        self.write_distance(out);
        self.write_after_distance(out);
    }

    fn write_before_distance(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(br#"{"type":"friend","id":""#);
        whole(self.id.0, out);
        out.extend_from_slice(br#"","lat":"#);
        number::<DEGREE_DECIMALS>(self.lat, out);
        out.extend_from_slice(br#","lon":"#);
        number::<DEGREE_DECIMALS>(self.lon, out);
        out.extend_from_slice(br#","ts":"#);
        whole(self.ts, out);
        out.extend_from_slice(br#","distance_m":"#);
    }

    fn write_distance(&self, out: &mut Vec<u8>) {
        number::<1>(self.distance_m, out);
    }

    fn write_after_distance(&self, out: &mut Vec<u8>) {
        small_number(br#","accuracy_m":"#, self.accuracy_m, out);
        small_number(br#","speed_mps":"#, self.speed_mps, out);
        small_number(br#","heading_deg":"#, self.heading_deg, out);
        if let Some(percent) = self.battery_pct {
            out.extend_from_slice(br#","battery_pct":"#);
            whole(percent.into(), out);
        }
        if let Some(charging) = self.charging {
            out.extend_from_slice(if charging { br#","charging":true"# } else { br#","charging":false"# });
        }
        out.push(b'}');
    }
}

fn whole(number: u64, out: &mut Vec<u8>) {
    if number < 10 {
        return out.push(b'0' + number as u8);
    }
    let mut text = [0; MOST_DIGITS];
    let from = digits(number, &mut text);
    out.extend_from_slice(&text[from..]);
}

/// Writes the digits at the end of `text`; returns where they begin. Nought has one digit.
fn digits(mut number: u64, text: &mut [u8; MOST_DIGITS]) -> usize {
    let mut from = MOST_DIGITS;
    while number >= 10 {
        let pair = (number % 100) as usize * 2;
        number /= 100;
        from -= 2;
        text[from..from + 2].copy_from_slice(&PAIRS[pair..pair + 2]);
    }
    if number > 0 || from == MOST_DIGITS {
        from -= 1;
        text[from] = b'0' + number as u8;
    }
    from
}

/// A number that probably has so many decimals at most.
fn number<const DECIMALS: usize>(number: f64, out: &mut Vec<u8>) {
    let scale = 10u64.pow(DECIMALS as u32) as f64;
    let scaled = nearest(number * scale);
    // Small ones are spelled with an exponent, and -0 with its sign.
    let plain = number.abs() >= 1e-4 || number.to_bits() == 0;
    if plain && scaled.abs() < EXACT_F64 && scaled / scale == number {
        decimal::<DECIMALS>(scaled < 0.0, scaled.abs() as u64, out);
    } else {
        as_serde_does(&number, out);
    }
}

/// A number of what a device says, probably with two decimals at most.
fn small_number(name: &[u8], number: Option<f32>, out: &mut Vec<u8>) {
    let Some(number) = number else { return };
    out.extend_from_slice(name);
    let scaled = nearest(f64::from(number) * 100.0);
    let plain = number.abs() >= 1e-2 || number.to_bits() == 0;
    if plain && scaled.abs() < EXACT_F32 && (scaled / 100.0) as f32 == number {
        decimal::<2>(scaled < 0.0, scaled.abs() as u64, out);
    } else {
        as_serde_does(&number, out);
    }
}

/// The nearest whole number, if it is not too large. By truncation, which is one instruction on every processor.
fn nearest(number: f64) -> f64 {
    (number + 0.5_f64.copysign(number)) as i64 as f64
}

/// Writes `scaled / 10^DECIMALS` with at least one decimal, and no noughts behind that.
fn decimal<const DECIMALS: usize>(negative: bool, scaled: u64, out: &mut Vec<u8>) {
    let scale = 10u64.pow(DECIMALS as u32);
    let mut text = [0; MOST_DIGITS];
    // The 1 in front keeps the noughts before the decimals.
    digits(scaled % scale + scale, &mut text);
    let last = text.iter().rposition(|digit| *digit != b'0').unwrap_or(MOST_DIGITS);
    if negative {
        out.push(b'-');
    }
    whole(scaled / scale, out);
    out.push(b'.');
    let first = MOST_DIGITS - DECIMALS;
    out.extend_from_slice(&text[first..=last.max(first)]);
}

fn as_serde_does(value: &impl serde::Serialize, out: &mut Vec<u8>) {
    let written = serde_json::to_writer(out, value);
    debug_assert!(written.is_ok());
}

#[cfg(test)]
mod tests {
    use model::{
        Edge, Fix, Generation, Level, Meters, MonotonicMs, Motion, MotionField, Order, Place, PolicyVersion, Position,
        TimestampMs, UserId,
    };
    use proptest::prelude::*;

    use super::*;

    fn same(friend: Friend) -> Result<(), TestCaseError> {
        let frame = ServerFrame::Friend(friend);
        let by_hand = frame.encode();
        prop_assert_eq!(by_hand, serde_json::to_string(&frame).unwrap());
        Ok(())
    }

    fn degrees(most: i32) -> impl Strategy<Value = f64> {
        let most = most * 10_000_000;
        let e7 = prop_oneof![
            4 => -most..=most,
            1 => -2_000..2_000i32,
            1 => (-180..=180i32).prop_map(move |whole| (whole * 10_000_000).clamp(-most, most)),
        ];
        e7.prop_map(|e7| f64::from(e7) / 1e7)
    }

    fn said(field: MotionField) -> impl Strategy<Value = Option<f64>> {
        let (low, high) = field.bounds();
        let value = prop_oneof![low..=high, 0.0..1.0, 0.0..=high.min(400.0), Just(0.0)];
        proptest::option::of((value, 0..4u32).prop_map(move |(value, decimals)| {
            let scale = f64::from(10u32.pow(decimals));
            if decimals == 0 { value } else { ((value * scale).round() / scale).clamp(low, high) }
        }))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]

        #[test]
        fn a_friend_of_a_fix_is_written_as_serde_writes_it(
            (user, ts) in (prop_oneof![any::<u64>(), 0..10_000u64], prop_oneof![any::<u64>(), 1_600_000_000_000..1_900_000_000_000u64]),
            (lat, lon) in (degrees(90), degrees(180)),
            distance in prop_oneof![0.0..20_020_000.0, 0.0..10_000.0, Just(0.0)],
            accuracy in said(MotionField::AccuracyM), speed in said(MotionField::SpeedMps),
            heading in said(MotionField::HeadingDeg), battery in said(MotionField::BatteryPct),
            charging in any::<Option<bool>>(),
        ) {
            use MotionField::{AccuracyM, BatteryPct, HeadingDeg, SpeedMps};
            let fields = [(AccuracyM, accuracy), (SpeedMps, speed), (HeadingDeg, heading), (BatteryPct, battery)];
            let motion = fields.into_iter().filter_map(|(field, value)| Some((field, value?)));
            let motion = motion.fold(Motion::UNKNOWN, |motion, (field, value)| motion.with(field, value).unwrap());
            let fix = Fix {
                user: UserId(user),
                place: Place::new(Position::new(lat, lon).unwrap()),
                order: Order { generation: Generation(1), ts: TimestampMs(ts), ..Order::default() },
                expires: MonotonicMs(1),
                policy: PolicyVersion(0),
                motion: charging.map_or(motion, |charging| motion.with_charging(charging)),
            };
            let edge = Edge { level: Level::Exact, policy: PolicyVersion(0) };
            same(Friend::new(&edge.reveal(&fix, MonotonicMs(0)).unwrap(), Meters(distance)))?;
        }

        #[test]
        fn any_numbers_are_written_as_serde_writes_them(
            [lat, lon, distance_m] in any::<[f64; 3]>(), [accuracy_m, speed_mps, heading_deg] in any::<[Option<f32>; 3]>(),
        ) {
            let (id, battery_pct) = (UserId(7), Some(100));
            let charging = None;
            same(Friend { id, lat, lon, ts: 0, distance_m, accuracy_m, speed_mps, heading_deg, battery_pct, charging })?;
        }

        /// Every field has two values, so that a text is often that of another frame but for one of them.
        #[test]
        fn a_remembered_text_is_that_of_this_very_frame(
            told in proptest::collection::vec((any::<[bool; 9]>(), 0.0..10_000.0), 1..200), texts in 0..4usize,
        ) {
            let mut remembered = if texts == 0 { FriendTexts::default() } else { FriendTexts::new(texts) };
            for ([id, lat, lon, ts, accuracy, speed, heading, battery, charging], distance_m) in told {
                let frame = ServerFrame::Friend(Friend {
                    id: UserId(u64::from(id)),
                    lat: if lat { 0.0 } else { -0.0 },
                    lon: if lon { 7.5 } else { 7.25 },
                    ts: u64::from(ts),
                    distance_m,
                    accuracy_m: accuracy.then_some(0.0),
                    speed_mps: Some(if speed { 0.0 } else { -0.0 }),
                    heading_deg: heading.then_some(1.0),
                    battery_pct: battery.then_some(0),
                    charging: charging.then_some(false),
                });
                let mut text = b"before".to_vec();
                remembered.encode_into(&frame, &mut text);
                prop_assert_eq!(String::from_utf8(text).unwrap(), format!("before{}", frame.encode()));
            }
        }
    }
}
