//! Which connection goes where, as whom.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use indicatif::ProgressBar;
use tokio::runtime::Builder;
use tokio::task::LocalSet;

use super::target::{Keys, Target};
use crate::crowd::Way;
use crate::replay::{bar, note};
use crate::rest::Rest;
use crate::scene::{Scene, Spot, user};

/// The way of everybody in a scene to a target.
pub(crate) struct Everybody<'a> {
    target: &'a Target,
    user_base: u64,
    spots: Vec<Spot>,
}

impl<'a> Everybody<'a> {
    pub(crate) fn new(target: &'a Target, scene: &Scene, user_base: u64) -> Everybody<'a> {
        let spots = (0..scene.graph.people() as u32).map(|person| scene.spot(person)).collect();
        Everybody { target, user_base, spots }
    }
}

impl Way for Everybody<'_> {
    fn address(&self, person: u32) -> SocketAddr {
        self.target.gateways[person as usize % self.target.gateways.len()].0
    }

    fn names(&self, person: u32) -> (&str, &str) {
        let address = &self.target.gateways[person as usize % self.target.gateways.len()].1;
        (address.authority(), address.path())
    }

    fn token(&self, person: u32) -> String {
        let user = user(self.user_base, person);
        match &self.target.keys {
            Keys::Plain => user.to_string(),
            // The secret was read: signing has no other way to fail, and the server would say so.
            Keys::Signed(tokens) => tokens.user(user).unwrap_or_default(),
        }
    }

    fn spot(&self, person: u32) -> Spot {
        self.spots[person as usize]
    }
}

/// Makes users and friendships on the target; those between two people who never connect change nothing and are left
/// out. Returns how many friendships there are.
pub(crate) fn set_up(target: &Target, scene: &Scene, user_base: u64, at_once: usize) -> Result<usize> {
    let Keys::Signed(tokens) = &target.keys else { return Ok(0) };
    let address = target.records.as_ref().context("no server (--url)")?;
    let is_online = |person: u32| scene.online.binary_search(&person).is_ok();
    let pairs = || scene.graph.pairs().filter(|&(person, friend)| is_online(person) || is_online(friend));
    let (people, count) = (scene.graph.people() as u32, pairs().count());
    note(&format!("{people} people, {} connections, {count} friendships", scene.online.len()));
    let runtime = Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, async {
        let rest = Rest::new(address.clone(), &tokens.backend()?);
        let users: ProgressBar = bar(people.into(), "users {bar:40} {pos}/{len}, {per_sec}");
        rest.put_users((0..people).map(|person| user(user_base, person)), at_once, &users).await?;
        users.finish_and_clear();
        let made = bar(count as u64, "friendships {bar:40} {pos}/{len}, {per_sec}, {eta} left");
        let users = pairs().map(|(person, friend)| (user(user_base, person), user(user_base, friend)));
        rest.befriend_all(users, at_once, &made).await?;
        made.finish_and_clear();
        Ok(count)
    })
}
