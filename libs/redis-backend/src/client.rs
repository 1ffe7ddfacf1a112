//! The driver: connected, with a deadline on everything, and scripts that are loaded when a server lacks them.

use std::collections::BTreeMap;
use std::time::Duration;

use fred::clients::Client;
use fred::interfaces::ClientLike;
use fred::types::config::{Config, ReconnectPolicy};
use fred::types::{Builder, ClusterHash, CustomCommand, Value};
use fred::util::{redis_keyslot, sha1_hash};
use parking_lot::Mutex;
use ports::PortError;
use tokio::task::AbortHandle;
use tokio::time::Instant;

/// How long one command may take. There is no default: a frozen server still takes commands and never answers.
const COMMAND: Duration = Duration::from_millis(500);
/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(3);
/// How long a connection may owe an answer before it is given up.
const UNRESPONSIVE: Duration = Duration::from_secs(1);
/// A server that answers but does not serve is left at most this often: it may be the only one that there is.
const LEAVE_EVERY: Duration = Duration::from_millis(250);
/// How such a server's errors begin, as such or as the cause that the error of a script repeats: it has become a replica,
/// reads its data from disk, or has lost its primary.
const NOT_SERVING: [&str; 3] = ["READONLY ", "LOADING ", "MASTERDOWN "];
/// Between attempts to connect again, in ms: at first and at most.
const RECONNECT_MS: (u32, u32) = (20, 1_000);

/// A connection that comes back by itself.
pub(crate) struct Redis {
    backend: &'static str,
    client: Client,
    /// The driver's; it would outlive the client.
    task: AbortHandle,
    clustered: bool,
    /// When a server was left because it does not serve.
    left: Mutex<Option<Instant>>,
}

/// A script with its digest.
pub(crate) struct Script {
    text: &'static str,
    digest: String,
}

impl Script {
    pub(crate) fn new(text: &'static str) -> Script {
        Script { text, digest: sha1_hash(text) }
    }
}

/// A script that begins with `read(key)`: the string there or `false`, and whether a value of another Redis type is there
/// instead. `redis.call` would end the script, and with it what it does for all other keys.
macro_rules! reading {
    ($script:literal) => {
        concat!(
            r"
local function read(key)
  local kept = redis.pcall('GET', key)
  if type(kept) ~= 'table' then return kept, false end
  if not string.find(kept.err, 'WRONGTYPE', 1, true) then error(kept.err) end
  return false, true
end",
            $script
        )
    };
}
pub(crate) use reading;

type Answer = Result<Value, fred::error::Error>;

/// One run of a script: its keys and its arguments.
pub(crate) type Run = (Vec<String>, Vec<Value>);

impl Redis {
    pub(crate) async fn connect(backend: &'static str, url: &str) -> Result<Redis, PortError> {
        let refused = |error: fred::error::Error| PortError::Refused { backend, reason: error.details().to_owned() };
        let config = Config::from_url(url).map_err(refused)?;
        let clustered = config.server.is_clustered();
        let mut builder = Builder::from_config(config);
        builder.with_performance_config(|config| config.default_command_timeout = COMMAND);
        builder.with_connection_config(|config| {
            config.connection_timeout = CONNECT;
            config.internal_command_timeout = CONNECT;
            // A command whose connection was lost is answered as failed: the caller decides, its patience is short. To
            // the driver, finding out which server of a cluster has a key is an attempt as well.
            config.max_command_attempts = if clustered { 3 } else { 1 };
            config.unresponsive.max_timeout = Some(UNRESPONSIVE);
            config.unresponsive.interval = UNRESPONSIVE / 4;
            config.tcp.nodelay = Some(true);
        });
        builder.set_policy(ReconnectPolicy::new_exponential(0, RECONNECT_MS.0, RECONNECT_MS.1, 2));
        let client = builder.build().map_err(refused)?;
        let redis = Redis { backend, task: client.connect().abort_handle(), client, clustered, left: Mutex::new(None) };
        match tokio::time::timeout(CONNECT, redis.client.wait_for_connect()).await {
            Ok(outcome) => drop(outcome.map_err(|error| redis.unavailable(&error))?),
            Err(_) => return Err(redis.failure("does not answer".to_owned())),
        }
        Ok(redis)
    }

