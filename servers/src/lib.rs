//! Real servers on loopback, for tests of the backends that need them. A dev-dependency and nothing else.
//!
//! A server that is not installed fails the test and says what to install: a test that skips itself tests nothing. The
//! tests of one binary share its servers (a `static` of `OnceLock`), each with names of its own; who stops or kills
//! one starts one for itself. No server outlives the process that started it, however that ends.

pub mod cassandra;
pub mod etcd;
mod process;
pub mod redis;

pub use process::{Process, free_port};
