//! Who there is, who is connected, and where they stand.
//!
//! People live in towns that are out of sight of one another, and everybody in a town is near everybody else there. So
//! the share of friends who are near follows from the number of towns, whatever the friendships are. Floor and
//! generator make the same scene from the same options.

use std::ops::Range;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::Args;
use model::{Position, UserId};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::graph::{self, Graph, PowerLaw};

/// Ten-millionths of a degree.
const DEGREE: i32 = 10_000_000;
/// Between towns: at least 14 km as far north as they reach, where a degree of longitude is short.
const TOWN_SPACING: i32 = DEGREE / 4;
/// Towns in a column, from the equator northwards up to 60 degrees.
const TOWNS_NORTH: i32 = 238;
/// People stand up to so far from the middle of their town, on either axis: 2.2 km. Two are at most 6.3 km apart, and
/// the default radius is 8.
const TOWN_RADIUS: i32 = DEGREE / 50;

/// Who, with how many friends, and how many of these connected and near.
#[derive(Args, Debug, Clone)]
pub struct SceneOptions {
    /// Connections.
    #[arg(long, default_value_t = 1_000)]
    pub connections: u32,
    /// Friends of each, connected or not; the mean, with --power-law.
    #[arg(long, default_value_t = 40)]
    pub friends: u32,
    /// Friendships from a file instead, two people per line, gzip or plain.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["power_law", "friends"])]
    pub friends_file: Option<PathBuf>,
    /// Few have many friends: the share with more than x falls as x^(1 - EXPONENT). Without it all have the same number.
    #[arg(long, value_name = "EXPONENT")]
    pub power_law: Option<f64>,
    /// Nobody has more friends than this, with --power-law.
    #[arg(long, default_value_t = 5_000)]
    pub most_friends: u32,
    /// The share of all people who are connected, and so of everybody's friends.
    #[arg(long, default_value_t = 1.0)]
    pub online_share: f64,
    /// The share of friends who are near: 0, or 1 divided by a whole number.
    #[arg(long, default_value_t = 1.0)]
    pub near_share: f64,
    /// What friendships, places and who is connected are drawn by.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

/// What the options make.
#[derive(Debug)]
pub struct Scene {
    /// All friendships.
    pub graph: Graph,
    /// Who connects, in the order of their numbers.
    pub online: Vec<u32>,
    /// Those who are connected to other gateways, which are not there: friends of those who connect, and of nobody else.
    pub elsewhere: Range<u32>,
    towns: u32,
    seed: u64,
    is_online: Vec<bool>,
}

/// Where somebody stands, in ten-millionths of a degree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spot {
    /// Northwards. A multiple of 1,000: the last digits are the sender's to use.
    pub lat_e7: i32,
    /// Eastwards.
    pub lon_e7: i32,
}

impl SceneOptions {
    /// The command line that makes the same scene.
    pub fn arguments(&self) -> Vec<String> {
        let mut arguments = vec![
            format!("--connections={}", self.connections),
            format!("--most-friends={}", self.most_friends),
            format!("--online-share={}", self.online_share),
            format!("--near-share={}", self.near_share),
            format!("--seed={}", self.seed),
        ];
        match &self.friends_file {
            Some(file) => arguments.push(format!("--friends-file={}", file.display())),
            None => arguments.push(format!("--friends={}", self.friends)),
        }
        arguments.extend(self.power_law.map(|exponent| format!("--power-law={exponent}")));
        arguments
    }

    fn people(&self) -> u32 {
        (f64::from(self.connections) / self.online_share).round() as u32
    }
}

impl Scene {
    /// Draws it.
    pub fn new(options: &SceneOptions) -> Result<Scene> {
        ensure!(options.online_share > 0.0 && options.online_share <= 1.0, "--online-share: above 0, at most 1");
        ensure!((0.0..=1.0).contains(&options.near_share), "--near-share: from 0 to 1");
        ensure!(options.connections > 0, "--connections: at least 1");
        let people = options.people();
        let mut rng = StdRng::seed_from_u64(options.seed);
        let graph = match (&options.friends_file, options.power_law) {
            (Some(file), _) => Graph::read(file, people as usize)?,
            (None, Some(exponent)) => {
                let law = PowerLaw { mean: options.friends.into(), most: options.most_friends, exponent };
                Graph::power_law(people, law, &mut rng)?
            }
            (None, None) => Graph::ring(people, options.friends)?,
        };
        let online = graph::some(people, options.connections, &mut rng);
        Scene::of(options, graph, online, people..people)
    }

