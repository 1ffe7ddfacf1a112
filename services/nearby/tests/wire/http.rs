//! Requests, one a connection, as bytes.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// No answer takes longer: a revoke takes up to 10 s when a node is cut off.
const PATIENCE: Duration = Duration::from_secs(15);

/// An answer, whole.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) text: String,
}

impl Answer {
    /// Reads a response that ends with its connection, or with its `Content-Length`.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Answer> {
        let end = bytes.windows(4).position(|at| at == b"\r\n\r\n")?;
        let head = str::from_utf8(&bytes[..end]).ok()?;
        let mut lines = head.split("\r\n");
        let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
        let headers = lines.filter_map(|line| line.split_once(':'));
        let headers = headers.map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned())).collect();
        let text = String::from_utf8_lossy(&bytes[end + 4..]).into_owned();
        Some(Answer { status, headers, text })
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Asserts that it is a problem of this status, and returns its body.
    #[track_caller]
    pub(crate) fn problem(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self:?}");
        let body = self.json();
        assert_eq!(body["status"], status, "{self:?}");
        body
    }

    /// Asserts that it names this field as wrong.
    #[track_caller]
    pub(crate) fn wrong(&self, field: &str) {
        assert_eq!(self.problem(400)["field"], field, "{self:?}");
    }

    #[track_caller]
    pub(crate) fn ok(&self) -> Value {
        assert_eq!(self.status, 200, "{self:?}");
        self.json()
    }

    /// Without what differs between any two answers.
    pub(crate) fn undated(mut self) -> Answer {
        self.headers.retain(|(name, _)| name != "date");
        self
    }
}

/// Sends a request and reads the answer to the end of the connection.
pub(crate) async fn request(
    address: SocketAddr,
    method: &str,
    path: &str,
    token: Option<&str>,
    body: Option<&str>,
) -> Answer {
    let answer = try_request(address, method, path, token, body).await.unwrap();
    answer.unwrap_or_else(|| panic!("no response to {method} {path}"))
}

/// The same where the server may have gone: an error if there is no connection, `None` if there is no whole answer.
pub(crate) async fn try_request(
    address: SocketAddr,
    method: &str,
    path: &str,
    token: Option<&str>,
    body: Option<&str>,
) -> std::io::Result<Option<Answer>> {
    let mut text = format!("{method} {path} HTTP/1.1\r\nhost: nearby\r\nconnection: close\r\n");
    if let Some(token) = token {
        text += &format!("authorization: Bearer {token}\r\n");
    }
    if let Some(body) = body {
        text += &format!("content-type: application/json\r\ncontent-length: {}\r\n", body.len());
    }
    text += "\r\n";
    text += body.unwrap_or_default();
    let answer = timeout(PATIENCE, async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(text.as_bytes()).await?;
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).await?;
        Ok(bytes)
    });
    let bytes: std::io::Result<Vec<u8>> = answer.await.unwrap_or_else(|_| panic!("no answer in time: {method} {path}"));
    Ok(Answer::parse(&bytes?))
}
