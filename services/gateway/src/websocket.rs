//! The server's side of RFC 6455 on a stream that has been upgraded: text in, text out, no extensions.
//!
//! By hand, because what a general library does for every write (wakers of its own, a flush, a copy of each frame) costs
//! a push as much as making it does, and its buffers are most of an idle connection's memory. Here an idle connection
//! holds no buffer at all.

use std::mem::{MaybeUninit, take};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::body::Bytes;
use protocol::client::{FriendTexts, ServerFrame};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::tcp::OwnedReadHalf;

/// Bytes read at a time, on the stack: a `location` frame is about 120.
const READ_BYTES: usize = 4 * 1_024;

const FIN: u8 = 0x80;
const RESERVED: u8 = 0x70;
const MASKED: u8 = 0x80;
const CONTINUATION: u8 = 0x0;
const TEXT: u8 = 0x1;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xa;
/// Bytes of a control frame's payload.
const CONTROL_BYTES: usize = 125;

/// What a client said.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// A whole message.
    Text(String),
    /// To be answered with the same.
    Ping(Vec<u8>),
    /// An answer, or a sign of life.
    Pong,
    /// It closes, with this code if it gave one: to be answered with the same, and nothing after it.
    Close(Option<u16>),
}

/// Why nothing more can be heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    /// The connection is gone.
    Gone,
    /// Against RFC 6455, or no text.
    Rules,
    /// A message above the limit.
    TooBig,
}

/// The client's half of an upgraded connection.
pub(crate) struct Incoming {
    stream: OwnedReadHalf,
    inbox: Inbox,
}

impl Incoming {
    /// `ahead` was read together with the request; messages are of at most `message_bytes`.
    pub(crate) fn new(stream: OwnedReadHalf, ahead: &Bytes, message_bytes: usize) -> Incoming {
        let mut inbox = Inbox::new(message_bytes);
        inbox.add(ahead);
        Incoming { stream, inbox }
    }

    /// The next thing that the client says. After [`Broken`] only [`Incoming::poll_discard`] makes sense.
    pub(crate) fn poll_heard(&mut self, cx: &mut Context<'_>) -> Poll<Result<Heard, Broken>> {
        loop {
            if let Some(heard) = self.inbox.next()? {
                return Poll::Ready(Ok(heard));
            }
            let inbox = &mut self.inbox;
            ready!(poll_read(&mut self.stream, cx, |bytes| inbox.add(bytes)))?;
        }
    }

    /// Reads something, and how many bytes it was, without looking at it.
    pub(crate) fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, Broken>> {
        let mut read = 0;
        ready!(poll_read(&mut self.stream, cx, |bytes| read = bytes.len()))?;
        Poll::Ready(Ok(read))
    }

    /// Waits until the kernel has room for the other half, or the connection has ended.
    pub(crate) async fn has_room(&self) {
        // An error shows at the next write.
        let _ = self.stream.as_ref().writable().await;
    }
}

fn poll_read(stream: &mut OwnedReadHalf, cx: &mut Context<'_>, take: impl FnOnce(&[u8])) -> Poll<Result<(), Broken>> {
    let mut space = [MaybeUninit::uninit(); READ_BYTES];
    let mut read = ReadBuf::uninit(&mut space);
    let done = ready!(Pin::new(stream).poll_read(cx, &mut read));
    if done.is_err() || read.filled().is_empty() {
        return Poll::Ready(Err(Broken::Gone));
    }
    take(read.filled());
    Poll::Ready(Ok(()))
}

/// Room for a frame with its head; a friend is usually below.
pub(crate) const FRAME_BYTES: usize = 256;

/// Appends a frame.
pub(crate) fn push(out: &mut Vec<u8>, frame: &ServerFrame) {
    push_text(out, |out| frame.encode_into(out));
}

/// Appends a frame that many are sent but for the distance.
pub(crate) fn push_news(out: &mut Vec<u8>, frame: &ServerFrame, texts: &mut FriendTexts) {
    push_text(out, |out| texts.encode_into(frame, out));
}

/// Appends the answer to a ping, of at most 125 bytes.
pub(crate) fn push_pong(out: &mut Vec<u8>, payload: &[u8]) {
    push_control(out, PONG, payload);
}

/// Appends a ping.
pub(crate) fn push_ping(out: &mut Vec<u8>) {
    push_control(out, PING, &[]);
}

/// Appends a close, with a reason of at most 123 bytes; nothing may follow it.
pub(crate) fn push_close(out: &mut Vec<u8>, code: Option<u16>, reason: &str) {
    let code = code.map(u16::to_be_bytes);
    let payload = [code.as_ref().map_or(&[][..], |code| &code[..]), reason.as_bytes()].concat();
    push_control(out, CLOSE, &payload);
}

/// Appends a text message; its head is put before it when its length is known.
fn push_text(out: &mut Vec<u8>, encode: impl FnOnce(&mut Vec<u8>)) {
    let at = out.len();
    // The head of a message from 126 bytes to 64 KiB, which most are.
    out.extend_from_slice(&[FIN | TEXT, 126, 0, 0]);
    encode(out);
    let length = out.len() - at - 4;
    if let Ok(short @ 0..126) = u8::try_from(length) {
        out.copy_within(at + 4.., at + 2);
        out.truncate(at + 2 + length);
        out[at + 1] = short;
    } else if let Ok(medium) = u16::try_from(length) {
        out[at + 2..at + 4].copy_from_slice(&medium.to_be_bytes());
    } else {
        out[at + 1] = 127;
        out.splice(at + 2..at + 4, (length as u64).to_be_bytes());
    }
}

