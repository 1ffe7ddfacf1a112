//! How connections to pub/sub nodes are made. Its own trait so that tests can simulate servers and networks.

use std::io;

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// Makes connections.
#[async_trait]
pub trait Dial: Send + Sync {
    /// A connection to `host:port`. The caller has a deadline.
    async fn dial(&self, address: &str) -> io::Result<Connection>;
}

/// Bytes in both directions. Behind a pointer: a call of it is cheap beside the system call.
pub type Connection = Box<dyn Stream>;

/// What a connection has to be able to do.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// The network.
pub(crate) struct Tcp;

#[async_trait]
impl Dial for Tcp {
    async fn dial(&self, address: &str) -> io::Result<Connection> {
        let stream = TcpStream::connect(address).await?;
        // Small calls are not to wait for each other; a failure to set it costs time only.
        let _ = stream.set_nodelay(true);
        Ok(Box::new(stream))
    }
}
