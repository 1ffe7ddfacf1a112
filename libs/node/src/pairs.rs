//! Reading pairs again whose record was written, and giving the shards what the directory says of them.
//!
//! "The log says what changed, the directory says what is": obeying entries as they come leaks, because a process can
//! hang between its write and its entry, and an entry can be repeated. See `shard/pairs.rs`.

use std::collections::VecDeque;
use std::sync::Arc;

use model::PolicyVersion;
use parking_lot::Mutex;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::bell::Bell;
use crate::limits;
use crate::planted::Break;
use crate::shard::Pair;
use crate::shared::Shared;

/// Pairs that wait to be read. Bounded by the shards, which ask for a pair only once until it was read.
#[derive(Default)]
pub(crate) struct PairReads {
    waiting: Mutex<VecDeque<Pair>>,
    wakeup: Bell,
}

impl PairReads {
    /// These are to be read.
    pub(crate) fn submit(&self, pairs: Vec<Pair>) {
        if !pairs.is_empty() {
            self.waiting.lock().extend(pairs);
            self.wakeup.ring();
        }
    }

    fn take(&self) -> Vec<Pair> {
        let mut waiting = self.waiting.lock();
        let taken = waiting.len().min(limits::PAIRS_AT_ONCE);
        waiting.drain(..taken).collect()
    }
}

/// Reads until `stop`. What fails is read later: until then an end stays an end, and a beginning waits.
pub(crate) async fn run(shared: Arc<Shared>, stop: CancellationToken) {
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = shared.pair_reads.wakeup.rung() => {}
        }
        loop {
            let pairs = shared.pair_reads.take();
            if pairs.is_empty() {
                break;
            }
            let again = read(&shared, pairs).await;
            let failed = !again.is_empty();
            shared.pair_reads.submit(again);
            if failed && timeout(limits::RETRY, stop.cancelled()).await.is_ok() {
                return;
            }
        }
    }
}

/// Reads these once; returns the ones that could not be read, or whose record was written again meanwhile.
async fn read(shared: &Shared, pairs: Vec<Pair>) -> Vec<Pair> {
    // Before the read begins: an entry that comes from now on makes it count for nothing.
    let unread = |pair: Pair| Some((pair, shared.shards[shared.shard_of(pair.viewer)].lock().unread(pair)?));
    let wanted: Vec<(Pair, PolicyVersion)> = pairs.into_iter().filter_map(unread).collect();
    let asked: Vec<_> = wanted.iter().map(|(pair, _)| (pair.viewer, pair.friend)).collect();
    let levels = match timeout(limits::PAIR_READ, shared.backends.friendships.levels(&asked)).await {
        Ok(Ok(levels)) if levels.len() == wanted.len() => levels,
        outcome => {
            let error = outcome.ok().and_then(Result::err).map(|error| error.to_string());
            let reason = error.unwrap_or_else(|| "no answer in time".to_owned());
            shared.metrics.failure("friendships");
            tracing::warn!(pairs = wanted.len(), reason, "friendships could not be read again and will be later");
            return wanted.into_iter().map(|(pair, _)| pair).collect();
        }
    };
    let mut again = Vec::new();
    for ((pair, as_of), level) in wanted.into_iter().zip(levels) {
        let (is_read, begun) = shared.with_interests(shared.shard_of(pair.viewer), |shard, interests| {
            let as_of =
                if shared.plants(Break::ReadDespiteEntry) { shard.unread(pair).unwrap_or(as_of) } else { as_of };
            shard.pair_read(pair, as_of, level, interests)
        });
        shared.subscriptions.submit(begun);
        if !is_read {
            again.push(pair);
        }
    }
    again
}
