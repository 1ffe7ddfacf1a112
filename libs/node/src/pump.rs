//! From the sessions to the waist: cache, then broker, in batches, the next batch growing meanwhile. Round trips cost
//! latency, never throughput, and no reader of a socket waits for them.
//!
//! The pump pulls: a shard says *who* has a position to be sent (`shard/outgoing.rs`), and the position is read when it is
//! sent. What failed is kept as names, too. So nothing can overflow, and nothing older is sent after something newer.

use std::future::poll_fn;
use std::mem::replace;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

use model::{Fix, Generation, MonotonicMs, Order, UserId};
use ports::{Publication, Put};
use prometheus_client::metrics::gauge::Gauge;
use rustc_hash::FxHashSet;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::bell::Bell;
use crate::limits;
use crate::patience::within;
use crate::planted::Break;
use crate::shard::Shard;
use crate::shared::Shared;
use crate::watermark::Watermark;

/// One shard's pump.
#[derive(Default)]
pub(crate) struct Pump {
    wakeup: Bell,
    /// How often positions were taken out of the shard, be it none; counted under its lock.
    begun: AtomicU64,
    done: Watermark,
}

impl Pump {
    /// There is something to send.
    pub(crate) fn wake(&self) {
        self.wakeup.ring();
    }

    /// Waits until what is under way has been sent, or has failed. What a shard said before the call that there is of a
    /// user is then nowhere outside of the shard.
    pub(crate) async fn settled(&self) {
        self.done.wait_for(self.begun.load(Ordering::Acquire)).await;
    }

    /// What was taken out last is settled. One is under way at a time: so are all before it.
    fn reached(&self) {
        self.done.reach(self.begun.load(Ordering::Acquire));
    }
}

/// Waits until all that waits now in this shard has been sent once.
pub(crate) async fn flush(shared: &Shared, shard: usize) {
    let pump = &shared.pumps[shard];
    while shared.shards[shard].lock().has_outgoing() {
        pump.wake();
        pump.done.wait_for(pump.begun.load(Ordering::Acquire) + 1).await;
    }
    pump.settled().await;
}

/// What one shard's pump has to do again. Users, each with their newest position when the time comes.
struct Owed {
    /// Published, and still to be put into the cache, which did not take it: who connects later must find it there, also
    /// when its sender is gone by then.
    uncached: FxHashSet<UserId>,
    /// Not published for certain.
    unconfirmed: FxHashSet<UserId>,
    /// With more users than this in `uncached`, those are removed who have no position any more: an outage of hours would
    /// else collect everybody who was ever here. Twice as many as were left the last time, so that looking is rare.
    most_uncached: usize,
    /// How many there are of both, of all pumps together.
    gauge: Gauge,
    shown: usize,
}

impl Owed {
    fn new(gauge: Gauge) -> Owed {
        let (uncached, unconfirmed) = (FxHashSet::default(), FxHashSet::default());
        Owed { uncached, unconfirmed, most_uncached: limits::PUMP_BATCH, gauge, shown: 0 }
    }

    /// The cache has these users' positions, or they have none any more.
    fn paid(&mut self, users: impl Iterator<Item = UserId>) {
        if !self.uncached.is_empty() {
            users.for_each(|user| _ = self.uncached.remove(&user));
        }
    }

    /// The cache did not take these.
    fn missed(&mut self, shared: &Shared, shard: usize, batch: &[Fix]) {
        self.uncached.extend(batch.iter().map(|fix| fix.user));
        if self.uncached.len() <= self.most_uncached {
            return;
        }
        let users: Vec<UserId> = self.uncached.drain().collect();
        for users in users.chunks(limits::PUMP_BATCH) {
            let mut users = users.to_vec();
            shared.shards[shard].lock().retain_shared(&mut users, shared.clock.monotonic());
            self.uncached.extend(users);
        }
        self.most_uncached = (2 * self.uncached.len()).max(limits::PUMP_BATCH);
    }

    fn show(&mut self) {
        let now = self.uncached.len() + self.unconfirmed.len();
        self.gauge.inc_by(now as i64 - self.shown as i64);
        self.shown = now;
    }
}

