//! Who lives in the demo, and who is whose friend.

use std::collections::BTreeSet;
use std::path::PathBuf;

use anyhow::Result;
use model::UserId;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::city::Resident;
use super::movement::Movement;
use super::recorded;

/// Of the other people, so many in a hundred are friends of the person that is shown.
const FRIENDS_OF_SHOWN_PERCENT: usize = 40;
/// So many friends everybody else looks for.
const FRIENDS_LOOKED_FOR: usize = 3;

#[rustfmt::skip]
const NAMES: [&str; 72] = [
    "Mia", "Ada", "Ben", "Cleo", "Dan", "Emma", "Finn", "Greta", "Hugo", "Ida", "Jonas", "Kaya", "Leo", "Maya", "Nils",
    "Olga", "Paul", "Quinn", "Rosa", "Sam", "Tara", "Umar", "Vera", "Will", "Xenia", "Yusuf", "Zoe", "Anton", "Bella",
    "Carlos", "Dora", "Elif", "Felix", "Gina", "Hana", "Ivan", "Julia", "Karim", "Lena", "Marco", "Nora", "Oskar",
    "Petra", "Rami", "Sofia", "Tim", "Ulla", "Victor", "Wanda", "Yara", "Amir", "Britta", "Chen", "Dilan", "Eva",
    "Fatou", "Georg", "Helen", "Ines", "Jakob", "Klara", "Luis", "Mona", "Noah", "Otto", "Pia", "Ravi", "Selma", "Theo",
    "Uta", "Wei", "Zack",
];

/// A person of the demo.
pub(crate) struct Person {
    /// The user they are.
    pub(crate) user: UserId,
    /// What friends call them.
    pub(crate) name: String,
    /// Their way through the day.
    pub(crate) movement: Movement,
}

/// Everybody.
pub(crate) struct People {
    /// Person i is the user i + 1.
    pub(crate) everybody: Vec<Person>,
    /// Pairs of indices into `everybody`.
    pub(crate) friendships: BTreeSet<(usize, usize)>,
    /// The index of the person whose list is shown.
    pub(crate) shown: usize,
}

/// Files with recorded people.
pub(crate) struct Files {
    /// Movement.
    pub(crate) tracks: PathBuf,
    /// Friendships.
    pub(crate) friends: PathBuf,
}

impl People {
    /// A made-up city of so many people.
    pub(crate) fn made_up(count: usize, seed: u64) -> People {
        let movements =
            (0..count).map(|index| Movement::MadeUp(Box::new(Resident::new(seed, index as u64, index == 0))));
        let mut rng = StdRng::seed_from_u64(seed);
        let mut friendships = BTreeSet::new();
        let wanted = (count * FRIENDS_OF_SHOWN_PERCENT / 100).max(1);
        while friendships.len() < wanted {
            friendships.insert((0, rng.random_range(1..count)));
        }
        for person in 1..count {
            for _ in 0..FRIENDS_LOOKED_FOR {
                let friend = rng.random_range(1..count);
                if friend != person {
                    friendships.insert((person.min(friend), person.max(friend)));
                }
            }
        }
        People { everybody: everybody(movements), friendships, shown: 0 }
    }

    /// At most so many recorded people; the one with the most friends among them is shown.
    pub(crate) fn recorded(files: &Files, count: usize) -> Result<People> {
        let recordings = recorded::tracks(&files.tracks, count)?;
        let friendships = recorded::friendships(&files.friends, recordings.len())?;
        let everybody = everybody(recordings.into_iter().map(Movement::Recorded));
        let mut people = People { everybody, friendships, shown: 0 };
        let most =
            (0..people.everybody.len()).max_by_key(|index| (people.friends_of(*index), std::cmp::Reverse(*index)));
        people.shown = most.unwrap_or(0);
        Ok(people)
    }

    /// How many friends a person has.
    pub(crate) fn friends_of(&self, index: usize) -> usize {
        self.friendships.iter().filter(|(person, friend)| *person == index || *friend == index).count()
    }
}

fn everybody(movements: impl Iterator<Item = Movement>) -> Vec<Person> {
    let person = |(index, movement)| Person { user: UserId(index as u64 + 1), name: name(index), movement };
    movements.enumerate().map(person).collect()
}

/// Everybody's name is their own.
fn name(index: usize) -> String {
    let name = NAMES[index % NAMES.len()];
    match index / NAMES.len() {
        0 => name.into(),
        round => format!("{name} {}", round + 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_nobody_is_alone() {
        let names: BTreeSet<String> = (0..400).map(name).collect();
        assert_eq!(names.len(), 400);
        for count in [2, 3, 60] {
            let people = People::made_up(count, 1);
            assert_eq!(people.friends_of(0), (count * 2 / 5).max(1), "of {count}");
            assert_eq!(people.friendships, People::made_up(count, 1).friendships);
        }
    }
}
