//! One person's WebSocket.

use std::io;

use anyhow::{Context, Result, anyhow};
use futures_util::{SinkExt, StreamExt};
use http::{HeaderValue, header};
use model::Position;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use crate::address::Address;
use crate::rest::advice;

/// The protocol's name in the handshake.
const SUBPROTOCOL: &str = "nearby.v1.json";

/// A page of 20 friends is less than 4 KiB; thousands of connections share this process's memory.
const READ_BUFFER_BYTES: usize = 4 * 1024;
/// Own frames are about 80 bytes: what does not fit has met a server that no longer reads.
const MAX_WRITE_BUFFER_BYTES: usize = 16 * 1024;

/// An open connection.
pub struct Socket(WebSocketStream<TcpStream>);

/// What a read yields.
pub enum Incoming {
    /// A frame.
    Text(Utf8Bytes),
    /// Something that this protocol does not have.
    NotText,
    /// The server ended the connection, with this close code if it said one.
    Closed(Option<u16>),
}

impl Socket {
    /// Connects and shakes hands.
    pub async fn open(address: &Address, token: &str) -> Result<Socket> {
        let mut request = address.to_string().into_client_request()?;
        let bearer = HeaderValue::try_from(format!("Bearer {token}"))?;
        request.headers_mut().insert(header::AUTHORIZATION, bearer);
        request.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER_BYTES)
            .write_buffer_size(0)
            .max_write_buffer_size(MAX_WRITE_BUFFER_BYTES);
        let stream = address.connect().await?;
        match client_async_with_config(request, stream, Some(config)).await {
            Ok((socket, _)) => Ok(Socket(socket)),
            Err(Error::Http(answer)) => {
                Err(anyhow!("{address} answered {} to a WebSocket{}", answer.status(), advice(answer.status())))
            }
            Err(error) => Err(error).with_context(|| format!("no WebSocket handshake with {address}")),
        }
    }

    /// The first frame.
    pub async fn init(&mut self, at: Position, ts: u64, radius_m: Option<f64>) -> Result<(), Error> {
        let radius = radius_m.map(|radius| format!(r#","radius_m":{radius}"#)).unwrap_or_default();
        self.send(format!(r#"{{"type":"init","lat":{},"lon":{},"ts":{ts}{radius}}}"#, at.lat(), at.lon())).await
    }

    /// A new position.
    pub async fn location(&mut self, at: Position, ts: u64) -> Result<(), Error> {
        self.send(format!(r#"{{"type":"location","lat":{},"lon":{},"ts":{ts}}}"#, at.lat(), at.lon())).await
    }

    /// Asks for the next page.
    pub async fn more(&mut self, cursor: &str) -> Result<(), Error> {
        self.send(serde_json::json!({"type": "more", "cursor": cursor}).to_string()).await
    }

    async fn send(&mut self, text: String) -> Result<(), Error> {
        self.0.send(Message::Text(text.into())).await
    }

    /// The next frame; pings are answered on the way. Nothing is lost if it is not awaited to the end.
    pub async fn next(&mut self) -> Incoming {
        loop {
            match self.0.next().await {
                Some(Ok(Message::Text(text))) => return Incoming::Text(text),
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(Message::Close(frame))) => return Incoming::Closed(frame.map(|frame| frame.code.into())),
                Some(Ok(Message::Binary(_) | Message::Frame(_))) => return Incoming::NotText,
                Some(Err(_)) | None => return Incoming::Closed(None),
            }
        }
    }

    /// Says goodbye and waits for the server's: by then it has read everything that was sent. False if none came.
    pub async fn close(mut self) -> bool {
        if self.0.close(None).await.is_err() {
            return false;
        }
        let mut answered = false;
        while let Some(Ok(message)) = self.0.next().await {
            answered |= message.is_close();
        }
        answered
    }

    /// Tears the connection down (RST): what is under way in either direction may be lost.
    pub fn reset(self) -> io::Result<()> {
        self.0.get_ref().set_zero_linger()
    }
}
