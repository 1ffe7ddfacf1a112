//! What clients are told of the protocol (the files in `schema/`, the text of `docs/PROTOCOL.md`) against what the types
//! really say.

#![expect(clippy::unwrap_used, reason = "the helpers of tests are tests too")]

mod document;
mod files;
mod frames;
mod validator;

use std::path::{Path, PathBuf};

/// The repository.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}
