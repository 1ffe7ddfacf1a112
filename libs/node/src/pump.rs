//! From the sessions to the waist: cache, history, broker, in batches, the next batch growing meanwhile. Round trips
//! cost latency, never throughput, and no reader of a socket waits for them.

use std::future::poll_fn;
use std::mem::replace;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;

use model::{Fix, MonotonicMs, UserId};
use parking_lot::Mutex;
use ports::{HistoryPoint, Publication, Put};
use rustc_hash::FxHashMap;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::bell::Bell;
use crate::limits;
use crate::patience::within;
use crate::planted::Break;
use crate::shared::Shared;
use crate::watermark::Watermark;

/// A position on its way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outgoing {
    pub(crate) fix: Fix,
    /// Has not been offered to the history yet.
    pub(crate) fresh: bool,
}

#[derive(Default)]
struct Waiting {
    fixes: Vec<Outgoing>,
    /// Where in `fixes` a user's position is.
    index: FxHashMap<UserId, usize>,
    /// Something did not fit: when there is room again, everybody's newest position is sent.
    overflowed: bool,
    /// Published, and still to be put into the cache, which did not take it: who connects later must find it there,
    /// also when its sender is gone by then.
    uncached: FxHashMap<UserId, Fix>,
}

/// One shard's pump. The newest position of a user takes the place of one that still waits.
#[derive(Default)]
pub(crate) struct Pump {
    waiting: Mutex<Waiting>,
    bell: Bell,
    begun: AtomicU64,
    done: Watermark,
}

impl Pump {
    /// Puts a position in. Never waits.
    pub(crate) fn offer(&self, outgoing: Outgoing) {
        {
            let mut waiting = self.waiting.lock();
            let user = outgoing.fix.user;
            if let Some(&at) = waiting.index.get(&user) {
                let held = &mut waiting.fixes[at];
                if held.fix.order <= outgoing.fix.order {
                    *held = Outgoing { fresh: held.fresh || outgoing.fresh, ..outgoing };
                }
            } else if waiting.fixes.len() < limits::PUMP_FIXES {
                let at = waiting.fixes.len();
                waiting.index.insert(user, at);
                waiting.fixes.push(outgoing);
            } else {
                waiting.overflowed = true;
            }
        }
        self.bell.ring();
    }

    /// Drops what waits of a user and waits until nothing of theirs is on its way any more.
    pub(crate) async fn forget(&self, user: UserId) {
        {
            let mut waiting = self.waiting.lock();
            let waiting = &mut *waiting;
            waiting.uncached.remove(&user);
            waiting.fixes.retain(|outgoing| outgoing.fix.user != user);
            waiting.index = waiting.fixes.iter().enumerate().map(|(at, outgoing)| (outgoing.fix.user, at)).collect();
        }
        self.done.wait_for(self.begun.load(Ordering::Acquire)).await;
    }

    /// Waits until all that waits now has been sent once.
    pub(crate) async fn flush(&self) {
        while !self.waiting.lock().fixes.is_empty() {
            self.bell.ring();
            let begun = self.begun.load(Ordering::Acquire) + 1;
            self.done.wait_for(begun).await;
        }
        self.done.wait_for(self.begun.load(Ordering::Acquire)).await;
    }

    /// Remembers what the cache did not take, as far as there is room.
    fn owe_to_cache(&self, fixes: &[Fix]) {
        let mut waiting = self.waiting.lock();
        for fix in fixes {
            match waiting.uncached.get(&fix.user).map(|owed| owed.order) {
                // What was published late, because an earlier try failed.
                Some(owed) if owed > fix.order => {}
                None if waiting.uncached.len() >= limits::PUMP_FIXES => waiting.overflowed = true,
                _ => {
                    waiting.uncached.insert(fix.user, *fix);
                }
            }
        }
    }

    /// What is owed to the cache: up to a batch of it, less what has expired.
    fn owed_to_cache(&self, now: MonotonicMs) -> Vec<Fix> {
        let mut waiting = self.waiting.lock();
        waiting.uncached.retain(|_, fix| fix.expires > now);
        waiting.uncached.values().take(limits::PUMP_BATCH).copied().collect()
    }

    /// The cache has taken these: not owed any more, unless something newer is.
    fn paid_to_cache(&self, fixes: &[Fix]) {
        let mut waiting = self.waiting.lock();
        if waiting.uncached.is_empty() {
            return;
        }
        for fix in fixes {
            if waiting.uncached.get(&fix.user).is_some_and(|owed| owed.order <= fix.order) {
                waiting.uncached.remove(&fix.user);
            }
        }
    }

    /// The next batch, and whether there was more than fitted.
    fn take(&self, batch: &mut Vec<Outgoing>) -> bool {
        batch.clear();
        let mut waiting = self.waiting.lock();
        let waiting = &mut *waiting;
        if waiting.fixes.len() <= limits::PUMP_BATCH {
            std::mem::swap(batch, &mut waiting.fixes);
            waiting.index.clear();
        } else {
            batch.extend(waiting.fixes.drain(..limits::PUMP_BATCH));
            waiting.index.clear();
            waiting.index.extend(waiting.fixes.iter().enumerate().map(|(at, outgoing)| (outgoing.fix.user, at)));
        }
        if !batch.is_empty() {
            // Under the lock: whoever finds nothing waiting also finds this batch counted as begun.
            self.begun.fetch_add(1, Ordering::AcqRel);
        }
        waiting.fixes.is_empty() && std::mem::take(&mut waiting.overflowed)
    }
}

