//! A text file line by line, packed or not.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use anyhow::{Context, Result};
use flate2::bufread::MultiGzDecoder;

const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// Hands every line that is not blank to `take`, which says what is wrong with a line it cannot read; the error names
/// the file and the line. What the file begins with decides whether it is unpacked, not its name.
pub(crate) fn each(path: &Path, mut take: impl FnMut(&str) -> Result<(), String>) -> Result<()> {
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let mut reader = BufReader::with_capacity(64 * 1024, file);
    let packed = reader.fill_buf().is_ok_and(|start| start.starts_with(&GZIP_MAGIC));
    let mut text: Box<dyn BufRead> =
        if packed { Box::new(BufReader::new(MultiGzDecoder::new(reader))) } else { Box::new(reader) };
    let mut line = String::new();
    for number in 1.. {
        line.clear();
        let read = text.read_line(&mut line).with_context(|| format!("{}: line {number}", path.display()))?;
        if read == 0 {
            break;
        }
        let line = line.trim();
        if !line.is_empty() {
            take(line).map_err(|wrong| anyhow::anyhow!("{}: line {number}: {wrong}", path.display()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;
    use tempfile::NamedTempFile;

    pub(crate) fn plain(text: &str) -> NamedTempFile {
        let mut file = NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file
    }

    pub(crate) fn packed(text: &str) -> NamedTempFile {
        let file = NamedTempFile::new().unwrap();
        let mut encoder = GzEncoder::new(file.reopen().unwrap(), Compression::fast());
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.finish().unwrap();
        file
    }
}
