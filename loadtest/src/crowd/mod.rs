//! Many people's connections on one thread: connects, sends positions, reads what comes and counts it.
//!
//! It knows the wire and nothing of why: who connects when, and what is to be measured, is its [`Watcher`]'s.

mod link;
pub(crate) mod push;

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Result;
use serde::Serialize;

use link::Link;
pub(crate) use link::{End, Stage};
use push::Push;

use crate::clock::{At, Clock};
use crate::raw::frames::{self, CLOSE, PING, PONG, TEXT};
use crate::raw::handshake;
use crate::raw::poll::Poll;
use crate::raw::stream::{Found, Stream};
use crate::scene::Spot;

/// Read at a time.
const READ_BYTES: usize = 64 * 1024;
const SWITCHING: u16 = 101;

/// What went over the sockets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Traffic {
    /// Positions sent, those of `init` not counted.
    pub updates: u64,
    /// `friend` frames.
    pub friend: u64,
    /// `gone` frames.
    pub gone: u64,
    /// `error` frames.
    pub error: u64,
    /// Any other frame.
    pub other: u64,
    /// Reads that brought something.
    pub reads: u64,
    /// Bytes read, with the frames' heads.
    pub bytes_in: u64,
    /// Bytes written, likewise.
    pub bytes_out: u64,
}

impl Traffic {
    /// The frames that a position causes.
    pub fn pushes(&self) -> u64 {
        self.friend + self.gone
    }

    /// What came on top of an earlier count.
    pub fn since(self, earlier: Traffic) -> Traffic {
        Traffic {
            updates: self.updates - earlier.updates,
            friend: self.friend - earlier.friend,
            gone: self.gone - earlier.gone,
            error: self.error - earlier.error,
            other: self.other - earlier.other,
            reads: self.reads - earlier.reads,
            bytes_in: self.bytes_in - earlier.bytes_in,
            bytes_out: self.bytes_out - earlier.bytes_out,
        }
    }

    /// Both together.
    pub fn and(self, other: Traffic) -> Traffic {
        Traffic {
            updates: self.updates + other.updates,
            friend: self.friend + other.friend,
            gone: self.gone + other.gone,
            error: self.error + other.error,
            other: self.other + other.other,
            reads: self.reads + other.reads,
            bytes_in: self.bytes_in + other.bytes_in,
            bytes_out: self.bytes_out + other.bytes_out,
        }
    }
}

/// Is told what happens, while it happens.
pub(crate) trait Watcher {
    /// This link's list has come.
    fn live(&mut self, link: u32, began: At, said: At, now: At);
    /// A `friend` frame has come to this link.
    fn pushed(&mut self, link: u32, push: Push, now: At);
    /// A link is away now.
    fn ended(&mut self, link: u32, stage: Stage, end: End, now: At);
}

/// Where links go and what they show.
pub(crate) trait Way {
    /// The gateway.
    fn address(&self, person: u32) -> SocketAddr;
    /// Host, port and path, as a request names them.
    fn names(&self, person: u32) -> (&str, &str);
    /// What this person shows.
    fn token(&self, person: u32) -> String;
    /// Where this person stands.
    fn spot(&self, person: u32) -> Spot;
}

/// All links of one thread.
pub(crate) struct Crowd<'a> {
    way: &'a dyn Way,
    clock: Clock,
    /// Unix microseconds at the clock's zero.
    epoch_us: u64,
    poll: Poll,
    links: Vec<Link>,
    buffer: Vec<u8>,
    text: Vec<u8>,
    frame: Vec<u8>,
    mask: u32,
    pub(crate) traffic: Traffic,
}

