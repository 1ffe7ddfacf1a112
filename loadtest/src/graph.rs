//! Who is a friend of whom, as a table: read from a file, or drawn.

use std::path::Path;

use anyhow::{Result, ensure};
use rand::seq::SliceRandom;
use rand::{Rng, RngExt};

use crate::friends;

/// Friendships of numbered people. Lists are side by side, so that a run over somebody's friends is one over memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Graph {
    starts: Vec<u32>,
    friends: Vec<u32>,
}

/// How many friends people have when it is drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PowerLaw {
    /// On average.
    pub mean: f64,
    /// Nobody has more.
    pub most: u32,
    /// The share of people with more than x friends falls as `x^(1 - exponent)`; above 1.
    pub exponent: f64,
}

impl Graph {
    /// Of these friendships, each given once.
    pub fn of_pairs(people: usize, pairs: &[(u32, u32)]) -> Graph {
        let mut starts = vec![0; people + 1];
        for person in pairs.iter().flat_map(|&(one, other)| [one, other]) {
            starts[person as usize + 1] += 1;
        }
        for person in 0..people {
            starts[person + 1] += starts[person];
        }
        let mut free = starts.clone();
        let mut friends = vec![0; pairs.len() * 2];
        for &(one, other) in pairs {
            for (person, friend) in [(one, other), (other, one)] {
                friends[free[person as usize] as usize] = friend;
                free[person as usize] += 1;
            }
        }
        for person in 0..people {
            friends[starts[person] as usize..starts[person + 1] as usize].sort_unstable();
        }
        Graph { starts, friends }
    }

    /// From a file with two numbers a line; who is not among the first `people` is left out.
    pub fn read(file: &Path, people: usize) -> Result<Graph> {
        Ok(Graph::of_pairs(people, &friends::read(file, people)?.inside))
    }

    /// Everybody in a ring has the same number of friends: the nearest on either side.
    pub fn ring(people: u32, friends: u32) -> Result<Graph> {
        ensure!(friends.is_multiple_of(2) && friends < people, "friends in a ring: even, and fewer than people");
        let ahead = |person: u32| (1..=friends / 2).map(move |step| (person, (person + step) % people));
        let pairs: Vec<_> = (0..people).flat_map(ahead).collect();
        Ok(Graph::of_pairs(people as usize, &pairs))
    }

    /// Few have many friends: numbers of friends by a power law, and who with whom by lot.
    pub fn power_law(people: u32, law: PowerLaw, rng: &mut impl Rng) -> Result<Graph> {
        ensure!(law.exponent > 1.0, "the exponent of the power law must be above 1");
        let most = law.most.min(people.saturating_sub(1));
        ensure!(law.mean >= 1.0 && law.mean <= f64::from(most), "the mean of friends must be from 1 to {most}");
        let mut wanted = numbers_of_friends(people, most, law);
        wanted.shuffle(rng);
        Ok(Graph::of_pairs(people as usize, &drawn(&wanted, rng)))
    }

    /// The first `here` people each have `friends` among the `others` who come after them, by lot; every one of the
    /// others has at least one. What would be the same friendship twice is left out.
    pub fn apart(here: u32, others: u32, friends: u32, rng: &mut impl Rng) -> Result<Graph> {
        let wanted = here * friends;
        ensure!(others > 0 && others <= wanted, "others: from 1 to as many as there are friendships, {wanted}");
        let again = (others..wanted).map(|_| rng.random_range(0..others));
        let mut names: Vec<u32> = (0..others).chain(again).collect();
        names.shuffle(rng);
        let mut pairs: Vec<(u32, u32)> =
            names.iter().zip(0..).map(|(&other, at): (_, u32)| (at / friends, here + other)).collect();
        pairs.sort_unstable();
        pairs.dedup();
        Ok(Graph::of_pairs((here + others) as usize, &pairs))
    }

    /// How many people there are.
    pub fn people(&self) -> usize {
        self.starts.len() - 1
    }

    /// The friends of one, in the order of their numbers.
    pub fn of(&self, person: u32) -> &[u32] {
        let person = person as usize;
        &self.friends[self.starts[person] as usize..self.starts[person + 1] as usize]
    }

    /// Each friendship once, the lower number first.
    pub fn pairs(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        let later = |person: u32| self.of(person).iter().filter(move |&&friend| friend > person);
        (0..self.people() as u32).flat_map(move |person| later(person).map(move |&friend| (person, friend)))
    }
}

/// Evenly spaced quantiles of a Pareto distribution cut off at `most`; where it begins is what gives the mean.
fn numbers_of_friends(people: u32, most: u32, law: PowerLaw) -> Vec<u32> {
    let (tail, most) = (law.exponent - 1.0, f64::from(most));
    let quantile = |least: f64, at: u32| {
        let share = (f64::from(at) + 0.5) / f64::from(people);
        least * (1.0 - share * (1.0 - (least / most).powf(tail))).powf(-1.0 / tail)
    };
    let mean = |least: f64| (0..people).map(|at| quantile(least, at)).sum::<f64>() / f64::from(people);
    let (mut low, mut high) = (1e-3, most);
    for _ in 0..60 {
        let middle = (low + high) / 2.0;
        if mean(middle) < law.mean { low = middle } else { high = middle }
    }
    (0..people).map(|at| (quantile(low, at).round() as u32).clamp(1, most as u32)).collect()
}

