//! Values that nobody here wrote: each costs its own user at most, counts, and is overwritten.

use std::time::Duration;

use model::{Fix, Generation, Motion, NodeId, Order, Place, PolicyVersion, Position, SessionId, TimestampMs, UserId};
use ports::cache::Put;
use ports::conformance::{fresh_name, fresh_user};
use ports::{Clock, LocationCache, SessionKey, Sessions};
use redis_backend::{RedisCache, RedisSessions};

use crate::one;

pub(crate) fn fix(user: UserId, ts: u64) -> Fix {
    Fix {
        user,
        place: Place::new(Position::new(40.0, 116.0).expect("a position")),
        order: Order { generation: Generation(1), ts: TimestampMs(ts), ..Order::default() },
        expires: Clock::System.monotonic().after(Duration::from_secs(60)),
        policy: PolicyVersion(3),
        motion: Motion::UNKNOWN,
    }
}

/// Makes a key a list, as no `GET` or `SET` of a script expects it.
fn make_list(key: &str) {
    one().command(&[b"DEL", key.as_bytes()]);
    one().command(&[b"RPUSH", key.as_bytes(), b"x"]);
}

async fn cache() -> (String, RedisCache) {
    let prefix = fresh_name("poisoned:");
    let cache = RedisCache::connect(&one().url(), &prefix, Clock::System).await.expect("a cache");
    (prefix, cache)
}

async fn registry() -> (String, RedisSessions) {
    let prefix = fresh_name("poisoned:");
    let registry = RedisSessions::connect(&one().url(), &prefix).await.expect("a registry");
    (prefix, registry)
}

fn session(number: u64) -> SessionKey {
    SessionKey { node: NodeId(7), session: SessionId(number) }
}

#[tokio::test]
async fn a_list_under_a_key_of_the_cache_costs_the_others_of_its_batch_nothing() {
    let (prefix, cache) = cache().await;
    let users: Vec<UserId> = (0..64).map(|_| fresh_user()).collect();
    let poisoned = users[31];
    make_list(&format!("{prefix}loc:{poisoned}"));
    let fixes: Vec<Fix> = users.iter().map(|user| fix(*user, 1)).collect();
    let others: Vec<Fix> = fixes.iter().copied().filter(|fix| fix.user != poisoned).collect();
    assert_eq!(cache.put_many(&others).await, Ok(vec![Put::Stored; 63]));
    let read = cache.get_many(&users).await.expect("the others");
    assert_eq!(read.iter().filter(|fix| fix.is_none()).count(), 1);
    assert_eq!((read[31], cache.poisoned()), (None, 1));
    assert_eq!(cache.put_many(&fixes).await, Ok(vec![Put::Stored; 64]));
    assert_eq!(cache.poisoned(), 2);
    let read = cache.get_many(&users).await.expect("all");
    assert_eq!((read.iter().flatten().count(), cache.poisoned()), (64, 2), "it was overwritten");
}

#[tokio::test]
async fn a_list_under_a_single_key_of_the_cache_is_overwritten_and_can_be_removed() {
    let (prefix, cache) = cache().await;
    let user = fresh_user();
    let key = format!("{prefix}loc:{user}");
    assert_eq!(cache.get_many(&[user]).await, Ok(vec![None]));
    assert_eq!(cache.poisoned(), 0, "nothing there is no poison");
    make_list(&key);
    assert_eq!(cache.put_many(&[fix(user, 1)]).await, Ok(vec![Put::Stored]));
    assert_eq!(cache.get_many(&[user]).await.expect("read")[0].expect("a fix").order.ts, TimestampMs(1));
    make_list(&key);
    assert_eq!(cache.remove(&[user]).await, Ok(()));
    assert_eq!(one().command(&[b"EXISTS", key.as_bytes()]), b":0\r\n");
}

/// Somebody keeps on writing lists while batches are put and read: no call fails, whatever comes between.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_that_appear_at_any_time_fail_no_call() {
    let (prefix, cache) = cache().await;
    let users: Vec<UserId> = (0..16).map(|_| fresh_user()).collect();
    let keys: Vec<String> = users.iter().map(|user| format!("{prefix}loc:{user}")).collect();
    let poisoning = tokio::task::spawn_blocking(move || {
        for _ in 0..10 {
            keys.iter().for_each(|key| make_list(key));
        }
    });
    let mut ts = 0;
    while ts < 20 || !poisoning.is_finished() {
        ts += 1;
        let fixes: Vec<Fix> = users.iter().map(|user| fix(*user, ts)).collect();
        let (put, read) = tokio::join!(cache.put_many(&fixes), cache.get_many(&users));
        assert_eq!((put, read.expect("a read").len()), (Ok(vec![Put::Stored; 16]), 16));
    }
    poisoning.await.expect("it poisoned");
    assert!(cache.poisoned() > 0, "none was met");
    let last: Vec<Fix> = users.iter().map(|user| fix(*user, ts + 1)).collect();
    cache.put_many(&last).await.expect("stored");
    assert_eq!(cache.get_many(&users).await.expect("a read").iter().flatten().count(), 16);
}

#[tokio::test]
async fn a_list_under_a_session_key_counts_as_nobody_and_a_claim_overwrites_it() {
    let (prefix, registry) = registry().await;
    let [user, other] = ports::conformance::fresh_users();
    let key = format!("{prefix}session:{user}");
    make_list(&key);
    assert_eq!(registry.locate(user).await, Ok(None));
    assert_eq!(registry.release(user, session(1)).await, Ok(false));
    let other_claimed = registry.claim(other, session(2)).await.expect("claimed");
    let renewed = registry.renew(&[(user, Generation(1)), (other, other_claimed.generation)]).await;
    assert_eq!((renewed, registry.poisoned()), (Ok(()), 0));
    assert_eq!(one().command(&[b"TYPE", key.as_bytes()]), b"+list\r\n", "only a claim overwrites");
    let claimed = registry.claim(user, session(1)).await.expect("claimed");
    assert_eq!((claimed.before, registry.poisoned()), (None, 1));
    let found = registry.locate(user).await.expect("located").expect("somebody");
    assert_eq!((found.session, found.generation), (session(1), claimed.generation));
    assert_eq!(registry.release(user, session(1)).await, Ok(true));
}

/// A generation that no clock gives would be above every later one, and the next would be no number any more.
#[tokio::test]
async fn a_generation_beyond_all_numbers_counts_as_nobody_and_a_claim_overwrites_it() {
    let (prefix, registry) = registry().await;
    let user = fresh_user();
    for text in ["99999999999999999999 7 1", "18446744073709551615 7 1", "no number"] {
        one().command(&[b"SET", format!("{prefix}session:{user}").as_bytes(), text.as_bytes()]);
        let claimed = registry.claim(user, session(1)).await.expect("claimed");
        let again = registry.claim(user, session(1)).await.expect("claimed");
        assert!(again.generation > claimed.generation && again.generation.0 < 1 << 53, "{text}");
    }
    assert_eq!(registry.poisoned(), 2);
}
