//! Who is a friend of whom: two numbers per line.

use std::path::Path;

use anyhow::Result;
use rustc_hash::FxHashSet;

/// Friendships between numbered people, each once, the lower number first.
#[derive(Debug, Default, PartialEq)]
pub struct Friends {
    /// Both people are among those asked for.
    pub inside: Vec<(u32, u32)>,
    /// At least one of the two is not.
    pub outside: Vec<(u32, u32)>,
}

/// Reads the friendships, apart by whether both are among the first `people`.
pub fn read(path: &Path, people: usize) -> Result<Friends> {
    let mut friends = Friends::default();
    let mut seen = FxHashSet::default();
    crate::lines::each(path, |line| {
        let pair = parse(line)?;
        if seen.insert(pair) {
            let inside = (pair.1 as usize) < people;
            if inside { &mut friends.inside } else { &mut friends.outside }.push(pair);
        }
        Ok(())
    })?;
    Ok(friends)
}

fn parse(line: &str) -> Result<(u32, u32), String> {
    let mut fields = line.split_whitespace();
    let mut number = || fields.next()?.parse::<u32>().ok();
    match (number(), number()) {
        (Some(person), Some(friend)) if person == friend => Err("nobody is their own friend".into()),
        (Some(person), Some(friend)) => Ok((person.min(friend), person.max(friend))),
        _ => Err("two numbers of people, with a space between, belong here".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lines::tests::{packed, plain};

    #[test]
    fn each_friendship_once_and_apart_by_who_takes_part() {
        let text = "0 1\n1 0\n2 1\n0 3\n";
        for file in [plain(text), packed(text)] {
            let friends = read(file.path(), 3).unwrap();
            assert_eq!(friends, Friends { inside: vec![(0, 1), (1, 2)], outside: vec![(0, 3)] });
        }
    }

    #[test]
    fn a_bad_line_is_named() {
        for (text, wanted) in [
            ("0 1\n0\n", "line 2: two numbers of people, with a space between, belong here"),
            ("4 4\n", "line 1: nobody is their own friend"),
        ] {
            let error = read(plain(text).path(), 9).unwrap_err().to_string();
            assert!(error.ends_with(wanted), "{error}");
        }
    }
}
