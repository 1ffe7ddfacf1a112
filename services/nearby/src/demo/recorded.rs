//! Recorded people: movement as `track,offset_s,lat,lon`, friendships as two track numbers per line, packed or not.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use anyhow::{Context, Result, anyhow, ensure};
use flate2::bufread::MultiGzDecoder;
use model::Position;

use super::movement::{Point, Recording};

const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// The recordings of the tracks 0 to `people` - 1; fewer if the file has fewer.
pub(crate) fn tracks(path: &Path, people: usize) -> Result<Vec<Recording>> {
    let mut tracks: Vec<Vec<Point>> = Vec::new();
    each_line(path, "`track,offset_s,lat,lon`, tracks from 0 on, offsets growing,", |line| {
        if line.starts_with("track,") {
            return Some(());
        }
        let mut fields = line.split(',');
        let track: usize = fields.next()?.parse().ok()?;
        let mut number = || fields.next()?.trim().parse::<f64>().ok();
        let (offset_s, position) = (number()?, Position::new(number()?, number()?).ok()?);
        if track >= people {
            return Some(());
        }
        if track == tracks.len() {
            tracks.push(Vec::new());
        }
        let points = tracks.get_mut(track)?;
        let grows = offset_s >= 0.0 && points.last().is_none_or(|(before_s, _)| *before_s < offset_s);
        grows.then(|| points.push((offset_s, position)))
    })?;
    ensure!(tracks.len() >= 2, "{} holds fewer than two tracks", path.display());
    Ok(tracks.into_iter().map(Recording::new).collect())
}

/// The friendships among the people 0 to `people` - 1, each once.
pub(crate) fn friendships(path: &Path, people: usize) -> Result<BTreeSet<(usize, usize)>> {
    let mut friendships = BTreeSet::new();
    each_line(path, "two different track numbers with a space between", |line| {
        let mut numbers = line.split_whitespace().map(str::parse::<usize>);
        let (person, friend) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
        let pair = (person.min(friend), person.max(friend));
        if pair.1 < people {
            friendships.insert(pair);
        }
        (person != friend).then_some(())
    })?;
    ensure!(!friendships.is_empty(), "{} has no friendship among the first {people} people", path.display());
    Ok(friendships)
}

fn each_line(path: &Path, shape: &str, mut take: impl FnMut(&str) -> Option<()>) -> Result<()> {
    let shown = path.display();
    let mut reader = BufReader::new(File::open(path).with_context(|| format!("{shown} cannot be opened"))?);
    let packed = reader.fill_buf().is_ok_and(|start| start.starts_with(&GZIP_MAGIC));
    let text: Box<dyn BufRead> =
        if packed { Box::new(BufReader::new(MultiGzDecoder::new(reader))) } else { Box::new(reader) };
    for (index, line) in text.lines().enumerate() {
        let line = line.with_context(|| format!("{shown} cannot be read"))?;
        let line = line.trim();
        if !line.is_empty() {
            take(line).ok_or_else(|| anyhow!("{shown}: line {}: {shape} belong here", index + 1))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn file(text: &str) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file
    }

    #[test]
    fn only_the_people_asked_for() {
        let path = file("track,offset_s,lat,lon\n0,0,40,116\n0,30,40.1,116\n1,0,41,116\n2,0,42,116\n");
        assert_eq!(tracks(path.path(), 2).unwrap().len(), 2);
        let path = file("0 1\n1 0\n0 2\n");
        assert_eq!(friendships(path.path(), 2).unwrap(), BTreeSet::from([(0, 1)]));
    }

    #[test]
    fn a_wrong_line_is_named() {
        for text in ["0,0,40\n", "0,0,91,0\n", "1,0,40,116\n", "0,5,1,1\n0,5,1,1\n", "here\n"] {
            let wrong = format!("{:#}", tracks(file(text).path(), 9).err().unwrap());
            assert!(wrong.contains("line ") && wrong.contains("track,offset_s,lat,lon"), "{wrong}");
        }
        for text in ["0\n", "3 3\n", "a b\n"] {
            let wrong = format!("{:#}", friendships(file(text).path(), 9).unwrap_err());
            assert!(wrong.contains("line 1: two different"), "{wrong}");
        }
    }
}
