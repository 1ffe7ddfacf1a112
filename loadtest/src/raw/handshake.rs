//! The HTTP upgrade, both sides of it.

use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

/// The same in all handshakes: it guards against caches between, of which there are none here.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// The protocol's name.
pub(crate) const SUBPROTOCOL: &str = "nearby.v1.json";

/// A longer head is none of ours.
const HEAD_BYTES: usize = 8 * 1024;

/// What a client begins with.
pub(crate) fn request(authority: &str, path: &str, token: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: {authority}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Protocol: {SUBPROTOCOL}\r\n\
         Authorization: Bearer {token}\r\n\r\n"
    )
}

/// What a server answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// 101 if it agreed.
    pub(crate) status: u16,
    /// When to ask again, in seconds.
    pub(crate) retry_after_s: Option<u64>,
    /// What follows the head.
    pub(crate) rest: usize,
}

/// Reads the answer; `None` if not all of its head has come yet, an error if it is none.
pub(crate) fn answer(bytes: &[u8]) -> Result<Option<Answer>, &'static str> {
    let Some((head, rest)) = head(bytes)? else { return Ok(None) };
    let status = head.strip_prefix("HTTP/1.1 ").and_then(|line| line.get(..3)?.parse().ok()).ok_or("no HTTP/1.1")?;
    if status == 101 && field(head, "sec-websocket-accept") != Some(&derive_accept_key(KEY.as_bytes())) {
        return Err("a wrong Sec-WebSocket-Accept");
    }
    let retry_after_s = field(head, "retry-after").and_then(|text| text.parse().ok());
    Ok(Some(Answer { status, retry_after_s, rest }))
}

/// Reads a client's request and agrees to it: the answer, the token, and what follows the head.
pub(crate) fn agree(bytes: &[u8]) -> Result<Option<(String, &str, usize)>, &'static str> {
    let Some((head, rest)) = head(bytes)? else { return Ok(None) };
    let key = field(head, "sec-websocket-key").ok_or("no Sec-WebSocket-Key")?;
    let token = field(head, "authorization").and_then(|text| text.strip_prefix("Bearer ")).ok_or("no bearer token")?;
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-accept: {}\r\nsec-websocket-protocol: {SUBPROTOCOL}\r\n\r\n",
        derive_accept_key(key.as_bytes())
    );
    Ok(Some((answer, token, rest)))
}

fn head(bytes: &[u8]) -> Result<Option<(&str, usize)>, &'static str> {
    match bytes.windows(4).position(|end| end == b"\r\n\r\n") {
        Some(end) => Ok(Some((std::str::from_utf8(&bytes[..end]).map_err(|_| "not text")?, end + 4))),
        None if bytes.len() > HEAD_BYTES => Err("a head without end"),
        None => Ok(None),
    }
}

fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let mut fields = head.split("\r\n").skip(1).filter_map(|line| line.split_once(':'));
    fields.find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_agree() {
        let request = request("127.0.0.1:80", "/v1/ws", "7");
        assert_eq!(agree(&request.as_bytes()[..40]), Ok(None));
        let (text, token, rest) = agree(request.as_bytes()).unwrap().unwrap();
        assert_eq!((token, rest), ("7", request.len()));
        // The key and what it is answered with are the example of RFC 6455.
        assert!(text.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
        let wanted = Answer { status: 101, retry_after_s: None, rest: text.len() };
        assert_eq!(answer(text.as_bytes()), Ok(Some(wanted)));
        assert!(answer(text.replace("s3p", "S3p").as_bytes()).is_err());
    }

    #[test]
    fn a_refusal_says_when_to_come_again() {
        let refused = answer(b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 2\r\n\r\n{}").unwrap().unwrap();
        assert_eq!((refused.status, refused.retry_after_s), (503, Some(2)));
        assert!(answer(&[b'x'; 9_000]).is_err());
        assert!(agree(b"GET / HTTP/1.1\r\n\r\n").is_err());
    }
}
