//! Just enough HTTP to ask a server on loopback.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// Sends a request of HTTP/1.0 as it is, and returns the answer as it came.
pub(crate) fn exchange(port: u16, request: &str) -> std::io::Result<String> {
    let mut connection = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    connection.set_read_timeout(Some(PATIENCE))?;
    connection.write_all(request.as_bytes())?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer)?;
    Ok(answer)
}

/// The body of what `path` answers with 200.
pub(crate) fn get(port: u16, path: &str) -> Option<String> {
    let answer = exchange(port, &format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n")).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    if !head.lines().next()?.contains(" 200 ") {
        return None;
    }
    // HAProxy's statistics come so whatever was asked for.
    if head.to_ascii_lowercase().contains("transfer-encoding: chunked") {
        unchunked(body)
    } else {
        Some(body.to_owned())
    }
}

fn unchunked(mut body: &str) -> Option<String> {
    let mut text = String::new();
    loop {
        let (size, rest) = body.split_once("\r\n")?;
        let size = usize::from_str_radix(size.trim(), 16).ok()?;
        if size == 0 {
            return Some(text);
        }
        text.push_str(rest.get(..size)?);
        body = rest.get(size..)?.strip_prefix("\r\n")?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_put_together() {
        assert_eq!(unchunked("3\r\na\r\n\r\n2\r\nbc\r\n0\r\n\r\n").as_deref(), Some("a\r\nbc"));
        assert_eq!(unchunked("3\r\nab"), None);
    }
}
