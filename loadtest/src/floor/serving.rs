//! The loop: read, tell, write.

use std::io;
use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use model::Position;

use super::Flush;
use super::board::{Board, Seen, write_end};
use crate::graph::Graph;
use crate::raw::digits::Scanner;
use crate::raw::frames::{self, CLOSE, PING, PONG, TEXT};
use crate::raw::handshake;
use crate::raw::poll::Poll;
use crate::raw::stream::{Found, Stream};

/// Marks that are no connection's.
const LISTENER: u64 = u64::MAX - 1;
const STDIN: u64 = u64::MAX - 2;
/// Connections that wait to be accepted.
const BACKLOG: i32 = 4_096;
/// Read at a time.
const READ_BYTES: usize = 16 * 1024;
/// A connection that sends no whole frame in so many bytes is closed.
const INPUT_BYTES: usize = 16 * 1024;

/// One client.
struct Client {
    stream: Stream,
    /// What came of a frame that is not whole yet.
    input: Vec<u8>,
    stage: Stage,
    /// Has pushes that wait for the end of the turn.
    is_due: bool,
    /// Is waited for until there is room to write.
    wants_room: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// No request yet.
    New,
    /// This person, who has not said `init` yet.
    Agreed(u32),
    /// This person.
    Live(u32),
}

/// The floor.
pub struct Floor {
    listener: TcpListener,
    poll: Poll,
    flush: Flush,
    board: Board,
    clients: Vec<Option<Client>>,
    free: Vec<u32>,
    /// The connection of each person who is live.
    client_of: Vec<Option<u32>>,
    /// Connections with pushes that wait for the end of the turn.
    due: Vec<u32>,
    buffer: Vec<u8>,
    text: Vec<u8>,
    wire: Vec<u8>,
    writes: u64,
    pushes: u64,
    is_over: bool,
}

/// Why a connection ends; what exactly was wrong concerns nobody here.
struct Ended;

impl From<io::Error> for Ended {
    fn from(_: io::Error) -> Ended {
        Ended
    }
}

impl Floor {
    /// For these friends, whose tokens are their user ids.
    pub fn new(listener: TcpListener, graph: Graph, user_base: u64, flush: Flush) -> Result<Floor> {
        rustix::net::listen(&listener, BACKLOG)?;
        listener.set_nonblocking(true)?;
        let poll = Poll::new()?;
        poll.add(&listener, LISTENER, false)?;
        Ok(Floor {
            listener,
            poll,
            flush,
            client_of: vec![None; graph.people()],
            board: Board::new(graph, user_base),
            clients: Vec::new(),
            free: Vec::new(),
            due: Vec::new(),
            buffer: vec![0; READ_BYTES],
            text: Vec::new(),
            wire: Vec::new(),
            writes: 0,
            pushes: 0,
            is_over: false,
        })
    }

    /// Stops serving when the standard input ends.
    pub fn stop_with_stdin(&mut self) -> Result<()> {
        self.poll.add(io::stdin(), STDIN, false).context("the standard input cannot be waited for")
    }

    /// Serves until the standard input ends, if that is waited for.
    pub fn serve(&mut self) -> Result<()> {
        while !self.is_over {
            self.turn(None)?;
        }
        Ok(())
    }

    /// Serves until told to stop, which is looked for every 10 ms.
    pub fn serve_until(&mut self, stop: &AtomicBool) -> Result<()> {
        while !stop.load(Ordering::Relaxed) {
            self.turn(Some(Duration::from_millis(10)))?;
        }
        Ok(())
    }

    /// Pushes made, and writes they were handed to the kernel in.
    pub fn pushes_and_writes(&self) -> (u64, u64) {
        (self.pushes, self.writes)
    }

