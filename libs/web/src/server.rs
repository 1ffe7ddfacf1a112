//! Serving HTTP/1 on a socket that strangers can reach: what a connection may cost is bounded before anything of a
//! request is looked at.

use std::fmt;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{Method, Version};
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::time::{Sleep, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::Service;

/// What connections may cost.
#[derive(Clone, Copy, Debug)]
pub struct ServerLimits {
    /// Open connections of one address; 0 for any number, as behind a proxy.
    pub connections_per_address: usize,
    /// Open connections in all; 0 for any number.
    pub connections: usize,
    /// How long a client may take for the head of a request, the silence before it included.
    pub header_patience: Duration,
    /// Bytes of a request's head.
    pub header_bytes: usize,
    /// How long a client may take for the body of a request.
    pub body_patience: Duration,
    /// How long a client may take nothing of what is written to it.
    pub write_patience: Duration,
    /// Bytes of the kernel's send buffer: what was handed to the kernel cannot be recalled.
    pub send_buffer_bytes: usize,
}

impl Default for ServerLimits {
    fn default() -> ServerLimits {
        ServerLimits {
            connections_per_address: 0,
            connections: 0,
            header_patience: Duration::from_secs(5),
            // The least that hyper takes.
            header_bytes: 8 * 1024,
            body_patience: Duration::from_secs(10),
            // A WebSocket's own patience, which ends in a close with a code, comes first.
            write_patience: Duration::from_secs(15),
            send_buffer_bytes: 16 * 1024,
        }
    }
}

/// One TCP connection, as its requests see it: an extension of each of them.
#[derive(Default)]
pub struct Wire {
    conditions: Mutex<Vec<(u64, Condition)>>,
    /// So many there are: most writes have none to ask.
    conditional: AtomicUsize,
    flushes: AtomicU64,
    progress: Notify,
    cut: Notify,
}

/// Whether something that is buffered may still be handed to the kernel.
type Condition = Box<dyn Fn() -> bool + Send + Sync>;

/// A condition in force; dropping it ends that.
pub struct InForce {
    wire: Arc<Wire>,
    number: u64,
}

impl Drop for InForce {
    fn drop(&mut self) {
        self.wire.conditions.lock().retain(|(number, _)| *number != self.number);
        self.wire.conditional.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The count of flushes of a connection that is no more.
const ENDED: u64 = u64::MAX;

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wire").field("flushes", &self.flushes).finish_non_exhaustive()
    }
}

impl Wire {
    /// From now on the condition is asked right before each write, as long as the result is kept; when it does not hold,
    /// the connection ends with all that is buffered for it.
    #[must_use]
    pub fn write_only_while(self: &Arc<Wire>, condition: impl Fn() -> bool + Send + Sync + 'static) -> InForce {
        static NUMBERS: AtomicU64 = AtomicU64::new(0);
        let number = NUMBERS.fetch_add(1, Ordering::Relaxed);
        self.conditions.lock().push((number, Box::new(condition)));
        self.conditional.fetch_add(1, Ordering::AcqRel);
        InForce { wire: self.clone(), number }
    }

    fn may_write(&self) -> bool {
        self.conditional.load(Ordering::Acquire) == 0 || self.conditions.lock().iter().all(|(_, holds)| holds())
    }

    /// How often all that was buffered in this process has been handed to the kernel.
    pub fn flushes(&self) -> u64 {
        self.flushes.load(Ordering::Acquire)
    }

    /// Waits for a flush after the one that `flushes` counted, or for the end of the connection. A response's body is
    /// dropped when the server has buffered it: only this tells that it is out of this process.
    pub async fn flushed_after(&self, flushes: u64) {
        loop {
            let progress = self.progress.notified();
            tokio::pin!(progress);
            // Registered before the look, or a flush between the two would be missed.
            progress.as_mut().enable();
            if self.flushes() > flushes {
                return;
            }
            progress.await;
        }
    }

    /// Waits for the end of the connection.
    pub async fn ended(&self) {
        self.flushed_after(ENDED - 1).await;
    }

    /// Drops the connection with all that is buffered for it in this process, if it has not been upgraded.
    pub fn cut(&self) {
        self.cut.notify_one();
    }
}

/// Serves `router` until `stop`; then takes no more connections, lets requests under way finish, and returns. Upgraded
/// connections are their owner's.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    limits: ServerLimits,
    tasks: TaskTracker,
    stop: CancellationToken,
) -> io::Result<()> {
    // Accepted sockets inherit it.
    SockRef::from(&listener).set_send_buffer_size(limits.send_buffer_bytes)?;
    let open = Arc::new(Open::default());
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(limits.header_patience).max_buf_size(limits.header_bytes);
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            accepted = listener.accept() => accepted,
        };
        let (stream, from) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, or the client was gone already: neither may end the server.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            }
        };
        let Some(place) = open.admit(from, &limits) else { continue };
        // Frames are small and each is worth its packet.
        let _ = stream.set_nodelay(true);
        let metered = Metered { stream, wire: Live::default(), patience: limits.write_patience, late: None, place };
        tasks.spawn(connection(http.clone(), metered, router.clone(), limits.body_patience, stop.clone()));
    }
}

