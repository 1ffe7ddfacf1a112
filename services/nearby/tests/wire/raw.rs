//! Bytes on a TCP connection: for clients that do not speak as they should.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};

use crate::http::Answer;
use crate::site::Site;

/// A TCP connection that may read nothing for as long as it likes.
pub(crate) struct Raw {
    pub(crate) stream: TcpStream,
    buffered: Vec<u8>,
}

/// One frame from the server.
#[derive(Debug, PartialEq)]
pub(crate) struct Frame {
    pub(crate) first: u8,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    /// The code of a close frame.
    pub(crate) fn close_code(&self) -> Option<u16> {
        (self.first == 0x88).then(|| u16::from_be_bytes([self.payload[0], self.payload[1]]))
    }

    pub(crate) fn json(&self) -> Value {
        assert_eq!(self.first, 0x81, "{self:?}");
        serde_json::from_slice(&self.payload).unwrap()
    }
}

/// A masked frame; the mask is 0, so that the bytes are readable.
pub(crate) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = head(first, payload.len() as u64);
    bytes.extend_from_slice(payload);
    bytes
}

/// The head of a masked frame that announces so many bytes.
pub(crate) fn head(first: u8, length: u64) -> Vec<u8> {
    let mut bytes = vec![first];
    match length {
        0..=125 => bytes.push(0x80 | length as u8),
        126..=0xffff => {
            bytes.push(0x80 | 126);
            bytes.extend_from_slice(&(length as u16).to_be_bytes());
        }
        _ => {
            bytes.push(0x80 | 127);
            bytes.extend_from_slice(&length.to_be_bytes());
        }
    }
    bytes.extend_from_slice(&[0; 4]);
    bytes
}

impl Raw {
    pub(crate) async fn connect(address: SocketAddr) -> Raw {
        Raw { stream: TcpStream::connect(address).await.unwrap(), buffered: Vec::new() }
    }

    /// With a receive buffer of the least that the kernel gives.
    pub(crate) async fn narrow(address: SocketAddr) -> Raw {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_recv_buffer_size(1_024).unwrap();
        socket.connect(&address.into()).unwrap();
        socket.set_nonblocking(true).unwrap();
        Raw { stream: TcpStream::from_std(socket.into()).unwrap(), buffered: Vec::new() }
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// Sends until the server does not take any more, or all is sent.
    pub(crate) async fn try_send(&mut self, bytes: &[u8], patience: Duration) -> bool {
        matches!(timeout(patience, self.stream.write_all(bytes)).await, Ok(Ok(())))
    }

    /// Upgrades with this token and these headers.
    pub(crate) async fn upgrade(&mut self, site: &Site, user: u64, headers: &str) -> Answer {
        let token = site.token(user);
        let request = format!(
            "GET /v1/ws HTTP/1.1\r\nhost: nearby\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             authorization: Bearer {token}\r\n{headers}\r\n"
        );
        self.send(request.as_bytes()).await;
        let end = loop {
            match self.buffered.windows(4).position(|at| at == b"\r\n\r\n") {
                Some(end) => break end + 4,
                None => assert!(self.more().await, "{:?}", String::from_utf8_lossy(&self.buffered)),
            }
        };
        let head: Vec<u8> = self.buffered.drain(..end).collect();
        Answer::parse(&head).unwrap()
    }

    /// Reads on until these bytes came.
    pub(crate) async fn wait_for(&mut self, bytes: &[u8]) {
        while !self.buffered.windows(bytes.len()).any(|at| at == bytes) {
            assert!(self.more().await, "{:?}", String::from_utf8_lossy(&self.buffered));
        }
    }

    /// Whether the server has ended the connection; reads what there is.
    pub(crate) fn is_closed(&mut self) -> bool {
        let mut bytes = [0; 4_096];
        match self.stream.try_read(&mut bytes) {
            Ok(0) => true,
            Ok(read) => {
                self.buffered.extend_from_slice(&bytes[..read]);
                false
            }
            Err(error) => error.kind() != ErrorKind::WouldBlock,
        }
    }

    /// Bytes that the kernel holds on the way from the server to this client.
    pub(crate) async fn in_kernel(&self) -> usize {
        let (here, server) = (self.stream.local_addr().unwrap().port(), self.stream.peer_addr().unwrap().port());
        // The table is long when many connections have just ended, and this thread is also everybody else's.
        tokio::task::spawn_blocking(move || held_between(server, here)).await.unwrap()
    }

    /// Reads what there is; false at the end.
    async fn more(&mut self) -> bool {
        let mut bytes = [0; 4_096];
        match self.stream.read(&mut bytes).await {
            Ok(0) | Err(_) => false,
            Ok(read) => {
                self.buffered.extend_from_slice(&bytes[..read]);
                true
            }
        }
    }

    /// The next frame; `None` at the end.
    pub(crate) async fn frame(&mut self) -> Option<Frame> {
        let deadline = Instant::now() + crate::client::SOON;
        loop {
            if let Some(frame) = self.take_frame() {
                return Some(frame);
            }
            if !timeout_at(deadline, self.more()).await.expect("a frame or the end") {
                return None;
            }
        }
    }

    fn take_frame(&mut self) -> Option<Frame> {
        let (&first, &second) = (self.buffered.first()?, self.buffered.get(1)?);
        let (at, length) = match second {
            126 => (4, usize::from(u16::from_be_bytes([*self.buffered.get(2)?, *self.buffered.get(3)?]))),
            0..126 => (2, usize::from(second)),
            _ => panic!("a frame of this length, or masked, from the server"),
        };
        if self.buffered.len() < at + length {
            return None;
        }
        let payload = self.buffered[at..at + length].to_vec();
        self.buffered.drain(..at + length);
        Some(Frame { first, payload })
    }

    /// All frames up to the end, and the code of the close if there was one.
    pub(crate) async fn up_to_the_end(&mut self) -> (Vec<Frame>, Option<u16>) {
        let mut frames = Vec::new();
        while let Some(frame) = self.frame().await {
            if let Some(code) = frame.close_code() {
                return (frames, Some(code));
            }
            frames.push(frame);
        }
        (frames, None)
    }

    /// All bytes up to the end of the connection, which comes in time.
    pub(crate) async fn rest(&mut self, patience: Duration) -> Vec<u8> {
        timeout(patience, async { while self.more().await {} }).await.expect("the end of the connection");
        std::mem::take(&mut self.buffered)
    }
}

/// Bytes on their way from one port of this machine to another, by the kernel's table of connections.
fn held_between(from: u16, to: u16) -> usize {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let port = |address: &str| u16::from_str_radix(address.rsplit_once(':').unwrap().1, 16).unwrap();
    let mut held = 0;
    for line in table.lines().skip(1) {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (to_send, to_read) = fields[4].split_once(':').unwrap();
        let bytes = match (port(fields[1]), port(fields[2])) {
            (local, remote) if (local, remote) == (from, to) => to_send,
            (local, remote) if (local, remote) == (to, from) => to_read,
            _ => continue,
        };
        held += usize::from_str_radix(bytes, 16).unwrap();
    }
    held
}
