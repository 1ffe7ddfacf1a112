//! A TCP connection that never waits, and what it could not write yet.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with};

/// What waits for one peer at most: who does not read that much is no longer served.
const UNSENT_BYTES: usize = 256 * 1024;

/// A connection and its unsent bytes.
pub(crate) struct Stream {
    tcp: TcpStream,
    unsent: Vec<u8>,
}

/// What a read found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// So many bytes.
    Bytes(usize),
    /// Nothing for now.
    Nothing,
    /// The peer ended the connection.
    End,
}

impl Stream {
    /// Of an accepted connection.
    pub(crate) fn of(tcp: TcpStream) -> io::Result<Stream> {
        tcp.set_nonblocking(true)?;
        tcp.set_nodelay(true)?;
        Ok(Stream { tcp, unsent: Vec::new() })
    }

    /// Begins to connect: it can be written to once it is, or reading finds why not.
    pub(crate) fn connect(to: SocketAddr) -> io::Result<Stream> {
        let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let socket = socket_with(family, SocketType::STREAM, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC, None)?;
        match connect(&socket, &to) {
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(error) => return Err(error.into()),
        }
        let tcp = TcpStream::from(socket);
        tcp.set_nodelay(true)?;
        Ok(Stream { tcp, unsent: Vec::new() })
    }

    /// Why the connection was not made, if it was not.
    pub(crate) fn failure(&self) -> io::Result<()> {
        self.tcp.take_error()?.map_or(Ok(()), Err)
    }

    /// One read.
    pub(crate) fn read(&mut self, into: &mut [u8]) -> io::Result<Found> {
        match self.tcp.read(into) {
            Ok(0) => Ok(Found::End),
            Ok(read) => Ok(Found::Bytes(read)),
            Err(error) if is_later(&error) => Ok(Found::Nothing),
            Err(error) => Err(error),
        }
    }

    /// Puts bytes behind those that wait; an error if that is more than a peer that reads lets come together.
    pub(crate) fn queue(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.unsent.len() + bytes.len() > UNSENT_BYTES {
            return Err(ErrorKind::OutOfMemory.into());
        }
        self.unsent.extend_from_slice(bytes);
        Ok(())
    }

    /// One write of everything that waits. True if the kernel took it all.
    pub(crate) fn flush(&mut self) -> io::Result<bool> {
        let taken = match self.tcp.write(&self.unsent) {
            Ok(taken) => taken,
            Err(error) if is_later(&error) => 0,
            Err(error) => return Err(error),
        };
        self.unsent.drain(..taken);
        Ok(self.unsent.is_empty())
    }

    /// One write, at once. True if the kernel took it all; the rest waits.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<bool> {
        if self.has_unsent() {
            self.queue(bytes)?;
            return Ok(false);
        }
        let taken = match self.tcp.write(bytes) {
            Ok(taken) => taken,
            Err(error) if is_later(&error) => 0,
            Err(error) => return Err(error),
        };
        if taken < bytes.len() {
            self.queue(&bytes[taken..])?;
        }
        Ok(taken == bytes.len())
    }

    /// Whether something waits.
    pub(crate) fn has_unsent(&self) -> bool {
        !self.unsent.is_empty()
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.tcp.as_fd()
    }
}

fn is_later(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted | ErrorKind::NotConnected)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn what_the_kernel_does_not_take_waits_in_order_and_not_without_end() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut reader = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let mut stream = Stream::of(listener.accept().unwrap().0).unwrap();
        let chunk: Vec<u8> = (0..=255).cycle().take(100_000).collect();
        let mut sent = 0;
        while !stream.has_unsent() {
            stream.send(&chunk).unwrap();
            sent += chunk.len();
        }
        stream.send(&chunk).unwrap();
        sent += chunk.len();
        let mut got = Vec::new();
        let mut buffer = vec![0; 65_536];
        while got.len() < sent {
            let read = reader.read(&mut buffer).unwrap();
            got.extend_from_slice(&buffer[..read]);
            stream.flush().unwrap();
        }
        assert!(!stream.has_unsent());
        assert!(got.chunks(chunk.len()).all(|part| part == chunk));
        let refused = (0..1_000).find_map(|_| stream.send(&chunk).err()).unwrap();
        assert_eq!(refused.kind(), ErrorKind::OutOfMemory);
    }
}
