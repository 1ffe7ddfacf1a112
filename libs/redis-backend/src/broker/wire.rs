//! What goes over a connection to a pub/sub node: RESP2, commands out, frames in.

use std::io::Write as _;

use bytes::{Buf as _, BytesMut};
use redis_protocol::resp2::decode::decode_range;
use redis_protocol::resp2::types::RangeFrame;

/// One command.
pub(crate) fn command(out: &mut BytesMut, words: &[&[u8]]) {
    number(out, b'*', words.len());
    for word in words {
        number(out, b'$', word.len());
        out.extend_from_slice(word);
        out.extend_from_slice(b"\r\n");
    }
}

fn number(out: &mut BytesMut, kind: u8, number: usize) {
    // A buffer on the stack holds every line that this writes.
    let mut line = [0; 24];
    let mut rest = &mut line[..];
    // Cannot fail: 20 digits, the kind and the line's end fit.
    let _ = write!(rest, "{}{number}\r\n", char::from(kind));
    let left = rest.len();
    let used = line.len() - left;
    out.extend_from_slice(&line[..used]);
}

/// Takes the frames that are complete out of `buffer`. `Err` if these bytes are not RESP2: the connection is lost.
pub(crate) fn frames(buffer: &mut BytesMut, mut each: impl FnMut(&[u8], RangeFrame)) -> Result<(), Lost> {
    let mut at = 0;
    while at < buffer.len() {
        match decode_range(&buffer[at..]) {
            Ok(Some((frame, length))) => {
                each(&buffer[at..at + length], frame);
                at += length;
            }
            Ok(None) => break,
            Err(_) => return Err(Lost("it does not speak RESP2")),
        }
    }
    buffer.advance(at);
    Ok(())
}

/// Why a connection has to be made again.
#[derive(Debug)]
pub(crate) struct Lost(pub(crate) &'static str);

impl From<std::io::Error> for Lost {
    fn from(_: std::io::Error) -> Lost {
        Lost("the connection broke")
    }
}
