//! Recorded movement: `track,offset_s,lat,lon`, one point per line.

use std::path::Path;

use anyhow::{Result, ensure};
use model::Position;

/// One recorded point.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// Seconds since the recording began.
    pub offset_s: u32,
    /// Where.
    pub position: Position,
}

/// The points of one person, in order; never empty.
pub type Track = Vec<Point>;

/// Reads the first `people` tracks (all if `None`). Track i is the i-th of the answer; tracks stand one after another
/// from 0 on, each with growing offsets.
pub fn read(path: &Path, people: Option<usize>) -> Result<Vec<Track>> {
    let mut tracks: Vec<Track> = Vec::new();
    crate::lines::each(path, |line| {
        if line.starts_with("track,") {
            return Ok(());
        }
        let (track, point) = parse(line)?;
        if people.is_some_and(|people| track >= people) {
            return Ok(());
        }
        if track == tracks.len() {
            tracks.push(Vec::new());
        } else if track + 1 != tracks.len() {
            return Err(format!("track {track} where {} or its successor belongs", tracks.len().saturating_sub(1)));
        }
        let points = &mut tracks[track];
        if points.last().is_some_and(|last| last.offset_s >= point.offset_s) {
            return Err(format!("offset {} is not after the one before", point.offset_s));
        }
        points.push(point);
        Ok(())
    })?;
    ensure!(!tracks.is_empty(), "{} holds no track", path.display());
    Ok(tracks)
}

fn parse(line: &str) -> Result<(usize, Point), String> {
    let mut fields = line.split(',');
    let mut field = |name: &str| fields.next().map(str::trim).ok_or_else(|| format!("{name} is missing"));
    let track = field("track")?.parse().map_err(|_| "track must be a number from 0".to_owned())?;
    let offset_s = field("offset_s")?.parse().map_err(|_| "offset_s must be whole seconds".to_owned())?;
    let lat = field("lat")?.parse().map_err(|_| "lat must be a number".to_owned())?;
    let lon = field("lon")?.parse().map_err(|_| "lon must be a number".to_owned())?;
    let position = Position::new(lat, lon).map_err(|bad| bad.to_string())?;
    Ok((track, Point { offset_s, position }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lines::tests::{packed, plain};

    const TWO: &str = "track,offset_s,lat,lon\n0,0,40.1,116.1\n0,30,40.2,116.2\n1,0,40.3,116.3\n";

    #[test]
    fn plain_and_packed_read_the_same() {
        let (plain, packed) = (read(plain(TWO).path(), None).unwrap(), read(packed(TWO).path(), None).unwrap());
        assert_eq!(plain, packed);
        assert_eq!(plain.iter().map(Vec::len).collect::<Vec<_>>(), [2, 1]);
        assert_eq!(plain[0][1], Point { offset_s: 30, position: Position::new(40.2, 116.2).unwrap() });
    }

    #[test]
    fn as_many_people_as_wanted() {
        assert_eq!(read(plain(TWO).path(), Some(1)).unwrap().len(), 1);
    }

    #[test]
    fn a_bad_line_is_named() {
        for (text, wanted) in [
            ("0,0,40,116\n0,30,95,116\n", "line 2: must be a number of degrees from -90 to 90"),
            ("0,0,40\n", "line 1: lon is missing"),
            ("0,x,40,116\n", "line 1: offset_s must be whole seconds"),
            ("0,30,40,116\n\n0,30,40,116\n", "line 3: offset 30 is not after the one before"),
            ("0,0,40,116\n2,0,40,116\n", "line 2: track 2 where 0 or its successor belongs"),
        ] {
            let error = read(plain(text).path(), None).unwrap_err().to_string();
            assert!(error.ends_with(wanted), "{error}");
        }
        let none = read(plain("track,offset_s,lat,lon\n").path(), None).unwrap_err().to_string();
        assert!(none.ends_with("holds no track"), "{none}");
    }
}
