//! A small city of people on the very same server: every person is a user with a token and a phone with a WebSocket,
//! and what is shown is what one of those phones was told.

mod city;
mod introduction;
mod movement;
mod near;
mod people;
mod phone;
mod recorded;
mod rest;
mod screen;
mod shown;

pub(crate) use people::{Files, People};
pub(crate) use screen::Screen;
pub(crate) use shown::Shown;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Error, Result};
use model::UserId;
use ports::Clock;
use tokio::task::JoinSet;
use tokio::time::sleep;
use web::tokens::issue;
use web::{Scope, Scopes};

use people::Person;
use phone::Phone;
use rest::Rest;

/// Friends appear one after another, so that one sees them come.
const ARRIVALS: Duration = Duration::from_millis(2_500);
/// A demo that runs for longer has to be started anew.
const TOKEN_LIFE: Duration = Duration::from_secs(24 * 3_600);

/// What the demo needs to know of the server it is a client of.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// Its data directory.
    pub(crate) data_dir: PathBuf,
    /// The data directory is removed at the end.
    pub(crate) temporary: bool,
    /// After how long a silence a friend is gone.
    pub(crate) ttl_s: u64,
    /// The radius of everybody's list.
    pub(crate) radius_m: f64,
    /// Seconds of the people's life in a second.
    pub(crate) speedup: f64,
    /// How long the list is shown; until the caller stops waiting, if not given.
    pub(crate) lasts: Option<Duration>,
}

/// Brings everybody to life and shows one person's list.
pub(crate) async fn run(
    plan: &Plan,
    secret: &[u8],
    people: People,
    screen: &mut Screen,
    shown: &mut Shown,
) -> Result<()> {
    make_known(plan.address, &token(secret, UserId(0), &[Scope::Backend])?, &people).await?;
    screen.say(&introduction::text(plan, &people)?)?;
    screen.begin();
    let People { mut everybody, shown: index, .. } = people;
    let mine = everybody.remove(index);
    let mine = Phone::connect(plan, &token(secret, mine.user, &[])?, mine.movement).await?;
    let mut others = JoinSet::new();
    let apart = ARRIVALS / everybody.len().max(1) as u32;
    for (turn, person) in (1..).zip(everybody) {
        others.spawn(carry(plan.clone(), token(secret, person.user, &[])?, person, apart * turn));
    }
    let over = async {
        match plan.lasts {
            Some(lasts) => sleep(lasts).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        result = shown.watch(mine, screen) => result,
        Some(ended) = others.join_next() => Err(ended?),
        () = over => Ok(()),
    }
}

fn token(secret: &[u8], user: UserId, scopes: &[Scope]) -> Result<String> {
    let expires = Clock::System.wall().after(TOKEN_LIFE);
    Ok(issue(secret, &user.to_string(), Scopes::of(scopes), expires)?)
}

/// What an application's own server does: users and friendships.
async fn make_known(address: SocketAddr, token: &str, people: &People) -> Result<()> {
    let mut rest = Rest::connect(address, token).await?;
    for person in &people.everybody {
        rest.put_user(person.user, &person.name).await?;
    }
    for (person, friend) in &people.friendships {
        rest.befriend(people.everybody[*person].user, people.everybody[*friend].user).await?;
    }
    Ok(())
}

/// Carries a phone that nobody looks at, and answers why that ended.
async fn carry(plan: Plan, token: String, person: Person, delay: Duration) -> Error {
    sleep(delay).await;
    let Person { name, mut movement, .. } = person;
    movement.step(delay.as_secs_f64() * plan.speedup);
    let connected = Phone::connect(&plan, &token, movement).await;
    let ended = match connected {
        Ok(mut phone) => loop {
            // Whatever is heard is thrown away, but it must be read: a phone that does not read is closed.
            if let Err(error) = phone.next().await {
                break error;
            }
        },
        Err(error) => error,
    };
    ended.context(format!("{name}'s phone"))
}
