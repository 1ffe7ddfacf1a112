//! Everything that is written on a wire between phones and nodes, and between nodes. Pure: bytes in, values out.
//!
//! [`client`] holds the frames of `nearby.v1.json`, [`record`] what one node tells another, [`ring`] where a
//! channel lives, [`close`] the close codes.
//! `schema/` in the repository is made from these types by [`schema`]; a test fails when it is out of date.

pub mod client;
pub mod close;
pub mod record;
pub mod ring;
pub mod schema;

/// The WebSocket subprotocol that this crate speaks.
pub const SUBPROTOCOL: &str = "nearby.v1.json";

/// A browser cannot set headers on a WebSocket, so it offers its token as a second subprotocol entry with this prefix.
pub const BEARER_SUBPROTOCOL_PREFIX: &str = "bearer.";
