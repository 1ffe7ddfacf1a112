//! A way to a server that can be hurt, as networks are: without any right on the machine, in this process.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::sleep;

/// What is read at once.
const CHUNK: usize = 64 * 1024;

/// What happens on the way. It holds for connections that are there and for those that are made, from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Everything passes.
    Open,
    /// Everything passes, so much later in each direction.
    Slow(Duration),
    /// What clients say stays on the way until this ends; connections can be made.
    NothingToServer,
    /// What the server says stays on the way until this ends.
    NothingToClients,
    /// Neither direction passes.
    Nothing,
    /// Connections end with a reset, also those that are made.
    Reset,
    /// Of Redis: a PING is answered, everything else is eaten. Who asks only whether it lives finds it well.
    OnlyPings,
    /// Of Redis: everything passes but messages to who has subscribed.
    NoMessages,
    /// Each chunk to the server arrives twice.
    Twice,
}

impl Way {
    fn holds(self, to_server: bool) -> bool {
        match self {
            Way::Nothing => true,
            Way::NothingToServer => to_server,
            Way::NothingToClients => !to_server,
            _ => false,
        }
    }
}

/// A port of 127.0.0.1 behind which is another server. Ends with all its connections when dropped.
pub struct Proxy {
    address: SocketAddr,
    way: watch::Sender<Way>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Proxy {
    /// To the server at `host:port`, on a free port, open.
    ///
    /// # Panics
    ///
    /// If there is no port, or no thread.
    pub fn to(server: &str) -> Proxy {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        listener.set_nonblocking(true).expect("a socket that does not block");
        let address = listener.local_addr().expect("an address");
        let (way, of) = watch::channel(Way::Open);
        let (stop, stopped) = oneshot::channel();
        let server = server.to_owned();
        // A runtime of its own: it works whatever the runtimes of tests do, and also between them.
        let run = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let listener = TcpListener::from_std(listener).expect("a listener");
                tokio::select! {
                    () = serve(listener, &server, of) => {}
                    _ = stopped => {}
                }
            });
        };
        Proxy { address, way, stop: Some(stop), thread: Some(thread::spawn(run)) }
    }

    /// `127.0.0.1:port`.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Changes what happens on the way.
    pub fn set(&self, way: Way) {
        self.way.send_replace(way);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It has nothing to say.
            let _ = thread.join();
        }
    }
}

async fn serve(listener: TcpListener, server: &str, way: watch::Receiver<Way>) {
    let mut connections = JoinSet::new();
    while let Ok((near, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        connections.spawn(carry(near, server.to_owned(), way.clone()));
    }
}

/// One connection. Whatever ends one half ends the other: what a server says at its end passes, then the client's ends.
async fn carry(near: TcpStream, server: String, way: watch::Receiver<Way>) {
    let mut reset = way.clone();
    let far = tokio::select! {
        far = TcpStream::connect(server) => far,
        _ = reset.wait_for(|way| *way == Way::Reset) => return torn(&near),
    };
    // The server refuses, and so does the way to it.
    let Ok(far) = far else { return torn(&near) };
    if near.set_nodelay(true).and(far.set_nodelay(true)).is_err() {
        return;
    }
    let (mut said, mut heard) = (way.clone(), way);
    let is_reset = tokio::select! {
        _ = to_server(&near, &far, &mut said) => false,
        _ = to_client(&far, &near, &mut heard) => false,
        _ = reset.wait_for(|way| *way == Way::Reset) => true,
    };
    if is_reset {
        torn(&near);
        torn(&far);
    }
}

/// Its end will be a reset.
fn torn(connection: &TcpStream) {
    // Then it is an ordinary end.
    let _ = connection.set_zero_linger();
}

async fn to_server(near: &TcpStream, far: &TcpStream, way: &mut watch::Receiver<Way>) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK];
    loop {
        let read = next(near, &mut chunk, way, true).await?;
        let said = &chunk[..read];
        let now = *way.borrow();
        match now {
            Way::Slow(by) => sleep(by).await,
            Way::OnlyPings => {
                for _ in 0..pings(said) {
                    // Who does not take so little is not there.
                    let _ = near.try_write(b"+PONG\r\n");
                }
                continue;
            }
            Way::Twice => write_all(far, said).await?,
            _ => {}
        }
        write_all(far, said).await?;
    }
}

async fn to_client(far: &TcpStream, near: &TcpStream, way: &mut watch::Receiver<Way>) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK];
    loop {
        let read = next(far, &mut chunk, way, false).await?;
        let said = &chunk[..read];
        let now = *way.borrow();
        match now {
            Way::Slow(by) => sleep(by).await,
            Way::OnlyPings => continue,
            // Messages come by themselves: a chunk that begins with one holds nothing else that anybody waits for.
            Way::NoMessages if said.starts_with(b"*3\r\n$7\r\nmessage") => continue,
            _ => {}
        }
        write_all(near, said).await?;
    }
}