fn push_control(out: &mut Vec<u8>, opcode: u8, payload: &[u8]) {
    debug_assert!(payload.len() <= CONTROL_BYTES);
    out.extend_from_slice(&[FIN | opcode, payload.len() as u8]);
    out.extend_from_slice(payload);
}

/// What was read and not yet understood: part of a frame, or frames behind the one that is looked at.
struct Inbox {
    bytes: Vec<u8>,
    /// So much of it is done with.
    at: usize,
    /// The fragments of a message so far.
    message: Option<Vec<u8>>,
    max: usize,
}

/// The head of a frame.
struct Head {
    last: bool,
    opcode: u8,
    /// Bytes of the head itself.
    bytes: usize,
    payload: usize,
    mask: [u8; 4],
}

impl Inbox {
    fn new(max: usize) -> Inbox {
        Inbox { bytes: Vec::new(), at: 0, message: None, max }
    }

    fn add(&mut self, bytes: &[u8]) {
        self.bytes.drain(..take(&mut self.at));
        self.bytes.extend_from_slice(bytes);
    }

    /// The next thing that is complete.
    fn next(&mut self) -> Result<Option<Heard>, Broken> {
        while self.at < self.bytes.len() {
            let Some(head) = self.head()? else { return Ok(None) };
            if self.bytes.len() - self.at < head.bytes + head.payload {
                return Ok(None);
            }
            let payload = self.payload(&head);
            if let Some(heard) = self.understand(&head, payload)? {
                return Ok(Some(heard));
            }
        }
        Ok(None)
    }

    /// The head of the next frame, if it is all there; refused as soon as enough of it is there to see that it is wrong.
    fn head(&self) -> Result<Option<Head>, Broken> {
        let bytes = &self.bytes[self.at..];
        let [first, second, rest @ ..] = bytes else { return Ok(None) };
        let (last, opcode, announced) = (first & FIN != 0, first & !(FIN | RESERVED), second & !MASKED);
        let is_control = opcode >= CLOSE;
        let follows = match opcode {
            CONTINUATION => self.message.is_some(),
            TEXT => self.message.is_none(),
            CLOSE | PING | PONG => last && usize::from(announced) <= CONTROL_BYTES,
            _ => false,
        };
        if first & RESERVED != 0 || second & MASKED == 0 || !follows {
            return Err(Broken::Rules);
        }
        let (payload, rest) = match (announced, rest) {
            (126, [a, b, rest @ ..]) => (u64::from(u16::from_be_bytes([*a, *b])), rest),
            (127, [a, b, c, d, e, f, g, h, rest @ ..]) => (u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]), rest),
            (126 | 127, _) => return Ok(None),
            (short, rest) => (u64::from(short), rest),
        };
        let before = self.message.as_ref().filter(|_| !is_control).map_or(0, Vec::len);
        let payload = usize::try_from(payload).map_err(|_| Broken::TooBig)?;
        if payload > self.max - before {
            return Err(Broken::TooBig);
        }
        let Some((mask, rest)) = rest.split_first_chunk() else { return Ok(None) };
        Ok(Some(Head { last, opcode, bytes: bytes.len() - rest.len(), payload, mask: *mask }))
    }

    /// Takes the frame out; what the client wrote is what is returned.
    fn payload(&mut self, head: &Head) -> Vec<u8> {
        let (from, to) = (self.at + head.bytes, self.at + head.bytes + head.payload);
        let mut payload = if self.at == 0 && to == self.bytes.len() {
            // As it nearly always is: no copy into another allocation.
            let mut all = take(&mut self.bytes);
            all.drain(..from);
            all
        } else {
            self.at = to;
            self.bytes[from..to].to_vec()
        };
        if self.at == self.bytes.len() {
            (self.bytes, self.at) = (Vec::new(), 0);
        }
        payload.iter_mut().zip(head.mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
        payload
    }

    fn understand(&mut self, head: &Head, payload: Vec<u8>) -> Result<Option<Heard>, Broken> {
        match head.opcode {
            PING => Ok(Some(Heard::Ping(payload))),
            PONG => Ok(Some(Heard::Pong)),
            CLOSE => close_code(&payload).map(|code| Some(Heard::Close(code))),
            _ => {
                let message = match self.message.take() {
                    Some(mut message) => {
                        message.extend_from_slice(&payload);
                        message
                    }
                    None => payload,
                };
                if head.last {
                    return String::from_utf8(message).map(|text| Some(Heard::Text(text))).map_err(|_| Broken::Rules);
                }
                self.message = Some(message);
                Ok(None)
            }
        }
    }
}

/// The code in a close, which must be one that may be sent, followed by text.
fn close_code(payload: &[u8]) -> Result<Option<u16>, Broken> {
    let Some((code, reason)) = payload.split_first_chunk() else {
        return if payload.is_empty() { Ok(None) } else { Err(Broken::Rules) };
    };
    let code = u16::from_be_bytes(*code);
    let may_be_sent = matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999);
    if may_be_sent && str::from_utf8(reason).is_ok() { Ok(Some(code)) } else { Err(Broken::Rules) }
}