    /// Waits for something to do, and does it.
    pub(crate) fn turn(&mut self, patience: Option<Duration>) -> Result<()> {
        for at in 0..self.poll.wait(patience)? {
            let ready = self.poll.ready(at);
            match ready.mark {
                LISTENER => self.accept()?,
                STDIN => self.is_over = true,
                client => {
                    let client = client as u32;
                    if ready.readable && self.read(client).is_err() {
                        self.close(client);
                    }
                    if ready.writable {
                        self.write_rest(client);
                    }
                }
            }
        }
        while let Some(client) = self.due.pop() {
            if let Some(to) = self.clients[client as usize].as_mut() {
                to.is_due = false;
            }
            self.write_rest(client);
        }
        Ok(())
    }

    fn accept(&mut self) -> Result<()> {
        while let Ok((tcp, _)) = self.listener.accept() {
            let stream = Stream::of(tcp)?;
            let client = self.free.pop().unwrap_or_else(|| {
                self.clients.push(None);
                self.clients.len() as u32 - 1
            });
            self.poll.add(&stream, client.into(), false)?;
            let new = Client { stream, input: Vec::new(), stage: Stage::New, is_due: false, wants_room: false };
            self.clients[client as usize] = Some(new);
        }
        Ok(())
    }

    fn close(&mut self, client: u32) {
        let Some(Client { stage, .. }) = self.clients[client as usize].take() else { return };
        self.free.push(client);
        if let Stage::Live(person) = stage
            && self.client_of[person as usize] == Some(client)
        {
            self.client_of[person as usize] = None;
            self.board.forget(person);
        }
    }

    fn read(&mut self, client: u32) -> Result<(), Ended> {
        let Some(from) = self.clients[client as usize].as_mut() else { return Ok(()) };
        let mut buffer = std::mem::take(&mut self.buffer);
        let found = from.stream.read(&mut buffer);
        let taken = match found {
            Ok(Found::Bytes(read)) if from.input.is_empty() => self.take(client, &mut buffer[..read]),
            Ok(Found::Bytes(read)) => {
                let mut all = std::mem::take(&mut from.input);
                all.extend_from_slice(&buffer[..read]);
                self.take(client, &mut all)
            }
            Ok(Found::Nothing) => Ok(()),
            Ok(Found::End) | Err(_) => Err(Ended),
        };
        self.buffer = buffer;
        taken
    }

    /// Takes in what came, and keeps what is not whole yet.
    fn take(&mut self, client: u32, bytes: &mut [u8]) -> Result<(), Ended> {
        let mut at = 0;
        if self.client(client)?.stage == Stage::New {
            let Some((answer, token, rest)) = handshake::agree(bytes).map_err(|_| Ended)? else {
                return self.keep(client, bytes);
            };
            let person = self.board.person(token).ok_or(Ended)?;
            at = rest;
            self.client(client)?.stage = Stage::Agreed(person);
            self.send(client, answer.as_bytes())?;
        }
        while let Some(frame) = frames::first(&bytes[at..]).map_err(|_| Ended)? {
            let payload = &mut bytes[at + frame.payload..at + frame.end];
            frames::unmask(payload, frame.mask.ok_or(Ended)?);
            at += frame.end;
            match frame.opcode {
                TEXT => self.hear(client, payload)?,
                PING => {
                    let mut pong = Vec::new();
                    frames::write(&mut pong, PONG, payload);
                    self.send(client, &pong)?;
                }
                CLOSE => {
                    let mut goodbye = Vec::new();
                    frames::write(&mut goodbye, CLOSE, payload);
                    self.send(client, &goodbye)?;
                    return Err(Ended);
                }
                _ => {}
            }
        }
        self.keep(client, &bytes[at..])
    }

    fn keep(&mut self, client: u32, bytes: &[u8]) -> Result<(), Ended> {
        if bytes.is_empty() {
            return Ok(());
        }
        let from = self.client(client)?;
        from.input.extend_from_slice(bytes);
        if from.input.len() > INPUT_BYTES { Err(Ended) } else { Ok(()) }
    }

