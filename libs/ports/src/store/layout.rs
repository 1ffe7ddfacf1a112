//! Which arrangement of keyspaces and rows a directory holds: a number in a file beside the database, so that it can
//! be read whatever the database has become.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::refused;
use crate::PortError;

/// Goes up with every change that an older Nearby would misread.
const LAYOUT: u32 = 1;

/// Refuses a directory that this Nearby cannot read. A directory without a mark is new.
pub(super) fn check(directory: &Path) -> Result<(), PortError> {
    let text = match fs::read_to_string(file(directory)) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(cannot(directory, &error)),
    };
    match text.trim().parse::<u32>() {
        Ok(LAYOUT) => Ok(()),
        Ok(newer) if newer > LAYOUT => Err(refused(&format!(
            "{} was written by a newer version (layout {newer}, this one reads {LAYOUT})",
            directory.display()
        ))),
        _ => Err(refused(&format!("{} has an unknown layout mark", directory.display()))),
    }
}

/// Marks a directory; call it only while no other process can write there.
pub(super) fn mark(directory: &Path) -> Result<(), PortError> {
    let write = || {
        if file(directory).exists() {
            return Ok(());
        }
        // Under another name until it is whole: a crash leaves a mark or none.
        let half = directory.join("layout.new");
        let mut mark = File::create(&half)?;
        writeln!(mark, "{LAYOUT}")?;
        mark.sync_all()?;
        fs::rename(&half, file(directory))?;
        File::open(directory)?.sync_all()
    };
    write().map_err(|error: io::Error| cannot(directory, &error))
}

fn file(directory: &Path) -> PathBuf {
    directory.join("layout")
}

fn cannot(directory: &Path, error: &io::Error) -> PortError {
    refused(&format!("cannot open {}: {error}", directory.display()))
}
