//! Where the server is: one address for its WebSocket and its REST.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context, Result};
use tokio::net::TcpStream;

/// `ws://host:port/path`, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    authority: String,
    path: String,
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Address, String> {
        let rest =
            text.strip_prefix("ws://").ok_or("must begin with ws:// (no TLS: put the load test beside the server)")?;
        let (authority, path) = match rest.find('/') {
            Some(slash) => rest.split_at(slash),
            None => (rest, "/v1/ws"),
        };
        let port = authority.rsplit_once(':').map(|(host, port)| (host, port.parse::<u16>()));
        match port {
            Some((host, Ok(_))) if !host.is_empty() => {
                Ok(Address { authority: authority.to_owned(), path: path.to_owned() })
            }
            _ => Err("must name host and port, as ws://127.0.0.1:8080/v1/ws".into()),
        }
    }
}

impl Address {
    /// Host and port.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// What is asked for there.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// A TCP connection that sends small packets at once.
    pub async fn connect(&self) -> Result<TcpStream> {
        let stream = TcpStream::connect(&self.authority).await.with_context(|| {
            format!(
                "server not reachable at {}: start it with `nearby serve`, or name another with --url",
                self.authority
            )
        })?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ws://{}{}", self.authority, self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_port_and_path() {
        let address: Address = "ws://127.0.0.1:8080/v1/ws".parse().unwrap();
        assert_eq!(
            (address.authority(), address.to_string().as_str()),
            ("127.0.0.1:8080", "ws://127.0.0.1:8080/v1/ws")
        );
        assert_eq!("ws://[::1]:80".parse::<Address>().unwrap().to_string(), "ws://[::1]:80/v1/ws");
        for bad in ["http://127.0.0.1:80", "wss://h:1/", "ws://host/v1/ws", "ws://:80/", "ws://h:99999/"] {
            assert!(bad.parse::<Address>().is_err(), "{bad}");
        }
    }
}
