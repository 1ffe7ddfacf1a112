//! Makes users and friendships.

use std::rc::Rc;

use futures_util::{StreamExt, stream};
use loadtest::rest::Rest;
use model::UserId;
use servers::fleet::Fleet;
use tokio::time::{Duration, sleep};

use crate::pairs::address;
use crate::shared_fleet::tokens;

/// Requests at once.
const AT_ONCE: usize = 8;
/// A database that was away a moment ago, on a machine that compiles beside, may ask for another try.
const TRIES: usize = 10;

/// Makes these users and then these friendships, as an application's own server. All of it may be repeated.
pub(crate) async fn acquaint(fleet: &Fleet, users: &[UserId], friends: &[(UserId, UserId)]) {
    let rest = Rest::new(address(fleet), &tokens(fleet).backend().unwrap());
    acquaint_over(&rest, users, friends).await;
}

/// The same over connections that are there.
pub(crate) async fn acquaint_over(rest: &Rc<Rest>, users: &[UserId], friends: &[(UserId, UserId)]) {
    let making = stream::iter(users);
    making.for_each_concurrent(AT_ONCE, |user| insist(async || rest.put_user(*user).await)).await;
    let befriending = stream::iter(friends);
    befriending.for_each_concurrent(AT_ONCE, |(one, other)| insist(async || rest.befriend(*one, *other).await)).await;
}

async fn insist(request: impl AsyncFn() -> anyhow::Result<()>) {
    for _ in 1..TRIES {
        match request().await {
            Ok(()) => return,
            Err(_) => sleep(Duration::from_millis(500)).await,
        }
    }
    request().await.unwrap();
}
