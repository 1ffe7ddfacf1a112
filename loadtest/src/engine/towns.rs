//! People in towns: a generated friend graph in which exactly the wanted number of everybody's friends is near.
//!
//! Everybody has a rank. Ranks that follow each other share a town; the near friends are the neighbours by rank within
//! the town, the others live a fixed number of whole towns away. So each person has exactly as many friends, near ones
//! and watchers as asked for. Ids are shuffled over the ranks, as a server meets them: whoever is next in memory is a
//! stranger.

use std::f64::consts::TAU;

use anyhow::{Context, Result, ensure};
use model::{Position, UserId};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::{SliceRandom, index};

/// Towns this far apart see nothing of each other at five miles, whatever their people do.
const TOWN_SPACING_M: f64 = 20_000.0;
/// Nobody goes further from the middle of the town: all of it is within five miles of each of its people.
const TOWN_RADIUS_M: f64 = 2_000.0;
/// A degree of latitude.
const DEGREE_M: f64 = 111_195.0;
/// Beyond this latitude, to the south and to the north, there are no towns.
const LAST_LATITUDE: f64 = 60.0;
/// People of a town at least.
const SMALLEST_TOWN: u32 = 50;
/// Application databases give ids in sequence, and a shard has a share of them.
const ID_STEP: u64 = 100;

/// How many people, and how befriended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Connected; rounded up to whole towns.
    pub people: u32,
    /// Connected friends of each; even.
    pub friends: u32,
    /// Those of them in the same town; even.
    pub near: u32,
    /// Friends of each who are not connected.
    pub absent: u32,
    /// Who is not connected at all, as a multiple of those who are: each has `absent / absent_people` friends here.
    pub absent_people: u32,
}

/// The people.
#[derive(Debug)]
pub(super) struct Towns {
    shape: Shape,
    town: u32,
    /// Rank -> id, both from 0.
    ids: Vec<u32>,
    /// Whole towns to the friends in other towns, to either side.
    away: Vec<u32>,
    /// Places to the friends who are not connected.
    absent: Vec<u32>,
}

impl Towns {
    /// Settles the people; the same seed gives the same friends.
    pub(super) fn settle(shape: Shape, seed: u64) -> Result<Towns> {
        let Shape { friends, near, absent, absent_people, .. } = shape;
        ensure!(friends % 2 == 0 && near % 2 == 0, "friendship is mutual: --friends and --near have to be even");
        ensure!(near <= friends, "--near counts among --friends");
        ensure!(absent == 0 || absent_people > 0, "somebody has to be absent");
        let town = SMALLEST_TOWN.max(near + 1);
        let people = shape.people.div_ceil(town) * town;
        let towns = people / town;
        let pairs = (friends - near) / 2;
        // Each distance is used to both sides, and half around is one friend only.
        let distances = (towns.saturating_sub(1)) / 2;
        ensure!(pairs <= distances, "{people} people are {towns} towns: too few for {friends} friends of each");
        let mut random = StdRng::seed_from_u64(seed);
        let away = index::sample(&mut random, distances as usize, pairs as usize);
        let strangers = people.checked_mul(absent_people).context("too many people")?;
        ensure!(absent <= strangers, "too few absent people for {absent} absent friends of each");
        let places = index::sample(&mut random, strangers as usize, absent as usize);
        let mut ids: Vec<u32> = (0..people).collect();
        ids.shuffle(&mut random);
        Ok(Towns {
            shape: Shape { people, ..shape },
            town,
            ids,
            away: away.into_iter().map(|distance| distance as u32 + 1).collect(),
            absent: places.into_iter().map(|place| place as u32).collect(),
        })
    }

    /// What came out, whole towns.
    pub(super) fn shape(&self) -> Shape {
        self.shape
    }

    /// A person's user.
    pub(super) fn user(&self, rank: u32) -> UserId {
        UserId(u64::from(self.ids[rank as usize]) * ID_STEP)
    }

    /// Ranks in the order of their ids, which has nothing to do with who lives where.
    pub(super) fn by_id(&self) -> Vec<u32> {
        let mut ranks = vec![0; self.ids.len()];
        for (rank, id) in self.ids.iter().enumerate() {
            ranks[*id as usize] = rank as u32;
        }
        ranks
    }