/// What comes next and may pass. What is held stays in the kernel, so that it arrives, late and in order, as on a network
/// that is whole again.
async fn next(
    from: &TcpStream,
    chunk: &mut [u8],
    way: &mut watch::Receiver<Way>,
    to_server: bool,
) -> io::Result<usize> {
    loop {
        let passes = way.wait_for(|way| !way.holds(to_server)).await;
        passes.map_err(io::Error::other)?;
        let readable = tokio::select! {
            readable = from.readable() => readable,
            _ = way.changed() => continue,
        };
        readable?;
        // Both may have happened.
        if way.borrow().holds(to_server) {
            continue;
        }
        match from.try_read(chunk) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            other => return other,
        }
    }
}

async fn write_all(to: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        to.writable().await?;
        match to.try_write(bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn pings(said: &[u8]) -> usize {
    const PING: &[u8] = b"*1\r\n$4\r\nPING\r\n";
    said.windows(PING.len()).filter(|window| *window == PING).count()
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read, Write};
    use std::net::TcpStream;

    use super::*;
    use crate::redis::RedisServer;

    const PING: &[u8] = b"*1\r\n$4\r\nPING\r\n";
    const INCR: &[u8] = b"*2\r\n$4\r\nINCR\r\n$1\r\nn\r\n";

    fn client(proxy: &Proxy) -> TcpStream {
        let client = TcpStream::connect(proxy.address()).expect("a connection");
        client.set_read_timeout(Some(Duration::from_millis(300))).expect("a timeout");
        client
    }

    /// What the server answers within the client's patience.
    fn ask(client: &mut TcpStream, command: &[u8]) -> Result<String, ErrorKind> {
        client.write_all(command).map_err(|error| error.kind())?;
        hear(client)
    }

    fn hear(client: &mut TcpStream) -> Result<String, ErrorKind> {
        let mut answer = [0; 512];
        let read = client.read(&mut answer).map_err(|error| error.kind())?;
        Ok(String::from_utf8_lossy(&answer[..read]).into_owned())
    }

    #[test]
    fn what_is_held_arrives_later_and_once() {
        let server = RedisServer::start();
        let proxy = Proxy::to(&server.address());
        for (number, way) in [Way::NothingToServer, Way::NothingToClients, Way::Nothing].into_iter().enumerate() {
            let mut client = client(&proxy);
            assert_eq!(ask(&mut client, PING).as_deref(), Ok("+PONG\r\n"));
            proxy.set(way);
            assert_eq!(ask(&mut client, INCR), Err(ErrorKind::WouldBlock), "{way:?}");
            let arrived = server.command(&[b"GET", b"n"]) == format!("$1\r\n{}\r\n", number + 1).into_bytes();
            assert_eq!(arrived, way == Way::NothingToClients, "{way:?}");
            proxy.set(Way::Open);
            assert_eq!(hear(&mut client), Ok(format!(":{}\r\n", number + 1)), "{way:?}");
        }
    }

    #[test]
    fn slow_twice_deaf_and_reset() {
        let server = RedisServer::start();
        let proxy = Proxy::to(&server.address());
        let mut first = client(&proxy);
        proxy.set(Way::Slow(Duration::from_millis(60)));
        let begun = tokio::time::Instant::now();
        assert_eq!(ask(&mut first, PING).as_deref(), Ok("+PONG\r\n"));
        assert!(begun.elapsed() >= Duration::from_millis(120), "{:?}", begun.elapsed());
        proxy.set(Way::Twice);
        first.write_all(INCR).expect("written");
        thread::sleep(Duration::from_millis(50));
        assert_eq!(hear(&mut first).as_deref(), Ok(":1\r\n:2\r\n"));
        proxy.set(Way::OnlyPings);
        assert_eq!(ask(&mut first, PING).as_deref(), Ok("+PONG\r\n"));
        assert_eq!(ask(&mut first, INCR), Err(ErrorKind::WouldBlock));
        assert_eq!(server.command(&[b"GET", b"n"]), b"$1\r\n2\r\n");
        proxy.set(Way::Reset);
        assert!(matches!(hear(&mut first), Err(ErrorKind::ConnectionReset)));
        assert!(ask(&mut client(&proxy), PING).is_err());
        proxy.set(Way::Open);
        assert_eq!(ask(&mut client(&proxy), PING).as_deref(), Ok("+PONG\r\n"));
        server.kill();
        assert!(ask(&mut client(&proxy), PING).is_err());
    }

    #[test]
    fn subscribers_hear_all_but_messages() {
        let server = RedisServer::start();
        let proxy = Proxy::to(&server.address());
        let mut subscriber = client(&proxy);
        assert!(ask(&mut subscriber, b"*2\r\n$9\r\nSUBSCRIBE\r\n$1\r\nc\r\n").is_ok());
        proxy.set(Way::NoMessages);
        assert_eq!(server.command(&[b"PUBLISH", b"c", b"lost"]), b":1\r\n");
        assert_eq!(hear(&mut subscriber), Err(ErrorKind::WouldBlock));
        assert!(ask(&mut subscriber, PING).is_ok_and(|answer| answer.contains("pong")));
    }
}
