//! Made-up people, in the load tester's files.

use std::fmt::Write as _;
use std::path::Path;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// How many there are.
pub(crate) const PEOPLE: usize = 60;
const POINTS: usize = 60;

/// Writes tracks and friendships, and returns the files' names.
pub(crate) fn write(dir: &Path, seed: u64) -> (String, String) {
    let mut rng = StdRng::seed_from_u64(seed);
    let file = |name: &str, text: String| {
        let path = dir.join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    (file("tracks.csv", tracks(&mut rng)), file("friends.txt", friends(&mut rng)))
}

/// People on a line of about 20 km who walk up and down; every third stops early.
fn tracks(rng: &mut StdRng) -> String {
    let mut text = String::from("track,offset_s,lat,lon\n");
    for person in 0..PEOPLE {
        let mut lat = 40.0 + rng.random_range(0.0..0.2);
        let points = if person % 3 == 0 { POINTS / 3 } else { POINTS };
        for point in 0..points {
            lat += rng.random_range(-0.02..0.02);
            writeln!(text, "{person},{},{lat:.5},116.3", point * 30).unwrap();
        }
    }
    text
}

fn friends(rng: &mut StdRng) -> String {
    let pairs = (0..PEOPLE).flat_map(|person| (person + 1..PEOPLE).map(move |friend| (person, friend)));
    let pairs = pairs.filter(|_| rng.random_bool(0.4)).collect::<Vec<_>>();
    pairs.iter().fold(String::new(), |mut text, (person, friend)| {
        writeln!(text, "{person} {friend}").unwrap();
        text
    })
}