    /// One gateway of many: everybody who connects has all their friends on other gateways, `per_update` times as many
    /// people as connect. If all send equally often, so many of their positions are heard here for each one sent from
    /// here; and as each of them has `friends / per_update` friends here on average, and at least one, an update from
    /// here goes with as many checks and pushes as if all friends were here.
    pub fn among_gateways(options: &SceneOptions, per_update: u32) -> Result<Scene> {
        let here = options.connections;
        ensure!(
            options.online_share >= 1.0,
            "--published-for: all friends are connected, elsewhere (no --online-share)"
        );
        ensure!(
            (1..=options.friends).contains(&per_update),
            "--published-for: from 1 to as many as --friends, {}",
            options.friends
        );
        let mut rng = StdRng::seed_from_u64(options.seed);
        let graph = Graph::apart(here, per_update * here, options.friends, &mut rng)?;
        let people = here + per_update * here;
        Scene::of(options, graph, (0..here).collect(), here..people)
    }

    fn of(options: &SceneOptions, graph: Graph, online: Vec<u32>, elsewhere: Range<u32>) -> Result<Scene> {
        ensure!((0.0..=1.0).contains(&options.near_share), "--near-share: from 0 to 1");
        ensure!(options.connections > 0, "--connections: at least 1");
        let people = graph.people() as u32;
        let towns = if options.near_share > 0.0 { (1.0 / options.near_share).round() as u32 } else { people };
        let mut is_online = vec![false; people as usize];
        online.iter().for_each(|&person| is_online[person as usize] = true);
        let towns = towns.clamp(1, people);
        let scene = Scene { graph, online, elsewhere, towns, seed: options.seed, is_online };
        // The last town is the farthest.
        (0..scene.towns).last().map_or(Ok(()), |town| scene.position(town).map(|_| ()))?;
        Ok(scene)
    }

    /// Where somebody stands.
    pub fn spot(&self, person: u32) -> Spot {
        let town = (person % self.towns) as i32;
        let mut rng = StdRng::seed_from_u64(self.seed ^ (u64::from(person) << 20));
        let mut offset = || rng.random_range(-TOWN_RADIUS..=TOWN_RADIUS);
        let lat = DEGREE + (town % TOWNS_NORTH) * TOWN_SPACING + offset();
        let lon = (town / TOWNS_NORTH) * TOWN_SPACING + DEGREE + offset();
        Spot { lat_e7: lat - lat % 1_000, lon_e7: lon }
    }

    fn position(&self, person: u32) -> Result<Position> {
        let Spot { lat_e7, lon_e7 } = self.spot(person);
        Position::from_e7(lat_e7, lon_e7)
            .context("too many towns for one Earth: fewer people, or a larger --near-share")
    }

    /// The friends of one who are connected here and near: who is pushed each position of theirs.
    pub fn watchers(&self, person: u32) -> impl Iterator<Item = u32> + '_ {
        self.near(person).filter(|&friend| self.is_online[friend as usize])
    }

    fn near(&self, person: u32) -> impl Iterator<Item = u32> + '_ {
        let town = person % self.towns;
        self.connected(person).filter(move |&friend| friend % self.towns == town)
    }

    /// The friends of one who are connected, here or elsewhere.
    fn connected(&self, person: u32) -> impl Iterator<Item = u32> + '_ {
        let is_connected = |friend: &u32| self.is_online[*friend as usize] || self.elsewhere.contains(friend);
        self.graph.of(person).iter().copied().filter(is_connected)
    }

    /// On average, of those who connect: friends connected, here or elsewhere, and of these near.
    pub fn friends_online_and_near(&self) -> (f64, f64) {
        let mean = |total: usize| total as f64 / self.online.len().max(1) as f64;
        let (all, near) = self.online.iter().fold((0, 0), |(all, near), &person| {
            (all + self.connected(person).count(), near + self.near(person).count())
        });
        (mean(all), mean(near))
    }
}

