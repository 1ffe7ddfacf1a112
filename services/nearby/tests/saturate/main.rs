//! The load tester's measurements against a process of the executable: sound, not fast. How fast it is, is in
//! `docs/performance.md`.
#![expect(clippy::unwrap_used, reason = "a test ends where it fails")]

mod fleet;
mod floor;
mod runs;
