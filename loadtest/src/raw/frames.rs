//! WebSocket frames (RFC 6455), as far as this protocol uses them: whole messages, no extensions.

/// The opcodes in use.
pub(crate) const TEXT: u8 = 1;
/// The peer ends the connection.
pub(crate) const CLOSE: u8 = 8;
/// The peer asks for a pong.
pub(crate) const PING: u8 = 9;
/// The answer to a ping.
pub(crate) const PONG: u8 = 10;

/// Longer messages are not this protocol's.
const MESSAGE_BYTES: usize = 1024 * 1024;
const MASKED: u8 = 0x80;
const FINAL: u8 = 0x80;

/// Where a frame's parts lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    /// The kind of message.
    pub(crate) opcode: u8,
    /// Where the payload begins.
    pub(crate) payload: usize,
    /// Where the frame ends.
    pub(crate) end: usize,
    /// What the payload is masked with, if it is.
    pub(crate) mask: Option<[u8; 4]>,
}

/// Not a frame that this protocol knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BadFrame;

/// The first frame of `bytes`; `None` if not all of it has come yet.
pub(crate) fn first(bytes: &[u8]) -> Result<Option<Frame>, BadFrame> {
    let [begin, length, ..] = *bytes else { return Ok(None) };
    // Extensions and parts of messages were not agreed on.
    if begin & 0xf0 != FINAL {
        return Err(BadFrame);
    }
    let (length, mut at) = match length & !MASKED {
        126 => match bytes.get(2..4) {
            Some(&[high, low]) => (usize::from(u16::from_be_bytes([high, low])), 4),
            _ => return Ok(None),
        },
        127 => match bytes.get(2..10).and_then(|bytes| <[u8; 8]>::try_from(bytes).ok()) {
            Some(bytes) => (usize::try_from(u64::from_be_bytes(bytes)).map_err(|_| BadFrame)?, 10),
            None => return Ok(None),
        },
        short => (usize::from(short), 2),
    };
    if length > MESSAGE_BYTES {
        return Err(BadFrame);
    }
    let mut mask = None;
    if bytes[1] & MASKED != 0 {
        mask = bytes.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
        at += 4;
    }
    let end = at + length;
    Ok((bytes.len() >= end).then_some(Frame { opcode: begin & 0x0f, payload: at, end, mask }))
}

/// Takes the mask off.
pub(crate) fn unmask(payload: &mut [u8], mask: [u8; 4]) {
    for (byte, mask) in payload.iter_mut().zip(mask.into_iter().cycle()) {
        *byte ^= mask;
    }
}

/// Appends a server's frame, which is not masked.
pub(crate) fn write(out: &mut Vec<u8>, opcode: u8, payload: &[u8]) {
    head(out, opcode, payload.len(), 0);
    out.extend_from_slice(payload);
}

/// Appends a client's frame, which is.
pub(crate) fn write_masked(out: &mut Vec<u8>, opcode: u8, payload: &[u8], mask: [u8; 4]) {
    head(out, opcode, payload.len(), MASKED);
    out.extend_from_slice(&mask);
    let begin = out.len();
    out.extend_from_slice(payload);
    unmask(&mut out[begin..], mask);
}

fn head(out: &mut Vec<u8>, opcode: u8, length: usize, masked: u8) {
    out.push(FINAL | opcode);
    match length {
        0..126 => out.push(masked | length as u8),
        126..65_536 => {
            out.push(masked | 126);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        _ => {
            out.push(masked | 127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_of_every_length_come_back_whole_and_only_when_all_is_there() {
        for length in [0, 1, 125, 126, 127, 65_535, 65_536, 100_000] {
            let payload: Vec<u8> = (0..length).map(|byte| byte as u8).collect();
            for mask in [None, Some([1, 2, 3, 250])] {
                let mut wire = Vec::new();
                match mask {
                    None => write(&mut wire, TEXT, &payload),
                    Some(mask) => write_masked(&mut wire, TEXT, &payload, mask),
                }
                for cut in [0, 1, 2, 5, wire.len() - 1] {
                    assert_eq!(first(&wire[..cut.min(wire.len() - 1)]), Ok(None));
                }
                let frame = first(&wire).unwrap().unwrap();
                assert_eq!((frame.opcode, frame.end, frame.mask), (TEXT, wire.len(), mask));
                if let Some(mask) = mask {
                    unmask(&mut wire[frame.payload..frame.end], mask);
                }
                assert_eq!(&wire[frame.payload..frame.end], payload);
            }
        }
    }

    #[test]
    fn the_examples_of_the_standard() {
        let mut wire = Vec::new();
        write(&mut wire, TEXT, b"Hello");
        write_masked(&mut wire, PONG, b"Hello", [0x37, 0xfa, 0x21, 0x3d]);
        let wanted = [0x81, 5, 0x48, 0x65, 0x6c, 0x6c, 0x6f];
        let masked = [0x8a, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
        assert_eq!(wire, [&wanted[..], &masked[..]].concat());
    }

    #[test]
    fn what_was_not_agreed_on_is_no_frame() {
        for bad in [[0x01, 0], [0xc1, 0]] {
            assert_eq!(first(&bad), Err(BadFrame), "{bad:?}");
        }
        assert_eq!(first(&[0x81, 127, 0xff, 0, 0, 0, 0, 0, 0, 0]), Err(BadFrame));
    }
}
