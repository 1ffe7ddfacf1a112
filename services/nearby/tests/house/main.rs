//! The rules of the house, read from manifests and sources. Each says what is absent, and why that matters stands in
//! `docs/ARCHITECTURE.md`.
#![expect(clippy::unwrap_used, reason = "a test ends where it fails")]

mod absences;
mod floors;
mod map;
mod names;
mod tree;
