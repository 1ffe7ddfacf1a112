//! The contract of [`Sessions`], as tests.

#![expect(clippy::unwrap_used, reason = "a suite panics when a sentence does not hold")]

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use model::{Generation, SessionId, UserId};
use tokio::task::JoinSet;

use super::{Claimed, ENTRY, SessionKey, Sessions, Sharing};
use crate::conformance::{Harness, fresh_node, fresh_user, fresh_users};

/// Makes a test of every sentence: `sessions_conformance!([tokio::test] harness)`.
#[macro_export]
macro_rules! sessions_conformance {
    ($attribute:tt $harness:expr) => {
        $crate::conformance_tests! { $attribute $harness, sessions:
            claim_takes_the_place_of_any_other_session,
            a_generation_is_the_stores_time,
            every_claim_gives_a_higher_generation,
            of_claims_at_the_same_time_the_highest_generation_shares,
            only_the_sharing_session_can_release,
            locate_knows_who_shares,
            a_store_that_lost_its_data_still_gives_higher_generations,
            an_entry_that_is_renewed_stays_and_one_that_is_not_goes,
            only_the_generation_that_shares_can_be_renewed,
        }
    };
}

type Registry = Arc<dyn Sessions>;

/// What the suite needs beside nodes.
#[async_trait]
pub trait SessionsHarness: Harness<Node = Registry> {
    /// Makes the store forget everything that it keeps of this user, as if its data had been lost.
    async fn lose_data(&self, user: UserId);

    /// Brings the end of this user's entry so much nearer, as if that time had passed.
    async fn age(&self, user: UserId, by: Duration);
}

fn session() -> SessionKey {
    SessionKey { node: fresh_node(), session: SessionId(1) }
}

async fn sharing(sessions: &Registry, user: UserId) -> Option<SessionKey> {
    sessions.locate(user).await.unwrap().map(|sharing| sharing.session)
}

/// Sentence 1.
pub async fn claim_takes_the_place_of_any_other_session(harness: &impl SessionsHarness) {
    let [first, second] = [harness.node().await, harness.node().await];
    let [user, other] = fresh_users();
    let [one, two] = [session(), session()];
    first.claim(other, one).await.unwrap();
    let mut holder = None;
    for (node, session) in [(&first, one), (&second, two), (&first, one)] {
        let Claimed { generation, before } = node.claim(user, session).await.unwrap();
        assert_eq!(before, holder.replace(session), "whose place it took");
        assert_eq!(second.locate(user).await, Ok(Some(Sharing { session, generation })));
    }
    assert_eq!(sharing(&second, other).await, Some(one));
}

/// Sentence 1.
pub async fn a_generation_is_the_stores_time(harness: &impl SessionsHarness) {
    let sessions = harness.node().await;
    let Generation(claimed) = sessions.claim(fresh_user(), session()).await.unwrap().generation;
    let now = harness.clock().wall().0;
    assert!(claimed.abs_diff(now) < 60_000, "{claimed} is not the time in ms ({now})");
}

/// Sentences 1 and 2.
pub async fn every_claim_gives_a_higher_generation(harness: &impl SessionsHarness) {
    let nodes = [harness.node().await, harness.node().await];
    let user = fresh_user();
    let [one, two] = [session(), session()];
    let (mut last, mut released) = (Generation(0), true);
    // Many within a millisecond; by the same session again, by another, and after a release.
    for (turn, session) in [one, one, two, two, one].into_iter().cycle().take(100).enumerate() {
        let node = &nodes[turn % 2];
        let Claimed { generation, before } = node.claim(user, session).await.unwrap();
        assert!(released || before.is_some(), "somebody shared");
        assert!(generation > last, "{generation:?} after {last:?}");
        last = generation;
        released = turn % 7 == 0;
        if released {
            assert_eq!(node.release(user, session).await, Ok(true));
        }
    }
}

