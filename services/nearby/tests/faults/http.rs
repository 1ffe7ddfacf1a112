//! Requests, one connection each.

use std::io::{Read, Result, Write};
use std::net::TcpStream;
use std::time::Duration;

/// Longer than the longest that a revoke may take.
const PATIENCE: Duration = Duration::from_secs(15);

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
}

/// Asks who listens at `address`.
pub(crate) fn ask(address: &str, method: &str, path: &str, token: &str, body: &str) -> Result<Answer> {
    let mut connection = TcpStream::connect(address)?;
    connection.set_read_timeout(Some(PATIENCE))?;
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.0\r\nHost: nearby\r\nAuthorization: Bearer {token}\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    connection.write_all(request.as_bytes())?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer)?;
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    let (Some(status), Some((_, body))) = (status, answer.split_once("\r\n\r\n")) else {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    };
    Ok(Answer { status, body: body.to_owned() })
}

/// Asks again while the answer is 503, as everybody is told to: a process whose database was away notices that it is back
/// when it is asked.
pub(crate) fn insist(address: &str, method: &str, path: &str, token: &str, body: &str) -> Result<Answer> {
    for _ in 0..30 {
        let answer = ask(address, method, path, token, body)?;
        if answer.status != 503 {
            return Ok(answer);
        }
        std::thread::sleep(Duration::from_millis(500));
    }
    ask(address, method, path, token, body)
}
