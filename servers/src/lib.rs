//! Real servers on loopback: for tests of what needs them, and behind `./fleet` for who wants to try a whole fleet.
//! Nothing that is served depends on it.
//!
//! A server that is not installed fails the test and says what to install: a test that skips itself tests nothing. The
//! tests of one binary share its servers (a `static` of `OnceLock`), each with names of its own; who stops or kills
//! one starts one for itself. No server outlives the process that started it, however that ends.

pub mod cassandra;
mod cql;
pub mod etcd;
pub mod fleet;
pub mod haproxy;
mod http;
pub mod nearby;
mod process;
pub mod proxy;
pub mod redis;

pub use process::{Process, Status, find, free_port};