    fn hear(&mut self, client: u32, text: &[u8]) -> Result<(), Ended> {
        let (stage, said) = (self.client(client)?.stage, said(text).ok_or(Ended)?);
        match (stage, said) {
            (Stage::Agreed(person), (true, seen)) => {
                self.board.put(person, seen);
                self.client(client)?.stage = Stage::Live(person);
                self.client_of[person as usize] = Some(client);
                let mut page = Vec::new();
                self.board.write_nearby(person, &mut page);
                let mut frame = Vec::new();
                frames::write(&mut frame, TEXT, &page);
                self.send(client, &frame)?;
                self.tell(person);
                Ok(())
            }
            (Stage::Live(person), (false, seen)) => {
                self.board.put(person, seen);
                self.tell(person);
                Ok(())
            }
            _ => Err(Ended),
        }
    }

    /// Tells the friends near of this person's position.
    fn tell(&mut self, person: u32) {
        let Floor { board, client_of, clients, due, text, wire, flush, poll, writes, pushes, .. } = self;
        text.clear();
        board.write_friend(person, text);
        let shared = text.len();
        board.for_each_near(person, |viewer, distance| {
            let Some(client) = client_of[viewer as usize] else { return };
            let Some(to) = clients[client as usize].as_mut() else { return };
            text.truncate(shared);
            write_end(distance, text);
            wire.clear();
            frames::write(wire, TEXT, text);
            *pushes += 1;
            // A client that failed is found by reading from it.
            match flush {
                Flush::Push => {
                    *writes += 1;
                    if to.stream.send(wire).is_ok_and(|all| !all) {
                        wait_for_room(poll, to, client);
                    }
                }
                Flush::Turn => {
                    let _ = to.stream.queue(wire);
                    if !std::mem::replace(&mut to.is_due, true) {
                        due.push(client);
                    }
                }
            }
        });
    }

    /// Writes what waits for a client, and goes on when there is room if there is none now.
    fn write_rest(&mut self, client: u32) {
        let Some(to) = self.clients[client as usize].as_mut() else { return };
        if to.stream.has_unsent() {
            self.writes += 1;
            if to.stream.flush().is_ok_and(|all| !all) {
                return wait_for_room(&self.poll, to, client);
            }
        }
        if to.wants_room {
            to.wants_room = false;
            let _ = self.poll.want_room(&to.stream, client.into(), false);
        }
    }

    fn send(&mut self, client: u32, bytes: &[u8]) -> Result<(), Ended> {
        let to = self.clients[client as usize].as_mut().ok_or(Ended)?;
        if !to.stream.send(bytes)? {
            wait_for_room(&self.poll, to, client);
        }
        Ok(())
    }

    fn client(&mut self, client: u32) -> Result<&mut Client, Ended> {
        self.clients[client as usize].as_mut().ok_or(Ended)
    }
}

fn wait_for_room(poll: &Poll, to: &mut Client, client: u32) {
    if !std::mem::replace(&mut to.wants_room, true) {
        let _ = poll.want_room(&to.stream, client.into(), true);
    }
}

/// `init` or not, and the position. Only in the order of fields in which the load tester writes them.
fn said(text: &[u8]) -> Option<(bool, Seen)> {
    let mut scanner = Scanner(text);
    scanner.skip(b"{\"type\":\"")?;
    let is_init = scanner.skip(b"init").is_some();
    if !is_init {
        scanner.skip(b"location")?;
    }
    scanner.skip(b"\",\"lat\":")?;
    let lat = scanner.degrees()?;
    scanner.skip(b",\"lon\":")?;
    let lon = scanner.degrees()?;
    scanner.skip(b",\"ts\":")?;
    let ts = scanner.number()?;
    scanner.skip(b"}")?;
    // As the server does, only text that is text.
    std::str::from_utf8(text).ok()?;
    Some((is_init, Seen::at(Position::from_e7(lat, lon).ok()?, ts)))
}