/// Sentences 1 and 2, with calls at the same time.
pub async fn of_claims_at_the_same_time_the_highest_generation_shares(harness: &impl SessionsHarness) {
    let nodes = [harness.node().await, harness.node().await];
    let user = fresh_user();
    let mut racers = JoinSet::new();
    for racer in 0..16 {
        let (node, session) = (nodes[racer % 2].clone(), session());
        racers.spawn(async move { (node.claim(user, session).await.unwrap().generation, session) });
    }
    let mut claims = racers.join_all().await;
    claims.sort_by_key(|(generation, _)| *generation);
    assert!(claims.windows(2).all(|pair| pair[0].0 < pair[1].0), "two claims, one generation");
    let last = claims.last().map(|(generation, session)| Sharing { session: *session, generation: *generation });
    assert_eq!(nodes[0].locate(user).await, Ok(last));
}

/// Sentence 3.
pub async fn only_the_sharing_session_can_release(harness: &impl SessionsHarness) {
    let [first, second] = [harness.node().await, harness.node().await];
    let user = fresh_user();
    let [old, new] = [session(), session()];
    assert_eq!(first.release(user, old).await, Ok(false), "nobody shares");
    first.claim(user, old).await.unwrap();
    second.claim(user, new).await.unwrap();
    assert_eq!(first.release(user, old).await, Ok(false), "replaced");
    let sibling = SessionKey { session: SessionId(2), ..new };
    assert_eq!(second.release(user, sibling).await, Ok(false), "another session of the same node");
    assert_eq!(sharing(&first, user).await, Some(new));
    assert_eq!(second.release(user, new).await, Ok(true));
    assert_eq!(second.release(user, new).await, Ok(false), "once");
}

/// Sentence 4.
pub async fn locate_knows_who_shares(harness: &impl SessionsHarness) {
    let [first, second] = [harness.node().await, harness.node().await];
    let user = fresh_user();
    assert_eq!(first.locate(user).await, Ok(None));
    let session = session();
    let generation = first.claim(user, session).await.unwrap().generation;
    assert_eq!(second.locate(user).await, Ok(Some(Sharing { session, generation })));
    first.release(user, session).await.unwrap();
    assert_eq!(second.locate(user).await, Ok(None));
}

/// Sentence 5.
pub async fn a_store_that_lost_its_data_still_gives_higher_generations(harness: &impl SessionsHarness) {
    let sessions = harness.node().await;
    let user = fresh_user();
    let before = sessions.claim(user, session()).await.unwrap().generation;
    tokio::time::sleep(Duration::from_millis(5)).await;
    harness.lose_data(user).await;
    assert_eq!(sessions.locate(user).await, Ok(None), "the harness did not lose the data");
    assert!(sessions.claim(user, session()).await.unwrap().generation > before);
}

/// Sentence 6.
pub async fn an_entry_that_is_renewed_stays_and_one_that_is_not_goes(harness: &impl SessionsHarness) {
    let sessions = harness.node().await;
    let [kept, forgotten] = fresh_users();
    let most = ENTRY - Duration::from_secs(60);
    let (first, second) = (session(), session());
    let generation = sessions.claim(kept, first).await.unwrap().generation;
    sessions.claim(forgotten, second).await.unwrap();
    for user in [kept, forgotten] {
        harness.age(user, most).await;
        assert!(sharing(&sessions, user).await.is_some(), "not yet");
    }
    sessions.renew(&[(kept, generation)]).await.unwrap();
    for user in [kept, forgotten] {
        harness.age(user, Duration::from_secs(61)).await;
    }
    assert_eq!(sharing(&sessions, kept).await, Some(first));
    assert_eq!(sharing(&sessions, forgotten).await, None);
    assert_eq!(sessions.claim(forgotten, second).await.unwrap().before, None);
}

/// Sentence 6.
pub async fn only_the_generation_that_shares_can_be_renewed(harness: &impl SessionsHarness) {
    let sessions = harness.node().await;
    let [user, stranger] = fresh_users();
    let old = sessions.claim(user, session()).await.unwrap().generation;
    let new = session();
    sessions.claim(user, new).await.unwrap();
    harness.age(user, ENTRY - Duration::from_secs(60)).await;
    sessions.renew(&[(user, old), (stranger, old)]).await.unwrap();
    assert_eq!(sharing(&sessions, user).await, Some(new));
    assert_eq!(sharing(&sessions, stranger).await, None, "renewing makes no entry");
    harness.age(user, Duration::from_secs(61)).await;
    assert_eq!(sharing(&sessions, user).await, None, "it was not renewed");
}