/// Everybody puts in their name once per friend wanted; names are drawn two by two. What makes no new friendship is
/// put in again a few times, and then left out.
fn drawn(wanted: &[u32], rng: &mut impl Rng) -> Vec<(u32, u32)> {
    let named = wanted.iter().zip(0..).flat_map(|(&count, person)| std::iter::repeat_n(person, count as usize));
    let mut names: Vec<u32> = named.collect();
    let mut pairs: Vec<(u32, u32)> = Vec::with_capacity(names.len() / 2);
    for _ in 0..20 {
        names.shuffle(rng);
        let tried = names.chunks_exact(2).map(|two| (two[0].min(two[1]), two[0].max(two[1])));
        pairs.extend(tried);
        pairs.sort_unstable();
        names.clear();
        let mut before = None;
        pairs.retain(|&pair| {
            let is_new = pair.0 != pair.1 && before != Some(pair);
            if !is_new {
                names.extend([pair.0, pair.1]);
            }
            before = Some(pair);
            is_new
        });
        if names.len() < 2 {
            break;
        }
    }
    pairs
}

/// So many of `people`, by lot, in the order of their numbers.
pub(crate) fn some(people: u32, count: u32, rng: &mut impl Rng) -> Vec<u32> {
    let mut all: Vec<u32> = (0..people).collect();
    for at in 0..count.min(people) {
        let other = rng.random_range(at..people);
        all.swap(at as usize, other as usize);
    }
    all.truncate(count as usize);
    all.sort_unstable();
    all
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;
    use rustc_hash::FxHashSet;

    use super::*;

    fn is_sound(graph: &Graph) {
        for person in 0..graph.people() as u32 {
            let friends = graph.of(person);
            assert!(friends.windows(2).all(|two| two[0] < two[1]), "in order, each once");
            assert!(friends.iter().all(|&friend| friend != person && graph.of(friend).binary_search(&person).is_ok()));
        }
        let pairs: FxHashSet<_> = graph.pairs().collect();
        assert_eq!(pairs.len() * 2, graph.friends.len());
    }

    #[test]
    fn a_ring_gives_everybody_the_same() {
        let graph = Graph::ring(50, 40).unwrap();
        is_sound(&graph);
        assert!((0..50).all(|person| graph.of(person).len() == 40));
        assert_eq!(Graph::ring(10, 4).unwrap().of(0), [1, 2, 8, 9]);
        assert!(Graph::ring(10, 10).is_err() && Graph::ring(10, 3).is_err());
    }

    #[test]
    fn two_crowds_know_only_each_other() {
        let graph = Graph::apart(50, 200, 10, &mut StdRng::seed_from_u64(1)).unwrap();
        is_sound(&graph);
        assert!((0..50).all(|person| (8..=10).contains(&graph.of(person).len())));
        assert!((0..50).all(|person| graph.of(person).iter().all(|&friend| friend >= 50)));
        assert!((50..250).all(|person| !graph.of(person).is_empty()));
        assert!(Graph::apart(2, 21, 10, &mut StdRng::seed_from_u64(1)).is_err());
    }

    #[test]
    fn a_power_law_has_the_mean_the_cut_and_the_tail_that_were_asked_for() {
        let law = PowerLaw { mean: 40.0, most: 5_000, exponent: 2.2 };
        let graph = Graph::power_law(20_000, law, &mut StdRng::seed_from_u64(1)).unwrap();
        is_sound(&graph);
        let mut counts: Vec<usize> = (0..20_000).map(|person| graph.of(person).len()).collect();
        counts.sort_unstable();
        let mean = counts.iter().sum::<usize>() as f64 / 20_000.0;
        assert!((38.0..=40.5).contains(&mean), "{mean}");
        let most = counts[19_999];
        assert!((2_500..=5_000).contains(&most), "{most}");
        assert!(counts[10_000] < 25, "half have few: {}", counts[10_000]);
        // In the tail, well before the cut: P(> 2x) / P(> x) = 2^-1.2.
        let more_than = |limit: usize| counts.iter().filter(|&&count| count > limit).count() as f64;
        let slope = (more_than(200) / more_than(100)).log2();
        assert!((-1.45..-1.05).contains(&slope), "{slope}");
    }

    #[test]
    fn the_same_seed_draws_the_same_and_another_does_not() {
        let law = PowerLaw { mean: 10.0, most: 100, exponent: 2.5 };
        let draw = |seed| Graph::power_law(500, law, &mut StdRng::seed_from_u64(seed)).unwrap();
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
    }

    #[test]
    fn small_crowds_are_not_asked_for_more_friends_than_there_are_people() {
        let law = PowerLaw { mean: 5.0, most: 5_000, exponent: 2.2 };
        let graph = Graph::power_law(12, law, &mut StdRng::seed_from_u64(3)).unwrap();
        is_sound(&graph);
        assert!((0..12).all(|person| graph.of(person).len() < 12));
        let impossible = PowerLaw { mean: 50.0, ..law };
        assert!(Graph::power_law(12, impossible, &mut StdRng::seed_from_u64(3)).is_err());
    }

    #[test]
    fn some_are_as_many_as_asked_for_each_once() {
        let mut rng = StdRng::seed_from_u64(4);
        let few = some(1_000, 100, &mut rng);
        assert_eq!(few.len(), 100);
        assert!(few.windows(2).all(|two| two[0] < two[1]));
        assert_eq!(some(5, 5, &mut rng), [0, 1, 2, 3, 4]);
    }
}
