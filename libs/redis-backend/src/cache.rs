//! The location cache: `loc:{user}` -> a record, gone by itself.

use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use fred::bytes::Bytes;
use fred::types::Value;
use model::{Fix, MonotonicMs, UserId};
use ports::{Clock, LocationCache, PortError, Put};
use protocol::record;

use crate::client::{Redis, Run, Script, reading};

/// Keys in one run of a script: the server serves nobody else meanwhile, for about 0.1 ms.
const KEYS_PER_RUN: usize = 64;

/// Keeps each record (`ARGV[2i-1]`, for `ARGV[2i]` ms) unless the kept one is of a higher order; answers 1 for kept, and 2
/// for kept in the place of a value of another Redis type.
///
/// Generation and device time are two little-endian `u64` from byte 16 of the record on, the sequence is one from byte
/// 66 on, which a record of an older node does not have. A number of Lua holds 53 bits and its strings compare by
/// locale, so they are compared as halves. What is shorter than 66 bytes is no record.
const PUT: &str = reading!(
    r"
local answers = {}
for i = 1, #KEYS do
  local new, kept, foreign = ARGV[2 * i - 1], read(KEYS[i])
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
  answers[i] = stale and 0 or foreign and 2 or 1
end
return answers"
);

/// Each record with the ms that it has left; no record and [`NO_KEY`] if there is none, no record and anything else for a
/// value of another Redis type. One script, because between a `GET` and a `PTTL` another record may come. Most friends
/// are offline: one `EXISTS` for all keys without a record costs half of a `PTTL` for each.
const GET: &str = r"
local answers = redis.call('MGET', unpack(KEYS))
local left, without = {}, {}
for i = 1, #KEYS do
  if answers[i] then left[i] = redis.call('PTTL', KEYS[i])
  else left[i] = -2; without[#without + 1] = KEYS[i] end
end
if #without > 0 and redis.call('EXISTS', unpack(without)) > 0 then
  for i = 1, #KEYS do
    if not answers[i] then left[i] = redis.call('PTTL', KEYS[i]) end
  end
end
return {answers, left}";

/// What `PTTL` says of a key that does not exist.
const NO_KEY: i64 = -2;

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

    /// Values that were found and are no record of their user. Each counts as absent, and the next put overwrites it.
    pub fn poisoned(&self) -> u64 {
        self.poisoned.load(Ordering::Relaxed)
    }

    fn key(&self, user: UserId) -> String {
        format!("{}loc:{user}", self.prefix)
    }

    fn keys(&self, users: impl Iterator<Item = UserId>) -> Vec<String> {
        users.map(|user| self.key(user)).collect()
    }

    /// Runs a script over all of these keys; answers for each run, with the indexes of its keys.
    async fn run(
        &self,
        script: &Script,
        keys: &[String],
        arguments: impl Fn(usize) -> Vec<Value>,
    ) -> Result<Vec<(Vec<usize>, Value)>, PortError> {
        let together = self.redis.together(keys, KEYS_PER_RUN);
        let run = |indexes: &Vec<usize>| {
            let keys = indexes.iter().map(|index| keys[*index].clone()).collect();
            (keys, indexes.iter().flat_map(|index| arguments(*index)).collect())
        };
        let runs: Vec<Run> = together.iter().map(run).collect();
        Ok(together.into_iter().zip(self.redis.run(script, &runs).await?).collect())
    }

    /// The fix that a value says, if it is a record of this user.
    fn read(&self, user: UserId, value: &Value, left: i64, now: MonotonicMs) -> Option<Fix> {
        if value.is_null() && left == NO_KEY {
            return None;
        }
        let decoded = value.as_bytes().and_then(|bytes| record::decode(bytes, now).ok());
        let Some(mut fix) = decoded.filter(|fix| fix.user == user) else {
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
        let keys = self.keys(living.iter().map(|fix| fix.user));
        let arguments = |index: usize| {
            let fix = living[index];
            let left = i64::try_from(fix.expires.since(now).as_millis()).unwrap_or(i64::MAX / 4);
            vec![Value::Bytes(Bytes::copy_from_slice(&record::encode(fix, now))), Value::Integer(left)]
        };
        let mut kept = vec![Put::Stored; living.len()];
        for (indexes, answer) in self.run(&self.put, &keys, arguments).await? {
            let answers: Vec<i64> = answer.convert().map_err(|_| self.redis.nonsense())?;
            if answers.len() != indexes.len() {
                return Err(self.redis.nonsense());
            }
            for (index, answer) in indexes.into_iter().zip(answers) {
                match answer {
                    0 => kept[index] = Put::Stale,
                    2 => drop(self.poisoned.fetch_add(1, Ordering::Relaxed)),
                    _ => {}
                }
            }
        }
        let mut kept = kept.into_iter();
        let outcome = |fix: &Fix| if fix.expires > now { kept.next().unwrap_or(Put::Stored) } else { Put::Stored };
        Ok(fixes.iter().map(outcome).collect())
    }

    async fn get_many(&self, users: &[UserId]) -> Result<Vec<Option<Fix>>, PortError> {
        let answers = self.run(&self.get, &self.keys(users.iter().copied()), |_| Vec::new()).await?;
        let now = self.clock.monotonic();
        let mut fixes = vec![None; users.len()];
        for (indexes, answer) in answers {
            let (records, left): (Vec<Value>, Vec<i64>) = answer.convert().map_err(|_| self.redis.nonsense())?;
            if records.len() != indexes.len() || left.len() != indexes.len() {
                return Err(self.redis.nonsense());
            }
            for (index, (record, left)) in indexes.into_iter().zip(records.iter().zip(left)) {
                fixes[index] = self.read(users[index], record, left, now);
            }
        }
        Ok(fixes)
    }

    async fn remove(&self, users: &[UserId]) -> Result<(), PortError> {
        self.run(&self.remove, &self.keys(users.iter().copied()), |_| Vec::new()).await.map(drop)
    }
}
