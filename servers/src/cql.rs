//! As much of Cassandra's native protocol (version 4) as a test needs behind a backend's back.

use std::io::{Error, Read, Result, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

/// A change of the schema waits for the disk.
const PATIENCE: Duration = Duration::from_secs(30);

const ERROR: u8 = 0;
const STARTUP: u8 = 1;
const QUERY: u8 = 7;

/// Runs one statement, on a connection of its own.
pub(crate) fn run(ip: Ipv4Addr, port: u16, cql: &str) -> Result<()> {
    let mut connection = TcpStream::connect((ip, port))?;
    connection.set_read_timeout(Some(PATIENCE))?;
    // One entry: the version of the language.
    exchange(&mut connection, STARTUP, b"\0\x01\0\x0bCQL_VERSION\0\x053.0.0")?;
    let length = u32::try_from(cql.len()).map_err(Error::other)?;
    // Consistency ONE, no flags.
    let statement = [&length.to_be_bytes()[..], cql.as_bytes(), &[0, 1, 0]].concat();
    exchange(&mut connection, QUERY, &statement)
}

fn exchange(connection: &mut TcpStream, opcode: u8, body: &[u8]) -> Result<()> {
    let length = u32::try_from(body.len()).map_err(Error::other)?;
    connection.write_all(&[&[4, 0, 0, 0, opcode], &length.to_be_bytes()[..], body].concat())?;
    let mut head = [0; 9];
    connection.read_exact(&mut head)?;
    let [_, _, _, _, answered, length @ ..] = head;
    let mut answer = vec![0; u32::from_be_bytes(length) as usize];
    connection.read_exact(&mut answer)?;
    // An error is a code and a text with its length.
    if answered == ERROR {
        Err(Error::other(String::from_utf8_lossy(answer.get(6..).unwrap_or_default())))
    } else {
        Ok(())
    }
}
