//! The session registry: `session:{user}` -> generation, node and session, as text.

use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use fred::types::Value;
use model::{Generation, NodeId, SessionId, UserId};
use ports::sessions::{Claimed, ENTRY};
use ports::{PortError, SessionKey, Sessions, Sharing};

use crate::client::{Redis, Script, reading};

/// The store's own time, and at least the previous one + 1. Answers the generation, what was there before, and 1 if that
/// was no entry: a value of another Redis type, or a number above what a number of Lua holds, which would stay for ever.
const CLAIM: &str = reading!(
    r"
local time = redis.call('TIME')
local generation = time[1] * 1000 + math.floor(time[2] / 1000)
local kept, foreign = read(KEYS[1])
local last = kept and tonumber(string.match(kept, '^(%d+)')) or 0
foreign = foreign or last > 9007199254740000
if foreign then kept, last = false, 0 end
if last >= generation then generation = last + 1 end
local text = string.format('%.0f', generation)
redis.call('SET', KEYS[1], text .. ' ' .. ARGV[1], 'PX', ARGV[2])
return {text, kept or '', foreign and 1 or 0}"
);

/// Only if still ours. The generation stays for an hour, so that the next one is higher even if the store's clock
/// steps back a little.
const RELEASE: &str = reading!(
    r"
local generation, session = string.match(read(KEYS[1]) or '', '^(%d+) (.+)$')
if session ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], generation, 'PX', 3600000)
return 1"
);

/// Only if it is still of that generation, and still shared.
const RENEW: &str = reading!(
    r"
if string.match(read(KEYS[1]) or '', '^(%d+) .') ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])"
);

/// What is there, and nothing for a value of another Redis type.
const LOCATE: &str = reading!(
    r"
return (read(KEYS[1]))"
);

/// The registry on Redis.
pub struct RedisSessions {
    redis: Redis,
    prefix: String,
    claim: Script,
    release: Script,
    renew: Script,
    locate: Script,
    poisoned: AtomicU64,
}

impl RedisSessions {
    /// Connects; see [`crate::RedisCache::connect`].
    pub async fn connect(url: &str, prefix: &str) -> Result<RedisSessions, PortError> {
        Ok(RedisSessions {
            redis: Redis::connect("session registry", url).await?,
            prefix: prefix.to_owned(),
            claim: Script::new(CLAIM),
            release: Script::new(RELEASE),
            renew: Script::new(RENEW),
            locate: Script::new(LOCATE),
            poisoned: AtomicU64::new(0),
        })
    }

    /// Values that a claim found and overwrote, and that were no entry: of another Redis type, or beyond all generations.
    pub fn poisoned(&self) -> u64 {
        self.poisoned.load(Ordering::Relaxed)
    }

    fn key(&self, user: UserId) -> String {
        format!("{}session:{user}", self.prefix)
    }

    async fn run(&self, script: &Script, user: UserId, arguments: Vec<Value>) -> Result<Value, PortError> {
        let mut answers = self.redis.run(script, &[(vec![self.key(user)], arguments)]).await?;
        answers.pop().ok_or_else(|| self.redis.nonsense())
    }
}

#[async_trait]
impl Sessions for RedisSessions {
    async fn claim(&self, user: UserId, session: SessionKey) -> Result<Claimed, PortError> {
        let answer = self.run(&self.claim, user, vec![text(session).into(), entry_ms().into()]).await?;
        let answer: (String, String, u64) = answer.convert().map_err(|_| self.redis.nonsense())?;
        self.poisoned.fetch_add(answer.2, Ordering::Relaxed);
        let generation = answer.0.parse().map(Generation).map_err(|_| self.redis.nonsense())?;
        Ok(Claimed { generation, before: sharing(&answer.1).map(|before| before.session) })
    }

    async fn release(&self, user: UserId, session: SessionKey) -> Result<bool, PortError> {
        Ok(self.run(&self.release, user, vec![text(session).into()]).await?.as_i64() == Some(1))
    }

    async fn renew(&self, claims: &[(UserId, Generation)]) -> Result<(), PortError> {
        let calls: Vec<_> = claims
            .iter()
            .map(|(user, generation)| (vec![self.key(*user)], vec![generation.0.to_string().into(), entry_ms().into()]))
            .collect();
        self.redis.run(&self.renew, &calls).await.map(drop)
    }

    async fn locate(&self, user: UserId) -> Result<Option<Sharing>, PortError> {
        Ok(self.run(&self.locate, user, Vec::new()).await?.as_str().and_then(|text| sharing(&text)))
    }
}

fn entry_ms() -> i64 {
    i64::try_from(ENTRY.as_millis()).unwrap_or(i64::MAX)
}

fn text(SessionKey { node, session }: SessionKey) -> String {
    format!("{node} {}", session.0)
}

/// `None` also for what was released, and for what nobody here wrote.
fn sharing(text: &str) -> Option<Sharing> {
    let mut words = text.split(' ');
    let generation = Generation(words.next()?.parse().ok()?);
    let node = NodeId(u64::from_str_radix(words.next()?, 16).ok()?);
    let session = SessionId(words.next()?.parse().ok()?);
    Some(Sharing { session: SessionKey { node, session }, generation })
}
