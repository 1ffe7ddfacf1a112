//! The journal after an fsync that failed.
//!
//! The kernel then counts pages as clean that never came to the disk: whoever reads the file sees them, and a later fsync
//! of it succeeds without them. What is appended behind such a hole would be lost with the hole when the machine stops.
//! So a directory in which an fsync failed is marked, and the next one to open it copies the journal first: all of the
//! copy is written and synced.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use super::refused;
use crate::PortError;

/// Bytes that are copied in one go.
const CHUNK: usize = 1 << 20;

/// Marks a directory. As well as it can: a disk that takes no fsync may not take the mark.
pub(super) fn suspect(directory: &Path) {
    let _ = File::create(mark(directory)).and_then(|mark| mark.sync_all());
    let _ = sync_directory(directory);
}

/// Before the database in this marked directory is opened. Does nothing while another process has it open: opening fails
/// then, and the mark stays.
pub(super) fn renew_if_suspect(directory: &Path) -> Result<(), PortError> {
    let renew = || -> io::Result<()> {
        if !mark(directory).exists() {
            return Ok(());
        }
        let database = directory.join("fjall");
        // The lock of the database itself.
        let lock = OpenOptions::new().read(true).write(true).open(database.join("lock"))?;
        if lock.try_lock().is_err() {
            return Ok(());
        }
        if let Some(journal) = newest_journal(&database)? {
            let copy = journal.with_extension("copy");
            copy_synced(&journal, &copy)?;
            fs::rename(&copy, &journal)?;
            sync_directory(&database)?;
        }
        fs::remove_file(mark(directory))?;
        sync_directory(directory)
    };
    renew().map_err(|error| refused(&format!("cannot copy the journal in {}: {error}", directory.display())))
}

/// How much [`renew_if_suspect`] will write: nothing in a directory that is not marked.
pub(super) fn bytes_to_copy(directory: &Path) -> io::Result<u64> {
    let journal = if mark(directory).exists() { newest_journal(&directory.join("fjall"))? } else { None };
    journal.map_or(Ok(0), |journal| Ok(journal.metadata()?.len()))
}

/// The one that was written to. Those before it were synced before it was made.
fn newest_journal(database: &Path) -> io::Result<Option<PathBuf>> {
    let mut newest: Option<(u64, PathBuf)> = None;
    for entry in fs::read_dir(database)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_suffix(".jnl"));
        if let Some(number) = name.and_then(|number| number.parse().ok()) {
            newest = newest.max(Some((number, path)));
        }
    }
    Ok(newest.map(|(_, path)| path))
}

/// Byte by byte: a copy by the file system may share the very blocks that are in doubt.
fn copy_synced(from: &Path, to: &Path) -> io::Result<()> {
    let (mut from, mut to) = (File::open(from)?, File::create(to)?);
    let mut chunk = vec![0; CHUNK];
    loop {
        match from.read(&mut chunk)? {
            0 => return to.sync_all(),
            read => to.write_all(&chunk[..read])?,
        }
    }
}

fn mark(directory: &Path) -> PathBuf {
    directory.join("unsynced")
}

fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}
