//! The development secret: made at the first start, kept in the data directory, readable by its owner only.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use rand::RngExt;

/// Characters of the secret: 64 of 32 kinds, 320 bits.
const LENGTH: usize = 64;
const ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";

/// Where the secret of a data directory is.
pub fn path(data_dir: &Path) -> PathBuf {
    data_dir.join("signing-secret")
}

/// The secret; made if there is none. Of two processes that make one at the same time, both get the same.
pub fn load_or_make(data_dir: &Path) -> anyhow::Result<Vec<u8>> {
    fs::create_dir_all(data_dir)
        .with_context(|| format!("the data directory {} cannot be made", data_dir.display()))?;
    let path = path(data_dir);
    match fs::read(&path) {
        Ok(secret) => {
            ensure!(secret.len() >= 32, "{} is too short for a signing secret: at least 32 bytes", path.display());
            return Ok(secret);
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| format!("{} cannot be read", path.display())),
    }
    let mut random = rand::rng();
    let secret: Vec<u8> = (0..LENGTH).map(|_| ALPHABET[random.random_range(0..ALPHABET.len())]).collect();
    // Written aside and linked into place: nobody ever reads half a secret, and the first one stays.
    let aside = data_dir.join(format!("signing-secret.{:016x}", random.random::<u64>()));
    let write = || -> std::io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&aside)?;
        file.write_all(&secret)?;
        file.sync_all()?;
        match fs::hard_link(&aside, &path) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
            _ => Ok(()),
        }
    };
    let written = write();
    let _ = fs::remove_file(&aside);
    written.with_context(|| format!("the signing secret {} cannot be written", path.display()))?;
    fs::read(&path).with_context(|| format!("{} cannot be read", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn made_once_for_its_owner_only() {
        let dir = tempfile::tempdir().unwrap();
        let secret = load_or_make(dir.path()).unwrap();
        assert_eq!(secret.len(), LENGTH);
        assert_eq!(load_or_make(dir.path()).unwrap(), secret);
        assert_eq!(fs::metadata(path(dir.path())).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left beside it");
    }

    #[test]
    fn a_short_one_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(path(dir.path()), "short").unwrap();
        assert!(load_or_make(dir.path()).unwrap_err().to_string().contains("signing-secret"));
    }
}
