//! The cache and the registry keep their contracts on one server, on a cluster and behind sentinels.

mod demoted;
mod grouped;
mod poisoned;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use model::UserId;
use ports::conformance::{Harness, fresh_name, fresh_user};
use ports::sessions::conformance::SessionsHarness;
use ports::{Clock, LocationCache, Sessions};
use redis_backend::{RedisCache, RedisSessions};
use servers::redis::{RedisCluster, RedisServer, Sentinels};

fn one() -> &'static RedisServer {
    static SERVER: OnceLock<RedisServer> = OnceLock::new();
    SERVER.get_or_init(RedisServer::start)
}

/// Each harness has keys of its own on servers that all share.
struct Cache {
    url: String,
    prefix: String,
}

#[async_trait]
impl Harness for Cache {
    type Node = Arc<dyn LocationCache>;

    async fn node(&self) -> Arc<dyn LocationCache> {
        Arc::new(RedisCache::connect(&self.url, &self.prefix, Clock::System).await.expect("a cache"))
    }
}

fn cache(url: String) -> Cache {
    Cache { url, prefix: fresh_name("cache:") }
}

mod cache_on_one_server {
    use super::*;
    ports::cache_conformance!([tokio::test] cache(one().url()));
}

mod cache_on_a_cluster {
    use super::*;

    fn url() -> String {
        static CLUSTER: OnceLock<RedisCluster> = OnceLock::new();
        CLUSTER.get_or_init(RedisCluster::start).url()
    }
    ports::cache_conformance!([tokio::test] cache(url()));
}

mod cache_behind_sentinels {
    use super::*;

    fn url() -> String {
        static SENTINELS: OnceLock<Sentinels> = OnceLock::new();
        SENTINELS.get_or_init(Sentinels::start).url()
    }
    ports::cache_conformance!([tokio::test] cache(url()));
}

mod sessions_on_one_server {
    use super::*;

    struct Registry(String);

    impl Registry {
        fn key(&self, user: UserId) -> String {
            format!("{}session:{user}", self.0)
        }
    }

    #[async_trait]
    impl Harness for Registry {
        type Node = Arc<dyn Sessions>;

        async fn node(&self) -> Arc<dyn Sessions> {
            Arc::new(RedisSessions::connect(&one().url(), &self.0).await.expect("a registry"))
        }
    }

    #[async_trait]
    impl SessionsHarness for Registry {
        async fn lose_data(&self, user: UserId) {
            one().command(&[b"DEL", self.key(user).as_bytes()]);
        }

        async fn age(&self, user: UserId, by: Duration) {
            const AGE: &[u8] = b"local left = redis.call('PTTL', KEYS[1]) - ARGV[1]
return redis.call('PEXPIRE', KEYS[1], left)";
            one().command(&[b"EVAL", AGE, b"1", self.key(user).as_bytes(), by.as_millis().to_string().as_bytes()]);
        }
    }
    ports::sessions_conformance!([tokio::test] Registry(fresh_name("sessions:")));
}

#[tokio::test]
async fn a_value_that_is_no_record_counts_as_absent_and_gives_way() {
    let harness = cache(one().url());
    let cache = RedisCache::connect(&harness.url, &harness.prefix, Clock::System).await.expect("a cache");
    let [poisoned, foreign] = ports::conformance::fresh_users();
    for (user, value) in
        [(poisoned, &b"\xF1 is how a record begins, and this one goes on as it should not: %$."[..]), (foreign, b"x")]
    {
        one().command(&[b"SET", format!("{}loc:{user}", harness.prefix).as_bytes(), value]);
    }
    assert_eq!(cache.get_many(&[poisoned, foreign]).await, Ok(vec![None, None]));
    assert_eq!(cache.poisoned(), 2);
}

#[tokio::test]
async fn a_frozen_server_fails_calls_in_time_and_serves_again() {
    let server = RedisServer::start();
    let cache = RedisCache::connect(&server.url(), "", Clock::System).await.expect("a cache");
    let user = fresh_user();
    assert_eq!(cache.get_many(&[user]).await, Ok(vec![None]));
    server.freeze();
    let answer = tokio::time::timeout(Duration::from_secs(1), cache.get_many(&[user])).await;
    assert!(answer.expect("a deadline of its own").expect_err("frozen").is_transient());
    server.thaw();
    back(&cache, user).await;
    // Empty, so that it does not know the scripts either.
    server.restart();
    back(&cache, user).await;
}

async fn back(cache: &RedisCache, user: UserId) {
    for _ in 0..50 {
        if cache.get_many(&[user]).await.is_ok() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the cache did not come back");
}