    /// Which keys go into one run of a script together, at most so many: their indexes. In a cluster only those of one
    /// slot may; runs of neighbouring slots, and so of one server, stand together.
    pub(crate) fn together(&self, keys: &[String], most: usize) -> Vec<Vec<usize>> {
        let mut slots: BTreeMap<u16, Vec<usize>> = BTreeMap::new();
        for (index, key) in keys.iter().enumerate() {
            let slot = if self.clustered { redis_keyslot(key.as_bytes()) } else { 0 };
            slots.entry(slot).or_default().push(index);
        }
        slots.values().flat_map(|indexes| indexes.chunks(most)).map(<[usize]>::to_vec).collect()
    }

    /// Runs a script several times in one round trip, and once more with its text if a server does not know it yet. It
    /// must be one that may be repeated.
    pub(crate) async fn run(&self, script: &Script, runs: &[Run]) -> Result<Vec<Value>, PortError> {
        if runs.is_empty() {
            return Ok(Vec::new());
        }
        let mut answers = self.send("EVALSHA", &script.digest, runs).await?;
        if answers.iter().any(is_unknown_script) {
            tracing::info!(backend = self.backend, "teaching a server a script");
            answers = self.send("EVAL", script.text, runs).await?;
        }
        if answers.iter().any(is_not_serving) {
            self.leave().await;
        }
        answers.into_iter().map(|answer| answer.map_err(|error| self.unavailable(&error))).collect()
    }

    /// Connects anew, so that the address is resolved, or the sentinels are asked, again: a server that was demoted keeps
    /// the connections that it has. The call under way has failed; a later one finds the new connection.
    async fn leave(&self) {
        {
            let mut left = self.left.lock();
            if left.is_some_and(|left| left.elapsed() < LEAVE_EVERY) {
                return;
            }
            *left = Some(Instant::now());
        }
        tracing::warn!(backend = self.backend, "the server does not serve at the moment, connecting anew");
        tokio::select! {
            biased;
            // Polled once, it has told the driver's task, which does the rest by itself.
            _ = self.client.force_reconnection() => {}
            () = std::future::ready(()) => {}
        }
    }

    async fn send(&self, verb: &'static str, script: &str, runs: &[Run]) -> Result<Vec<Answer>, PortError> {
        let pipeline = self.client.pipeline();
        for (keys, arguments) in runs {
            // In a cluster the first key, after the script and the number of keys, says which server.
            let command = CustomCommand::new_static(verb, ClusterHash::Offset(2), false);
            let begin = [Value::from(script), Value::Integer(i64::try_from(keys.len()).unwrap_or(i64::MAX))];
            let keys = keys.iter().map(|key| Value::from(key.as_str()));
            let words: Vec<Value> = begin.into_iter().chain(keys).chain(arguments.iter().cloned()).collect();
            let queued: Answer = pipeline.custom(command, words).await;
            queued.map_err(|error| self.unavailable(&error))?;
        }
        // The deadline of a command does not cover its wait for a connection.
        let answers = tokio::time::timeout(COMMAND, pipeline.try_all::<Value>()).await;
        answers.map_err(|_| self.failure("no answer in time".to_owned()))
    }

    /// An answer that its script does not give.
    pub(crate) fn nonsense(&self) -> PortError {
        PortError::Refused { backend: self.backend, reason: "an answer of another form".to_owned() }
    }

    fn unavailable(&self, error: &fred::error::Error) -> PortError {
        self.failure(error.details().to_owned())
    }

    fn failure(&self, reason: String) -> PortError {
        PortError::Unavailable { backend: self.backend, reason }
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn is_unknown_script(answer: &Answer) -> bool {
    answer.as_ref().is_err_and(|error| error.details().starts_with("NOSCRIPT"))
}

fn is_not_serving(answer: &Answer) -> bool {
    let Err(error) = answer else { return false };
    NOT_SERVING.iter().any(|begin| {
        let cause = error.details().split(" -").any(|part| part.starts_with(begin));
        cause || error.details().starts_with(begin)
    })
}
