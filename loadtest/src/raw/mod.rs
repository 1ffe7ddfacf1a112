//! Sockets by hand: plain epoll, WebSocket frames and JSON digits without a library between.
//!
//! The generator has to be much cheaper than what it measures, and the floor is to show what cannot be avoided. Both
//! are one thread, and read and write with the same code.

pub(crate) mod digits;
pub(crate) mod frames;
pub(crate) mod handshake;
pub(crate) mod poll;
pub(crate) mod stream;