/// Runs one shard's pump until `stop`.
pub(crate) async fn run(shared: Arc<Shared>, shard: usize, stop: CancellationToken) {
    let pump = &shared.pumps[shard];
    let mut batch = Vec::new();
    let mut unconfirmed: Vec<Outgoing> = Vec::new();
    let mut owing = false;
    // Moments, not pauses: others who send all the time must not put them off. The timers of moments that are not to be
    // waited for are never made.
    let (mut retry_at, mut pay_at) = (Instant::now(), Instant::now());
    let mut stopped = pin!(stop.cancelled());
    loop {
        tokio::select! {
            biased;
            () = &mut stopped => return,
            () = async { sleep_until(retry_at).await }, if !unconfirmed.is_empty() => {
                unconfirmed.drain(..).for_each(|outgoing| pump.offer(outgoing));
            }
            () = async { sleep_until(pay_at).await }, if owing => {
                owing = pay_cache(&shared, pump).await;
                pay_at = Instant::now() + limits::CACHE_REST;
            }
            () = pump.bell.rung() => let_others_pass().await,
        }
        loop {
            let overflowed = pump.take(&mut batch);
            if batch.is_empty() {
                break;
            }
            let (paid, confirmed) = (!owing, unconfirmed.is_empty());
            owing |= !send(&shared, shard, &mut batch, &mut unconfirmed).await;
            if paid && owing {
                pay_at = Instant::now() + limits::CACHE_REST;
            }
            if confirmed && !unconfirmed.is_empty() {
                retry_at = Instant::now() + limits::RETRY;
            }
            // One is sent at a time: all that were begun are done.
            pump.done.reach(pump.begun.load(Ordering::Acquire));
            if overflowed {
                shared.publish_again(shard, |_| true);
            }
        }
    }
}

/// Lets those run first who are ready to: connections that were read from together are one batch, and their news one
/// turn of the courier. Not the runtime's `yield_now`, which looks for events of the operating system before.
async fn let_others_pass() {
    let mut has_yielded = false;
    poll_fn(|cx| {
        if replace(&mut has_yielded, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Puts what is owed into the cache, and publishes it again: who looked there in vain meanwhile hears of it. Returns
/// whether more is owed.
async fn pay_cache(shared: &Shared, pump: &Pump) -> bool {
    let owed = pump.owed_to_cache(shared.clock.monotonic());
    if owed.is_empty() {
        return false;
    }
    if shared.put_into_cache(&owed).await.is_some() {
        pump.paid_to_cache(&owed);
        owed.into_iter().for_each(|fix| pump.offer(Outgoing { fix, fresh: false }));
    }
    true
}

/// The second half of one update's way to the waist. The order matters: whoever is told to read the cache instead of
/// a message that was lost must find it there. Returns whether the cache took its part.
async fn send(shared: &Shared, shard: usize, batch: &mut Vec<Outgoing>, unconfirmed: &mut Vec<Outgoing>) -> bool {
    if shared.plants(Break::PublishBeforeCache) {
        unconfirmed.extend(publish(shared, batch).await);
        return put(shared, shard, batch).await;
    }
    let cached = put(shared, shard, batch).await;
    shared.recorder.offer(batch.iter().filter(|outgoing| outgoing.fresh).map(|outgoing| point(&outgoing.fix)));
    unconfirmed.extend(publish(shared, batch).await);
    cached
}

/// Puts the batch into the cache, and takes out of it what turns out to be old. Returns whether the cache took it.
async fn put(shared: &Shared, shard: usize, batch: &mut Vec<Outgoing>) -> bool {
    let pump = &shared.pumps[shard];
    let fixes: Vec<Fix> = batch.iter().map(|outgoing| outgoing.fix).collect();
    let Some(puts) = shared.put_into_cache(&fixes).await else {
        pump.owe_to_cache(&fixes);
        return false;
    };
    pump.paid_to_cache(&fixes);
    stop_stale(shared, shard, batch, &puts).await;
    true
}

/// Publishes the batch, and returns what has to be published again.
async fn publish(shared: &Shared, batch: &[Outgoing]) -> Vec<Outgoing> {
    let publications: Vec<Publication> = batch.iter().map(|outgoing| Publication::Location(outgoing.fix)).collect();
    let failed = match within(limits::PUBLISH_PATIENCE, shared.backends.broker.publish(&publications)).await {
        Ok(Ok(())) => return Vec::new(),
        Ok(Err(failed)) => {
            tracing::warn!(?failed, "publishing failed and will be tried again");
            failed.indexes
        }
        Err(_) => {
            tracing::warn!(messages = publications.len(), "publishing took too long and will be tried again");
            (0..publications.len()).collect()
        }
    };
    shared.metrics.failure("broker");
    failed.into_iter().filter_map(|at| batch.get(at)).map(|outgoing| Outgoing { fresh: false, ..*outgoing }).collect()
}

/// Takes out of the batch what is older than the cache has: its user shares from elsewhere.
async fn stop_stale(shared: &Shared, shard: usize, batch: &mut Vec<Outgoing>, puts: &[Put]) {
    let mut puts = puts.iter();
    let mut stale = Vec::new();
    batch.retain(|outgoing| {
        let keep = puts.next() != Some(&Put::Stale);
        if !keep {
            stale.push(outgoing.fix);
        }
        keep
    });
    for fix in stale {
        shared.check_superseded(shard, &fix).await;
    }
}

/// What the history keeps of a fix.
pub(crate) fn point(fix: &Fix) -> HistoryPoint {
    HistoryPoint { user: fix.user, ts: fix.order.ts, position: fix.place.position(), motion: fix.motion }
}
