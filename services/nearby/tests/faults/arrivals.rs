//! People who come, are shown their friends, and go: how long that takes.

use loadtest::address::Address;
use loadtest::socket::{Incoming, Socket};
use loadtest::token::Tokens;
use loadtest::wire::{self, Frame};
use model::UserId;
use servers::fleet::Fleet;
use tokio::task::LocalSet;
use tokio::time::{Duration, sleep, timeout};

use crate::acquaint::acquaint;
use crate::http::ask;
use crate::pairs::{self, place};
use crate::shared_fleet::{fresh_users, tokens};
use crate::times::{percentile, wall_ms};

/// How many there are, one after the other.
const VISITORS: u64 = 6;
/// Whoever waits longer has not been let in.
const PATIENCE_MS: u64 = 10_000;
/// Between two attempts.
const RETRY: Duration = Duration::from_millis(50);

/// Somebody knocked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Knock {
    /// Whether they were shown their friends, and not told to try later.
    pub(crate) is_let_in: bool,
    begun: u64,
    /// Until the answer, in ms.
    pub(crate) took: u64,
}

/// People who are the friends of all the senders, so that their friends' channels are on every pub/sub server.
pub(crate) struct Visitors {
    base: u64,
    address: Address,
    tokens: Tokens,
}

impl Visitors {
    /// Makes them.
    pub(crate) fn of(fleet: &Fleet, friends: impl Iterator<Item = UserId>) -> Visitors {
        let visitors = Visitors { base: fresh_users(), address: pairs::address(fleet), tokens: tokens(fleet) };
        let friends: Vec<UserId> = friends.collect();
        let users: Vec<UserId> = visitors.all().collect();
        let of = |user: &UserId| friends.iter().map(|friend| (*user, *friend)).collect::<Vec<_>>();
        alone(acquaint(fleet, &users, &users.iter().flat_map(of).collect::<Vec<_>>()));
        visitors
    }

    fn all(&self) -> impl Iterator<Item = UserId> {
        (self.base..self.base + VISITORS).map(UserId)
    }

    /// They come and go for so long, and try until they are let in, as an app does; from the first byte of each until its
    /// first page, in ms.
    pub(crate) fn arrive_for(&self, seconds: f64) -> Vec<u64> {
        let begun = wall_ms();
        let (mut took, mut since) = (Vec::new(), None);
        for knock in self.knock_for(seconds) {
            let first = *since.get_or_insert(knock.begun);
            if knock.is_let_in {
                took.push(knock.begun + knock.took - first);
                since = None;
            }
        }
        assert!(since.is_none_or(|first| wall_ms() - first < PATIENCE_MS), "not let in from {since:?} ({begun}) on");
        took
    }

    /// They knock for so long, one after the other, and take the first answer.
    pub(crate) fn knock_for(&self, seconds: f64) -> Vec<Knock> {
        alone(async {
            let (first, mut knocks) = (wall_ms(), Vec::new());
            for visitor in self.all().collect::<Vec<_>>().into_iter().cycle() {
                let begun = wall_ms();
                if (begun - first) as f64 > seconds * 1_000.0 {
                    break;
                }
                let answer = timeout(Duration::from_millis(PATIENCE_MS), self.try_to(visitor)).await.unwrap();
                let knock = Knock { is_let_in: answer.is_ok(), begun, took: wall_ms() - begun };
                knocks.push(knock);
                match answer {
                    Ok(socket) => {
                        socket.close().await;
                    }
                    Err(_) => sleep(RETRY).await,
                }
            }
            knocks
        })
    }

    /// They ask for so long who is near a place, without a socket: statuses, and how long each took in ms.
    pub(crate) fn call_for(&self, seconds: f64) -> Vec<(u16, u64)> {
        let (first, mut answers) = (wall_ms(), Vec::new());
        for visitor in self.all().collect::<Vec<_>>().into_iter().cycle() {
            let begun = wall_ms();
            if (begun - first) as f64 > seconds * 1_000.0 {
                break;
            }
            let token = self.tokens.user(visitor).unwrap();
            let answer = ask(self.address.authority(), "GET", "/v1/nearby?lat=10&lon=20", &token, "").unwrap();
            answers.push((answer.status, wall_ms() - begun));
        }
        answers
    }

    async fn try_to(&self, visitor: UserId) -> anyhow::Result<Socket> {
        let mut socket = Socket::open(&self.address, &self.tokens.user(visitor)?).await?;
        socket.init(place(0, 0), wall_ms(), None).await?;
        loop {
            match socket.next().await {
                Incoming::Text(text) if matches!(wire::read(&text), Some(Frame::Nearby(_))) => return Ok(socket),
                Incoming::Text(_) | Incoming::NotText => {}
                Incoming::Closed(code) => anyhow::bail!("closed with {code:?}"),
            }
        }
    }
}

/// As text.
pub(crate) fn spread(took: &[u64]) -> String {
    let [p50, p99] = [50.0, 99.0].map(|part| percentile(took, part));
    format!("p50 {p50} ms, p99 {p99} ms ({})", took.len())
}

/// On a runtime of its own.
pub(crate) fn alone<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, work)
}
