//! The location cache: `loc:{user}` -> a record, gone by itself.

use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use fred::bytes::Bytes;
use fred::types::Value;
use model::{Fix, MonotonicMs, UserId};
use ports::{Clock, LocationCache, PortError, Put};
use protocol::record;

use crate::client::{Redis, Run, Script};

/// Keys in one run of a script: the server serves nobody else meanwhile, for about 0.1 ms.
const KEYS_PER_RUN: usize = 64;

/// Keeps each record (`ARGV[2i-1]`, for `ARGV[2i]` ms) unless the kept one is of a higher order; answers 1 for kept.
///
/// Generation and device time are two little-endian `u64` from byte 16 of the record on, the sequence is one from byte
/// 66 on, which a record of an older node does not have. A number of Lua holds 53 bits and its strings compare by
/// locale, so they are compared as halves. What is shorter than 66 bytes is no record.
const PUT: &str = r"
local answers = {}
for i = 1, #KEYS do
  local new, kept = ARGV[2 * i - 1], redis.call('GET', KEYS[i])
  local stale = false
  if kept and #kept >= 66 and string.byte(kept, 1) == 241 then
    local kg0, kg1, kt0, kt1 = struct.unpack('<I4I4I4I4', kept, 17)
    local ng0, ng1, nt0, nt1 = struct.unpack('<I4I4I4I4', new, 17)
    if kg1 ~= ng1 then stale = kg1 > ng1
    elseif kg0 ~= ng0 then stale = kg0 > ng0
    elseif kt1 ~= nt1 then stale = kt1 > nt1
    elseif kt0 ~= nt0 then stale = kt0 > nt0
    elseif #kept >= 74 then
      local ks0, ks1 = struct.unpack('<I4I4', kept, 67)
      local ns0, ns1 = struct.unpack('<I4I4', new, 67)
      if ks1 ~= ns1 then stale = ks1 > ns1 else stale = ks0 > ns0 end
    end
  end
  if not stale then redis.call('SET', KEYS[i], new, 'PX', ARGV[2 * i]) end
  answers[i] = stale and 0 or 1
end
return answers";

/// Each record with the ms that it has left, both empty if there is none. One script, because between a `GET` and a
/// `PTTL` another record may come.
const GET: &str = r"
local answers = redis.call('MGET', unpack(KEYS))
local left = {}
for i = 1, #KEYS do left[i] = answers[i] and redis.call('PTTL', KEYS[i]) or 0 end
return {answers, left}";

const REMOVE: &str = "return redis.call('UNLINK', unpack(KEYS))";

/// The cache on Redis: one server, a cluster, or a server behind sentinels.
pub struct RedisCache {
    redis: Redis,
    clock: Clock,
    prefix: String,
    put: Script,
    get: Script,
    remove: Script,
    poisoned: AtomicU64,
}

impl RedisCache {
    /// Connects. The URL is `redis://`, `redis-cluster://` or `redis-sentinel://`; `prefix` goes before every key and
    /// is empty outside of tests.
    pub async fn connect(url: &str, prefix: &str, clock: Clock) -> Result<RedisCache, PortError> {
        Ok(RedisCache {
            redis: Redis::connect("location cache", url).await?,
            clock,
            prefix: prefix.to_owned(),
            put: Script::new(PUT),
            get: Script::new(GET),
            remove: Script::new(REMOVE),
            poisoned: AtomicU64::new(0),
        })
    }

    /// Values read that were no record of their user; each counted as absent.
    pub fn poisoned(&self) -> u64 {
        self.poisoned.load(Ordering::Relaxed)
    }

    fn key(&self, user: UserId) -> String {
        format!("{}loc:{user}", self.prefix)
    }

    fn runs(&self, users: &[UserId]) -> Vec<Run> {
        let size = self.redis.keys_per_run(KEYS_PER_RUN);
        users.chunks(size).map(|users| (users.iter().map(|user| self.key(*user)).collect(), Vec::new())).collect()
    }

    fn put_run(&self, fixes: &[&Fix], now: MonotonicMs) -> Run {
        let keys = fixes.iter().map(|fix| self.key(fix.user)).collect();
        let arguments = fixes.iter().flat_map(|fix| {
            let left = i64::try_from(fix.expires.since(now).as_millis()).unwrap_or(i64::MAX / 4);
            [Value::Bytes(Bytes::copy_from_slice(&record::encode(fix, now))), Value::Integer(left)]
        });
        (keys, arguments.collect())
    }

    /// The fix that a value says, if it is a record of this user.
    fn read(&self, user: UserId, value: &Value, left: i64, now: MonotonicMs) -> Option<Fix> {
        let bytes = value.as_bytes()?;
        let Some(mut fix) = record::decode(bytes, now).ok().filter(|fix| fix.user == user) else {
            self.poisoned.fetch_add(1, Ordering::Relaxed);
            return None;
        };
        // The record says what was left when it was put; the store knows what is left now.
        fix.expires = now.after(std::time::Duration::from_millis(u64::try_from(left).ok().filter(|left| *left > 0)?));
        Some(fix)
    }
}

#[async_trait]
impl LocationCache for RedisCache {
    async fn put_many(&self, fixes: &[Fix]) -> Result<Vec<Put>, PortError> {
        let now = self.clock.monotonic();
        let living: Vec<&Fix> = fixes.iter().filter(|fix| fix.expires > now).collect();
        let size = self.redis.keys_per_run(KEYS_PER_RUN);
        let runs: Vec<Run> = living.chunks(size).map(|fixes| self.put_run(fixes, now)).collect();
        let answers = self.redis.run(&self.put, &runs).await?;
        let mut kept = Vec::with_capacity(living.len());
        for answer in answers {
            let answers: Vec<i64> = answer.convert().map_err(|_| self.redis.nonsense())?;
            kept.extend(answers.into_iter().map(|kept| if kept == 1 { Put::Stored } else { Put::Stale }));
        }
        if kept.len() != living.len() {
            return Err(self.redis.nonsense());
        }
        let mut kept = kept.into_iter();
        let outcome = |fix: &Fix| if fix.expires > now { kept.next().unwrap_or(Put::Stored) } else { Put::Stored };
        Ok(fixes.iter().map(outcome).collect())
    }

    async fn get_many(&self, users: &[UserId]) -> Result<Vec<Option<Fix>>, PortError> {
        let answers = self.redis.run(&self.get, &self.runs(users)).await?;
        let now = self.clock.monotonic();
        let mut values = Vec::with_capacity(users.len());
        for answer in answers {
            let (records, left): (Vec<Value>, Vec<i64>) = answer.convert().map_err(|_| self.redis.nonsense())?;
            values.extend(records.into_iter().zip(left));
        }
        if values.len() != users.len() {
            return Err(self.redis.nonsense());
        }
        let fixes = users.iter().zip(&values).map(|(user, (value, left))| self.read(*user, value, *left, now));
        Ok(fixes.collect())
    }

    async fn remove(&self, users: &[UserId]) -> Result<(), PortError> {
        self.redis.run(&self.remove, &self.runs(users)).await.map(drop)
    }
}
