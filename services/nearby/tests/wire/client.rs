//! A phone: speaks WebSocket as it should.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::Request;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::http::Answer;
use crate::site::now;

/// What is to come comes within this time, also on a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(8);

/// In how short a time nothing tells that nothing comes.
pub(crate) const QUIET: Duration = Duration::from_millis(300);

pub(crate) struct Client {
    ws: WebSocketStream<TcpStream>,
}

/// A request for a WebSocket, to be given headers.
pub(crate) fn upgrade(address: SocketAddr) -> Request<()> {
    format!("ws://{address}/v1/ws").into_client_request().unwrap()
}

/// Connects, or says with which answer that was refused.
pub(crate) async fn try_connect(address: SocketAddr, request: Request<()>) -> Result<(Client, Answer), Answer> {
    let stream = TcpStream::connect(address).await.unwrap();
    let answer = |response: &tokio_tungstenite::tungstenite::http::Response<Option<Vec<u8>>>| Answer {
        status: response.status().as_u16(),
        headers: response
            .headers()
            .iter()
            .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
            .collect(),
        text: String::from_utf8(response.body().clone().unwrap_or_default()).unwrap(),
    };
    match timeout(SOON, client_async(request, stream)).await.expect("an answer to the upgrade") {
        Ok((ws, response)) => Ok((Client { ws }, answer(&response))),
        Err(Error::Http(response)) => Err(answer(&response)),
        Err(other) => panic!("no answer: {other}"),
    }
}

impl Client {
    pub(crate) async fn connect(address: SocketAddr, token: &str) -> Client {
        let mut request = upgrade(address);
        request.headers_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
        try_connect(address, request).await.unwrap_or_else(|refused| panic!("{refused:?}")).0
    }

    pub(crate) async fn send(&mut self, frame: &Value) {
        self.send_message(Message::text(frame.to_string())).await;
    }

    pub(crate) async fn send_message(&mut self, message: Message) {
        timeout(SOON, self.ws.send(message)).await.expect("room to send").unwrap();
    }

    /// Sends, and does not mind if the server has closed.
    pub(crate) async fn try_send(&mut self, frame: &Value) -> bool {
        matches!(timeout(SOON, self.ws.send(Message::text(frame.to_string()))).await, Ok(Ok(())))
    }

    /// Shares a position from now on; returns what is nearby.
    pub(crate) async fn init(&mut self, place: (f64, f64)) -> Value {
        self.send(&json!({"type": "init", "lat": place.0, "lon": place.1, "ts": now()})).await;
        let nearby = self.reads("nearby").await;
        // The position itself may still be on its way, and would come to who connects next as a push.
        tokio::time::sleep(Duration::from_millis(30)).await;
        nearby
    }

    /// Watches without sharing.
    pub(crate) async fn watch(&mut self) -> Value {
        self.send(&json!({"type": "init"})).await;
        self.reads("nearby").await
    }

    pub(crate) async fn moves(&mut self, place: (f64, f64)) {
        // Later than any position before it, also in the same millisecond.
        tokio::time::sleep(Duration::from_millis(2)).await;
        self.send(&json!({"type": "location", "lat": place.0, "lon": place.1, "ts": now()})).await;
    }

    pub(crate) async fn message(&mut self) -> Option<Result<Message, Error>> {
        timeout(SOON, self.ws.next()).await.expect("a message")
    }

    /// The next frame.
    pub(crate) async fn read(&mut self) -> Value {
        loop {
            match self.message().await {
                Some(Ok(Message::Text(text))) => return serde_json::from_str(&text).unwrap(),
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                other => panic!("no frame, but {other:?}"),
            }
        }
    }

    /// The next frame, which is of this type.
    pub(crate) async fn reads(&mut self, kind: &str) -> Value {
        let frame = self.read().await;
        assert_eq!(frame["type"], kind, "{frame}");
        frame
    }

    /// The next frame is an error of this code.
    pub(crate) async fn is_told(&mut self, code: &str) -> Value {
        let error = self.reads("error").await;
        assert_eq!(error["code"], code, "{error}");
        error
    }

    /// The next frame is about this friend, and of this type.
    pub(crate) async fn reads_of(&mut self, kind: &str, friend: u64) -> Value {
        let frame = self.reads(kind).await;
        assert_eq!(frame["id"], friend.to_string(), "{frame}");
        frame
    }

    /// The next frame is the friend's position, at this distance, give or take a metre.
    pub(crate) async fn sees(&mut self, friend: u64, metres: f64) {
        let frame = self.reads_of("friend", friend).await;
        let distance = frame["distance_m"].as_f64().unwrap();
        assert!((distance - metres).abs() < 1.0, "{distance} is not {metres}");
    }

    /// The next frame says that the friend is near no longer.
    pub(crate) async fn loses(&mut self, friend: u64, reason: &str) {
        let gone = self.reads_of("gone", friend).await;
        assert_eq!(gone["reason"], reason, "{gone}");
    }

    /// Nothing comes for a moment.
    pub(crate) async fn hears_nothing(&mut self) {
        if let Ok(message) = timeout(QUIET, self.ws.next()).await {
            panic!("{message:?}");
        }
    }

    /// Whatever comes, up to the close, whose code is returned with it; `None` for an end without a close.
    pub(crate) async fn up_to_the_end(&mut self) -> (Vec<Value>, Option<u16>) {
        let mut frames = Vec::new();
        loop {
            match self.message().await {
                Some(Ok(Message::Text(text))) => frames.push(serde_json::from_str(&text).unwrap()),
                Some(Ok(Message::Close(close))) => return (frames, close.map(|close| close.code.into())),
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return (frames, None),
            }
        }
    }

    /// Whatever comes, the connection is closed with this code.
    pub(crate) async fn is_closed(&mut self, code: u16) {
        let (frames, closed) = self.up_to_the_end().await;
        assert_eq!(closed, Some(code), "after {frames:?}");
    }

    /// Still served: an answer comes.
    pub(crate) async fn is_alive(&mut self) {
        self.send(&json!({"type": "no such type"})).await;
        loop {
            let frame = self.read().await;
            if frame["type"] == "error" {
                assert_eq!(frame["code"], "unknown_type");
                return;
            }
        }
    }
}