    /// The connected friends of a person, as ranks: each once, and each the other way round as well.
    pub(super) fn friends(&self, rank: u32) -> impl Iterator<Item = u32> + '_ {
        let (people, town) = (self.shape.people, self.town);
        let (home, place) = (rank - rank % town, rank % town);
        let neighbours = (1..=self.shape.near / 2)
            .flat_map(move |step| [home + (place + step) % town, home + (place + town - step) % town]);
        let away = self.away.iter().flat_map(move |towns| {
            let step = towns * town;
            [(rank + step) % people, (rank + people - step) % people]
        });
        neighbours.chain(away)
    }

    /// The friends of a person who are not connected. Their ids are not among those of [`Towns::user`].
    pub(super) fn absent_friends(&self, rank: u32) -> impl Iterator<Item = UserId> + '_ {
        let absent_people = u64::from(self.shape.absent_people);
        let strangers = u64::from(self.shape.people) * absent_people;
        let id = move |place: &u32| (u64::from(rank) * absent_people + u64::from(*place)) % strangers.max(1);
        self.absent.iter().map(id).map(|id| UserId(id * ID_STEP + 1))
    }

    /// Where somebody is at a step of theirs: on a circle of their own around the middle of their town, each at their
    /// own pace, between a stroll and a car in a town in the time of one step.
    pub(super) fn position(&self, rank: u32, step: u64, step_s: f64) -> Result<Position> {
        let town = f64::from(rank / self.town);
        let rows = (2.0 * LAST_LATITUDE * DEGREE_M / TOWN_SPACING_M).floor();
        // At the last latitude a degree of longitude is half as long.
        let columns = (360.0 * DEGREE_M * LAST_LATITUDE.to_radians().cos() / TOWN_SPACING_M).floor();
        ensure!(town < rows * columns, "no room on the Earth for so many towns");
        let (row, column) = (town % rows, (town / rows).floor());
        let (lat, lon) = (-LAST_LATITUDE + row * TOWN_SPACING_M / DEGREE_M, -180.0 + column * 360.0 / columns);
        // Golden sections spread whatever they are taken of.
        let share = (f64::from(rank) * 0.618_033_988_749_895).fract();
        let radius = TOWN_RADIUS_M * (0.25 + 0.75 * share);
        let metres_per_s = 1.0 + 14.0 * (f64::from(rank) * 0.754_877_666_246_693).fract();
        let angle = TAU * share + step as f64 * step_s * metres_per_s / radius;
        let (north, east) = (radius * angle.sin(), radius * angle.cos());
        let (lat, lon) = (lat + north / DEGREE_M, lon + east / (DEGREE_M * lat.to_radians().cos()));
        Position::new(lat, (lon + 540.0).rem_euclid(360.0) - 180.0).context("no such place")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use model::{Meters, haversine};

    use super::*;

    const SHAPE: Shape = Shape { people: 4_000, friends: 12, near: 4, absent: 6, absent_people: 2 };

    #[test]
    fn everybody_has_as_many_friends_and_near_ones_as_asked_for() {
        let towns = Towns::settle(SHAPE, 7).unwrap();
        for rank in 0..towns.shape().people {
            let friends: BTreeSet<u32> = towns.friends(rank).collect();
            assert_eq!((friends.len(), friends.contains(&rank)), (12, false));
            assert!(friends.iter().all(|friend| towns.friends(*friend).any(|theirs| theirs == rank)), "mutual");
            for step in [0, 1, 17] {
                let at = |who| towns.position(who, step, 30.0).unwrap();
                let near = |friend: &&u32| haversine(at(rank), at(**friend)).0 <= Meters::FIVE_MILES.0;
                assert_eq!(friends.iter().filter(near).count(), 4, "of rank {rank} at step {step}");
            }
        }
    }

    #[test]
    fn those_who_are_absent_are_nobody_who_is_here() {
        let towns = Towns::settle(SHAPE, 7).unwrap();
        let here: BTreeSet<UserId> = (0..towns.shape().people).map(|rank| towns.user(rank)).collect();
        let mut watchers = std::collections::BTreeMap::<UserId, u32>::new();
        for rank in 0..towns.shape().people {
            let absent: BTreeSet<UserId> = towns.absent_friends(rank).collect();
            assert_eq!(absent.len(), 6);
            absent.iter().for_each(|user| *watchers.entry(*user).or_default() += 1);
        }
        assert!(watchers.keys().all(|user| !here.contains(user)));
        let total: u32 = watchers.values().sum();
        assert_eq!(total, 6 * towns.shape().people);
        assert!(watchers.len() as u32 <= 2 * towns.shape().people);
    }

    #[test]
    fn the_seed_decides() {
        let ids = |seed| Towns::settle(SHAPE, seed).unwrap().ids;
        assert_eq!(ids(1), ids(1));
        assert_ne!(ids(1), ids(2));
        let wrong = |shape| Towns::settle(shape, 1).unwrap_err().to_string();
        assert!(wrong(Shape { near: 14, ..SHAPE }).contains("--near"));
        assert!(wrong(Shape { people: 100, ..SHAPE }).contains("too few"));
    }
}