impl<'a> Crowd<'a> {
    /// Nobody is connected yet.
    pub(crate) fn new(way: &'a dyn Way, people: &[u32], clock: Clock, epoch_us: u64) -> Result<Crowd<'a>> {
        Ok(Crowd {
            way,
            clock,
            epoch_us,
            poll: Poll::new()?,
            links: people.iter().map(|&person| Link::new(person)).collect(),
            buffer: vec![0; READ_BYTES],
            text: Vec::new(),
            frame: Vec::new(),
            mask: 0x9e37_79b9,
            traffic: Traffic::default(),
        })
    }

    /// How many links there are, connected or not.
    pub(crate) fn len(&self) -> u32 {
        self.links.len() as u32
    }

    pub(crate) fn stage(&self, link: u32) -> Stage {
        self.links[link as usize].stage
    }

    pub(crate) fn person(&self, link: u32) -> u32 {
        self.links[link as usize].person
    }

    /// Begins to connect a link that is away.
    pub(crate) fn connect(&mut self, at: u32, watcher: &mut impl Watcher) {
        let now = self.clock.now();
        let link = &mut self.links[at as usize];
        link.began = now;
        link.stage = Stage::Connecting;
        let stream = Stream::connect(self.way.address(link.person));
        let added = stream.and_then(|stream| {
            self.poll.add(&stream, at.into(), true)?;
            link.wants_room = true;
            link.stream = Some(stream);
            Ok(())
        });
        if added.is_err() {
            self.end(at, End::Broken, watcher);
        }
    }

    /// Cuts a link: the server finds out by itself.
    pub(crate) fn cut(&mut self, at: u32) {
        let link = &mut self.links[at as usize];
        (link.stage, link.stream) = (Stage::Away, None);
        link.input.clear();
    }

    /// Sends a position that was to be sent at this moment, and tells the moment that its pushes will show: a later one
    /// if the person has sent another in the same millisecond. `None` if the link is not live.
    pub(crate) fn say(&mut self, at: u32, intended: At, watcher: &mut impl Watcher) -> Option<At> {
        if self.links[at as usize].stage != Stage::Live {
            return None;
        }
        match self.send_position(at, "location", intended) {
            Ok(shown) => {
                self.traffic.updates += 1;
                Some(shown)
            }
            Err(end) => {
                self.end(at, end, watcher);
                None
            }
        }
    }

    /// Waits until something comes, at most until this moment, and deals with it.
    pub(crate) fn turn(&mut self, until: At, watcher: &mut impl Watcher) -> Result<()> {
        let patience = until.since(self.clock.now());
        for at in 0..self.poll.wait(Some(patience))? {
            let ready = self.poll.ready(at);
            let link = ready.mark as u32;
            let went = if ready.writable { self.has_room(link) } else { Ok(()) };
            let went = went.and_then(|()| if ready.readable { self.read(link, watcher) } else { Ok(()) });
            if let Err(end) = went {
                self.end(link, end, watcher);
            }
        }
        Ok(())
    }

    fn end(&mut self, at: u32, end: End, watcher: &mut impl Watcher) {
        let stage = self.links[at as usize].stage;
        if stage != Stage::Away {
            self.cut(at);
            watcher.ended(at, stage, end, self.clock.now());
        }
    }

    /// There is room to write: for the request, or for what waits.
    fn has_room(&mut self, at: u32) -> Result<(), End> {
        let link = &mut self.links[at as usize];
        let Some(stream) = link.stream.as_mut() else { return Ok(()) };
        if link.stage == Stage::Connecting {
            stream.failure().map_err(|_| End::Broken)?;
            let (authority, path) = self.way.names(link.person);
            let request = handshake::request(authority, path, &self.way.token(link.person));
            link.stage = Stage::Upgrading;
            return self.send(at, request.as_bytes());
        }
        if stream.flush().map_err(|_| End::Broken)? {
            link.wants_room = false;
            self.poll.want_room(&*stream, at.into(), false).map_err(|_| End::Broken)?;
        }
        Ok(())
    }

    fn send(&mut self, at: u32, bytes: &[u8]) -> Result<(), End> {
        let link = &mut self.links[at as usize];
        let Some(stream) = link.stream.as_mut() else { return Ok(()) };
        let needs_room = !stream.send(bytes).map_err(|_| End::Broken)?;
        self.traffic.bytes_out += bytes.len() as u64;
        if link.wants_room != needs_room {
            link.wants_room = needs_room;
            self.poll.want_room(&*stream, at.into(), needs_room).map_err(|_| End::Broken)?;
        }
        Ok(())
    }

    fn send_position(&mut self, at: u32, kind: &str, intended: At) -> Result<At, End> {
        let link = &mut self.links[at as usize];
        let mut intended_us = self.epoch_us + intended.0;
        // Two positions of one millisecond would count as one.
        if intended_us / 1_000 <= link.last_ms {
            intended_us = (link.last_ms + 1) * 1_000;
        }
        link.last_ms = intended_us / 1_000;
        let mut text = std::mem::take(&mut self.text);
        text.clear();
        push::write(&mut text, kind, self.way.spot(link.person), intended_us);
        let sent = self.send_masked(at, TEXT, &text);
        self.text = text;
        sent.map(|()| At(intended_us - self.epoch_us))
    }

    fn send_masked(&mut self, at: u32, opcode: u8, payload: &[u8]) -> Result<(), End> {
        // Any mask is as good as another where nobody listens; it has to be there to be taken off.
        self.mask = self.mask.wrapping_mul(0x0019_660d).wrapping_add(0x3c6e_f35f);
        let mut frame = std::mem::take(&mut self.frame);
        frame.clear();
        frames::write_masked(&mut frame, opcode, payload, self.mask.to_ne_bytes());
        let sent = self.send(at, &frame);
        self.frame = frame;
        sent
    }

    fn read(&mut self, at: u32, watcher: &mut impl Watcher) -> Result<(), End> {
        let link = &mut self.links[at as usize];
        let Some(stream) = link.stream.as_mut() else { return Ok(()) };
        let mut buffer = std::mem::take(&mut self.buffer);
        let taken = match stream.read(&mut buffer) {
            Ok(Found::Bytes(read)) => {
                self.traffic.reads += 1;
                self.traffic.bytes_in += read as u64;
                let now = self.clock.now();
                if link.input.is_empty() {
                    self.take(at, &buffer[..read], now, watcher)
                } else {
                    let mut all = std::mem::take(&mut link.input);
                    all.extend_from_slice(&buffer[..read]);
                    self.take(at, &all, now, watcher)
                }
            }
            Ok(Found::Nothing) => Ok(()),
            Ok(Found::End) => Err(End::Closed(None)),
            Err(_) => Err(End::Broken),
        };
        self.buffer = buffer;
        taken
    }

    fn take(&mut self, at: u32, bytes: &[u8], now: At, watcher: &mut impl Watcher) -> Result<(), End> {
        let mut begin = 0;
        if self.stage(at) == Stage::Upgrading {
            let answer = handshake::answer(bytes).map_err(|_| End::Nonsense)?;
            if let Some(answer) = answer {
                if answer.status != SWITCHING {
                    return Err(End::Refused { status: answer.status, retry_after_s: answer.retry_after_s });
                }
                begin = answer.rest;
                self.links[at as usize].stage = Stage::Listing;
                self.links[at as usize].said = now;
                self.send_position(at, "init", now)?;
            }
        }
        if self.stage(at) != Stage::Upgrading {
            while let Some(frame) = frames::first(&bytes[begin..]).map_err(|_| End::Nonsense)? {
                let payload = &bytes[begin + frame.payload..begin + frame.end];
                begin += frame.end;
                self.hear(at, frame.opcode, payload, now, watcher)?;
            }
        }
        self.links[at as usize].input.extend_from_slice(&bytes[begin..]);
        Ok(())
    }

    fn hear(&mut self, at: u32, opcode: u8, payload: &[u8], now: At, watcher: &mut impl Watcher) -> Result<(), End> {
        match opcode {
            TEXT => {}
            PING => return self.send_masked(at, PONG, payload),
            CLOSE => {
                let code = payload.first_chunk().map(|code| u16::from_be_bytes(*code));
                return Err(End::Closed(code));
            }
            _ => return Ok(()),
        }
        if let Some(push) = push::read(payload) {
            self.traffic.friend += 1;
            watcher.pushed(at, push, now);
            return Ok(());
        }
        let is =
            |kind: &str| payload.strip_prefix(b"{\"type\":\"").is_some_and(|rest| rest.starts_with(kind.as_bytes()));
        if is("friend\"") || is("gone") {
            // A `friend` frame spelled otherwise would go uncounted in ages: better none of them than some.
            if !is("gone") {
                return Err(End::Nonsense);
            }
            self.traffic.gone += 1;
        } else if is("nearby") && self.stage(at) == Stage::Listing {
            let link = &mut self.links[at as usize];
            link.stage = Stage::Live;
            watcher.live(at, link.began, link.said, now);
        } else if is("error") {
            self.traffic.error += 1;
        } else {
            self.traffic.other += 1;
        }
        Ok(())
    }
}

/// How long a turn may last when nothing else is due: progress is looked at as often.
pub(crate) const GLANCE: Duration = Duration::from_millis(100);