async fn connection(
    http: http1::Builder,
    metered: Metered,
    router: Router,
    body_patience: Duration,
    stop: CancellationToken,
) {
    let wire = metered.wire.0.clone();
    let for_requests = wire.clone();
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let mut request = request.map(|body| in_time(body, body_patience));
        request.extensions_mut().insert(for_requests.clone());
        router.clone().call(request)
    });
    let connection = http.serve_connection(TokioIo::new(metered), service).with_upgrades();
    tokio::pin!(connection);
    // Errors here are the client's: a connection that broke, a head that is no HTTP, was too large or too late.
    tokio::select! {
        _ = connection.as_mut() => return,
        () = wire.cut.notified() => return,
        () = stop.cancelled() => connection.as_mut().graceful_shutdown(),
    }
    tokio::select! {
        _ = connection => {}
        () = wire.cut.notified() => {}
    }
}

/// The open connections, counted.
#[derive(Default)]
struct Open(Mutex<Counts>);

#[derive(Default)]
struct Counts {
    all: usize,
    by_address: FxHashMap<IpAddr, usize>,
}

impl Open {
    fn admit(self: &Arc<Open>, from: SocketAddr, limits: &ServerLimits) -> Option<Place> {
        let within = |count: usize, limit: usize| limit == 0 || count < limit;
        let address = from.ip();
        let mut counts = self.0.lock();
        let of_address = counts.by_address.get(&address).copied().unwrap_or(0);
        if !within(counts.all, limits.connections) || !within(of_address, limits.connections_per_address) {
            return None;
        }
        counts.all += 1;
        counts.by_address.insert(address, of_address + 1);
        Some(Place { open: self.clone(), address })
    }
}

/// One of the open connections, counted as such until it is dropped.
pub struct Place {
    open: Arc<Open>,
    address: IpAddr,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.open.0.lock();
        counts.all -= 1;
        if let Some(count) = counts.by_address.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                counts.by_address.remove(&self.address);
            }
        }
    }
}

/// A request's body, which has to be complete in time.
struct Timely {
    body: Incoming,
    late: Pin<Box<Sleep>>,
}

fn in_time(body: Incoming, patience: Duration) -> Body {
    if body.is_end_stream() { Body::empty() } else { Body::new(Timely { body, late: Box::pin(sleep(patience)) }) }
}

impl HttpBody for Timely {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = self.get_mut();
        match Pin::new(&mut this.body).poll_frame(cx) {
            Poll::Ready(frame) => Poll::Ready(frame.map(|frame| frame.map_err(io::Error::other))),
            Poll::Pending => this.late.as_mut().poll(cx).map(|()| Some(Err(ErrorKind::TimedOut.into()))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Takes the TCP connection over from HTTP, once the response that switches protocols has been written.
pub struct Takeover(OnUpgrade);

impl<S: Send + Sync> FromRequestParts<S> for Takeover {
    /// Not a request after which a connection speaks something else.
    type Rejection = ();

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Takeover, ()> {
        if parts.method != Method::GET || parts.version != Version::HTTP_11 {
            return Err(());
        }
        parts.extensions.remove::<OnUpgrade>().map(Takeover).ok_or(())
    }
}

/// A TCP connection that was taken over.
pub struct Taken {
    /// The connection.
    pub stream: TcpStream,
    /// What was read of it beyond the request.
    pub ahead: Bytes,
    /// Its place among the open connections: to be kept as long as it is open.
    pub place: Place,
}

impl Takeover {
    /// `None` if the connection ended before.
    pub async fn connection(self) -> Option<Taken> {
        let upgraded = self.0.await.ok()?.downcast::<TokioIo<Metered>>().ok()?;
        let Metered { stream, place, .. } = upgraded.io.into_inner();
        Some(Taken { stream, ahead: upgraded.read_buf, place })
    }
}

/// A TCP stream that counts what the kernel took, asks its [`Wire`]'s conditions before each write, and fails when the
/// kernel takes nothing for too long.
struct Metered {
    stream: TcpStream,
    wire: Live,
    patience: Duration,
    /// Runs while the kernel takes nothing.
    late: Option<Pin<Box<Sleep>>>,
    place: Place,
}

/// A wire until its connection ends, or is taken over.
#[derive(Default)]
struct Live(Arc<Wire>);

impl Drop for Live {
    fn drop(&mut self) {
        self.0.flushes.store(ENDED, Ordering::Release);
        self.0.progress.notify_waiters();
    }
}

impl AsyncRead for Metered {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(cx, buf)
    }
}

impl Metered {
    fn in_time(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match written {
            Poll::Pending => {
                let late = self.late.get_or_insert_with(|| Box::pin(sleep(self.patience)));
                late.as_mut().poll(cx).map(|()| Err(ErrorKind::TimedOut.into()))
            }
            Poll::Ready(done) => {
                self.late = None;
                Poll::Ready(done)
            }
        }
    }
}

impl AsyncWrite for Metered {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if !this.wire.0.may_write() {
            return Poll::Ready(Err(ErrorKind::ConnectionAborted.into()));
        }
        let written = Pin::new(&mut this.stream).poll_write(cx, bytes);
        this.in_time(cx, written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if !this.wire.0.may_write() {
            return Poll::Ready(Err(ErrorKind::ConnectionAborted.into()));
        }
        let written = Pin::new(&mut this.stream).poll_write_vectored(cx, slices);
        this.in_time(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        // Whoever writes here flushes only when nothing is left in its own buffers.
        this.wire.0.flushes.fetch_add(1, Ordering::AcqRel);
        this.wire.0.progress.notify_waiters();
        Pin::new(&mut this.stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