/// The user that a person is.
pub(crate) fn user(base: u64, person: u32) -> UserId {
    UserId(base + u64::from(person))
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use model::haversine;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: SceneOptions,
    }

    fn options(more: &[&str]) -> SceneOptions {
        Line::parse_from([&["test"], more].concat()).options
    }

    /// By the distances, not by the towns.
    fn near(scene: &Scene, person: u32) -> Vec<u32> {
        let here = scene.position(person).unwrap();
        let is_near = |friend: &u32| {
            scene.is_online[*friend as usize] && haversine(here, scene.position(*friend).unwrap()).0 < 8_046.0
        };
        scene.graph.of(person).iter().copied().filter(is_near).collect()
    }

    #[test]
    fn as_many_friends_are_near_as_asked_for() {
        for (share, wanted) in [("1", 40), ("0.1", 4), ("0", 0)] {
            let scene = Scene::new(&options(&["--connections", "1000", "--near-share", share])).unwrap();
            for person in 0..1_000 {
                let near = near(&scene, person);
                assert_eq!(near.len(), wanted, "{share}");
                assert_eq!(near, scene.watchers(person).collect::<Vec<_>>());
            }
            assert_eq!(scene.friends_online_and_near(), (40.0, wanted as f64));
        }
    }

    #[test]
    fn friends_are_connected_as_often_as_asked_for() {
        let scene = Scene::new(&options(&["--connections", "1000", "--online-share", "0.1"])).unwrap();
        assert_eq!((scene.online.len(), scene.graph.people()), (1_000, 10_000));
        let (online, near) = scene.friends_online_and_near();
        assert!((3.6..4.4).contains(&online) && near == online, "{online} {near}");
    }

    #[test]
    fn among_gateways_as_many_are_heard_checked_and_told_for_each_update_as_asked_for() {
        let options = options(&["--connections", "300", "--near-share", "0.1"]);
        let scene = Scene::among_gateways(&options, 33).unwrap();
        assert_eq!((scene.online.len(), scene.elsewhere.clone()), (300, 300..300 + 33 * 300));
        let (online, near) = scene.friends_online_and_near();
        // Who is near is by lot.
        assert!((39.9..=40.0).contains(&online) && (3.5..4.5).contains(&near), "{online} {near}");
        // Each of the others sends once for each that one here sends.
        let heard =
            |of: fn(&Scene, u32) -> usize| scene.elsewhere.clone().map(|other| of(&scene, other)).sum::<usize>();
        let (checks, told) =
            (heard(|scene, other| scene.graph.of(other).len()), heard(|scene, other| scene.watchers(other).count()));
        assert_eq!((checks as f64 / 300.0, told as f64 / 300.0), (online, near));
        assert!(
            scene.elsewhere.clone().all(|other| !scene.graph.of(other).is_empty()),
            "who has nobody here is not heard here"
        );
        assert!(scene.online.iter().all(|&person| scene.watchers(person).next().is_none()));
        for wrong in [0, 41] {
            assert!(Scene::among_gateways(&options, wrong).is_err());
        }
    }

    #[test]
    fn towns_are_out_of_sight_of_each_other_up_to_the_last() {
        let scene = Scene::new(&options(&["--connections", "20000", "--near-share", "0"])).unwrap();
        let closest = (0..500).map(|step| {
            let (one, other) = (19_999 - step, 19_998 - step);
            haversine(scene.position(one).unwrap(), scene.position(other).unwrap()).0
        });
        assert!(closest.fold(f64::MAX, f64::min) > 9_000.0);
        let east = haversine(scene.position(237).unwrap(), scene.position(237 + 238).unwrap()).0;
        assert!(east > 9_000.0, "{east}");
    }

    #[test]
    fn the_command_line_makes_the_same_scene() {
        let first =
            options(&["--connections=300", "--friends=12", "--power-law=2.4", "--online-share=0.5", "--seed=9"]);
        let arguments = first.arguments();
        let again = options(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
        let (one, other) = (Scene::new(&first).unwrap(), Scene::new(&again).unwrap());
        assert_eq!((&one.graph, &one.online), (&other.graph, &other.online));
        assert!((0..300).all(|person| one.spot(person) == other.spot(person)));
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for wrong in [["--online-share", "0"], ["--near-share", "1.5"], ["--connections", "0"], ["--friends", "7"]] {
            assert!(Scene::new(&options(&wrong)).is_err(), "{wrong:?}");
        }
    }
}