/// Runs one shard's pump until `stop`.
pub(crate) async fn run(shared: Arc<Shared>, shard: usize, stop: CancellationToken) {
    let pump = &shared.pumps[shard];
    let (mut batch, mut owed) = (Vec::new(), Owed::new(shared.metrics.outgoing_owed.clone()));
    // Moments, not pauses: others who send all the time must not put them off. The timers of moments that are not to be
    // waited for are never made.
    let (mut retry_at, mut pay_at) = (Instant::now(), Instant::now());
    let mut stopped = pin!(stop.cancelled());
    loop {
        let was_owed = (!owed.uncached.is_empty(), !owed.unconfirmed.is_empty());
        tokio::select! {
            biased;
            () = &mut stopped => return,
            () = async { sleep_until(retry_at).await }, if was_owed.1 => {
                let again: Vec<UserId> = owed.unconfirmed.drain().collect();
                shared.send_again(shard, &again);
            }
            () = async { sleep_until(pay_at).await }, if was_owed.0 => {
                let paid = pay_cache(&shared, shard, &mut batch, &mut owed).await;
                pay_at = Instant::now() + if paid { Duration::ZERO } else { limits::CACHE_REST };
                // What is new does not wait until everything is paid.
                send_batch(&shared, shard, &mut batch, &mut owed).await;
            }
            () = pump.wakeup.rung() => {
                let_others_pass().await;
                send_batch(&shared, shard, &mut batch, &mut owed).await;
            }
        }
        owed.show();
        if !was_owed.0 && !owed.uncached.is_empty() {
            pay_at = Instant::now() + limits::CACHE_REST;
        }
        if !was_owed.1 && !owed.unconfirmed.is_empty() {
            retry_at = Instant::now() + limits::RETRY;
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

/// Reads positions out of the shard, and counts them as under way. Returns whether there are some.
fn take(
    shared: &Shared,
    shard: usize,
    read: impl FnOnce(&mut Shard, MonotonicMs, &mut Vec<Fix>),
    batch: &mut Vec<Fix>,
) -> bool {
    batch.clear();
    {
        let mut locked = shared.shards[shard].lock();
        read(&mut locked, shared.clock.monotonic(), batch);
        // Under the lock: whoever finds nothing in the shard also finds this batch counted.
        shared.pumps[shard].begun.fetch_add(1, Ordering::AcqRel);
    }
    if shared.plants(Break::OrderByWallClock) {
        batch.iter_mut().for_each(|fix| fix.order = shared.received_now());
    }
    !batch.is_empty()
}

/// Sends the next batch, if something waits.
async fn send_batch(shared: &Shared, shard: usize, batch: &mut Vec<Fix>, owed: &mut Owed) {
    let outgoing = |shard: &mut Shard, now, batch: &mut _| shard.take_outgoing(limits::PUMP_BATCH, now, batch);
    if take(shared, shard, outgoing, batch) {
        send(shared, shard, batch, owed).await;
        // There may be more, and nobody else says so.
        shared.pumps[shard].wake();
    }
    shared.pumps[shard].reached();
}

/// The second half of one update's way to the waist. The order matters: whoever is told to read the cache instead of a
/// message that was lost must find it there.
async fn send(shared: &Shared, shard: usize, batch: &mut Vec<Fix>, owed: &mut Owed) {
    if shared.plants(Break::PublishBeforeCache) {
        publish(shared, batch, owed).await;
        put(shared, shard, batch, owed).await;
        return;
    }
    put(shared, shard, batch, owed).await;
    publish(shared, batch, owed).await;
}

/// Puts a batch of what the cache missed into it, and publishes it once more: who looked there in vain meanwhile hears of
/// it. Returns whether the cache took it.
async fn pay_cache(shared: &Shared, shard: usize, batch: &mut Vec<Fix>, owed: &mut Owed) -> bool {
    let settled = || shared.pumps[shard].reached();
    let users: Vec<UserId> = owed.uncached.iter().take(limits::PUMP_PAYMENT).copied().collect();
    let last = |shard: &mut Shard, now, batch: &mut Vec<Fix>| {
        batch.extend(users.iter().filter_map(|&user| shard.last_shared(user, now)));
    };
    if !take(shared, shard, last, batch) {
        // Expired, deleted, or shared from elsewhere.
        owed.paid(users.into_iter());
        settled();
        return true;
    }
    let is_taken = put(shared, shard, batch, owed).await;
    if is_taken {
        owed.paid(users.into_iter());
        publish(shared, batch, owed).await;
    }
    settled();
    is_taken
}

/// Puts the batch into the cache, and takes out of it what turns out to be old: its user shares from elsewhere. Returns
/// whether the cache took it.
async fn put(shared: &Shared, shard: usize, batch: &mut Vec<Fix>, owed: &mut Owed) -> bool {
    let Some(puts) = shared.put_into_cache(batch).await else {
        owed.missed(shared, shard, batch);
        return false;
    };
    owed.paid(batch.iter().map(|fix| fix.user));
    let mut puts = puts.iter();
    let mut stale = Vec::new();
    batch.retain(|fix| {
        let is_stale = puts.next() == Some(&Put::Stale);
        stale.extend(Some(*fix).filter(|_| is_stale));
        !is_stale
    });
    if !stale.is_empty() {
        shared.with_shard(shard, |shard| stale.retain(|fix| shard.outdated(fix)));
        shared.stale.submit(&stale);
    }
    true
}

/// Publishes the batch, and remembers whose position has to be published again.
async fn publish(shared: &Shared, batch: &[Fix], owed: &mut Owed) {
    let publications: Vec<Publication> = batch.iter().map(|fix| Publication::Location(*fix)).collect();
    let failed = match within(limits::PUBLISH_PATIENCE, shared.backends.broker.publish(&publications)).await {
        Ok(Ok(())) => Vec::new(),
        Ok(Err(failed)) => {
            tracing::warn!(?failed, "publishing failed and will be tried again");
            failed.indexes
        }
        Err(_) => {
            tracing::warn!(messages = publications.len(), "publishing took too long and will be tried again");
            (0..publications.len()).collect()
        }
    };
    if !owed.unconfirmed.is_empty() {
        batch.iter().for_each(|fix| _ = owed.unconfirmed.remove(&fix.user));
    }
    if failed.is_empty() {
        return;
    }
    shared.metrics.failure("broker");
    owed.unconfirmed.extend(failed.into_iter().filter_map(|at| batch.get(at)).map(|fix| fix.user));
}

impl Shared {
    /// An order that is none between two machines; see [`Break::OrderByWallClock`].
    fn received_now(&self) -> Order {
        Order { generation: Generation(0), ts: self.clock.wall(), ..Order::default() }
    }
}
