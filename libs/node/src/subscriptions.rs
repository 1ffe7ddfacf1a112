//! Keeping the broker's subscriptions and the engine's knowledge in step with [`Interest`].
//!
//! Subscribe, acknowledged, then read the cache: whatever was published before the acknowledgement is in the cache by
//! then, whatever is published after it arrives. What fails stays owed and is tried again.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::{StreamExt, stream};
use model::UserId;
use parking_lot::Mutex;
use ports::Channel;
use tokio::sync::oneshot;
use tokio::task::{JoinSet, yield_now};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::bell::Bell;
use crate::interest::Work;
use crate::limits;
use crate::planted::Break;
use crate::shared::Shared;

/// Users to look at, and whom to tell when that has been done once.
struct Job {
    users: Vec<UserId>,
    done: Option<oneshot::Sender<()>>,
}

/// The queue of what may need doing. Bounded by what fills it: a connect is one job and waits for it, a gap names
/// channels that are in the table.
#[derive(Default)]
pub(crate) struct Subscriptions {
    jobs: Mutex<VecDeque<Job>>,
    bell: Bell,
}

impl Subscriptions {
    /// These users may need subscribing or reading.
    pub(crate) fn submit(&self, users: Vec<UserId>) {
        self.push(Job { users, done: None });
    }

    /// The same, and waits until it has been tried once, but no longer than [`limits::CONNECT_PATIENCE`].
    pub(crate) async fn ensure(&self, users: Vec<UserId>) {
        if users.is_empty() {
            return;
        }
        let (done, waits) = oneshot::channel();
        self.push(Job { users, done: Some(done) });
        // Either way the connect goes on: what is missing is owed and comes as a push.
        let _ = timeout(limits::CONNECT_PATIENCE, waits).await;
    }

    fn push(&self, job: Job) {
        if !job.users.is_empty() {
            self.jobs.lock().push_back(job);
            self.bell.ring();
        }
    }

    /// As many whole jobs as fit into one batch, but at least one.
    fn take(&self) -> Vec<Job> {
        let mut jobs = self.jobs.lock();
        let mut taken: Vec<Job> = Vec::new();
        let mut users = 0;
        while let Some(next) = jobs.front() {
            if !taken.is_empty() && users + next.users.len() > limits::SUBSCRIPTION_BATCH {
                break;
            }
            users += next.users.len();
            taken.extend(jobs.pop_front());
        }
        taken
    }
}

/// Runs until `stop`.
pub(crate) async fn run(shared: Arc<Shared>, stop: CancellationToken) {
    let mut under_way: JoinSet<Vec<UserId>> = JoinSet::new();
    let mut failed: Vec<UserId> = Vec::new();
    let mut retry_at = Instant::now();
    loop {
        let room = under_way.len() < limits::SUBSCRIPTIONS_AT_ONCE;
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            Some(ended) = under_way.join_next() => {
                if failed.is_empty() {
                    retry_at = Instant::now() + limits::RETRY;
                }
                failed.extend(ended.unwrap_or_default());
            }
            () = sleep_until(retry_at), if !failed.is_empty() => {
                shared.subscriptions.submit(std::mem::take(&mut failed));
            }
            () = shared.subscriptions.bell.rung(), if room => {}
        }
        while under_way.len() < limits::SUBSCRIPTIONS_AT_ONCE {
            let jobs = shared.subscriptions.take();
            if jobs.is_empty() {
                break;
            }
            under_way.spawn(work_off(shared.clone(), jobs));
        }
    }
}

/// Subscribes and reads for these jobs; returns the users for whom that failed.
async fn work_off(shared: Arc<Shared>, jobs: Vec<Job>) -> Vec<UserId> {
    let mut failed = Vec::new();
    let users: Vec<UserId> = jobs.iter().flat_map(|job| job.users.iter().copied()).collect();
    for users in users.chunks(limits::SUBSCRIPTION_BATCH) {
        let work: Vec<(UserId, Work)> =
            users.iter().filter_map(|&user| Some((user, shared.interest.take_on(user)?))).collect();
        let read_first = shared.plants(Break::ReadBeforeSubscribed) && shared.read_into_shards(&work).await;
        let subscribed = subscribe(&shared, &work).await;
        let read = subscribed && (read_first || shared.read_into_shards(&work).await);
        let mut again = Vec::new();
        for (user, work) in work {
            if shared.interest.report(user, work, subscribed, read) {
                again.push(user);
            }
        }
        if read {
            // Another shard began to watch meanwhile: that is no failure.
            shared.subscriptions.submit(again);
        } else {
            failed.append(&mut again);
        }
    }
    for done in jobs.into_iter().filter_map(|job| job.done) {
        // The connect may have given up waiting.
        let _ = done.send(());
    }
    failed
}

async fn subscribe(shared: &Shared, work: &[(UserId, Work)]) -> bool {
    let channels: Vec<Channel> =
        work.iter().filter(|(_, work)| work.subscribe).map(|(user, _)| Channel::User(*user)).collect();
    if channels.is_empty() {
        return true;
    }
    match timeout(limits::PUBLISH_PATIENCE, shared.backends.broker.subscribe(&channels)).await {
        Ok(Ok(())) => true,
        Ok(Err(error)) => {
            shared.metrics.failure("broker");
            tracing::warn!(%error, channels = channels.len(), "subscribing failed and will be tried again");
            false
        }
        Err(_) => {
            shared.metrics.failure("broker");
            tracing::warn!(channels = channels.len(), "subscribing took too long and will be tried again");
            false
        }
    }
}

/// Gives up the channels that nobody has watched for the grace period, until `stop`. A task of its own: subscribing
/// never waits for it.
pub(crate) async fn give_up(shared: Arc<Shared>, stop: CancellationToken) {
    let mut ticks = interval(limits::TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = async {
                ticks.tick().await;
                give_up_due(&shared).await;
            } => {}
        }
        let (held, owed) = shared.interest.counts();
        shared.metrics.subscriptions.set(held as i64);
        shared.metrics.owed.set(owed as i64);
    }
}

/// Until nobody is due, [`limits::SUBSCRIPTIONS_AT_ONCE`] calls at a time; the first that fails is the last but those.
async fn give_up_due(shared: &Shared) {
    let failed = AtomicBool::new(false);
    let batches = stream::unfold((), |()| async {
        // Thousands are looked at without a call when they are watched again: others may go first in between.
        yield_now().await;
        let is_failing = failed.load(Ordering::Relaxed);
        let now = shared.clock.monotonic();
        let due = if is_failing { None } else { shared.interest.take_due(now, limits::SUBSCRIPTION_BATCH) };
        due.map(|leaving| (leaving, ()))
    });
    let calls = batches.for_each_concurrent(limits::SUBSCRIPTIONS_AT_ONCE, |leaving| async {
        if !leave(shared, leaving).await {
            failed.store(true, Ordering::Relaxed);
        }
    });
    calls.await;
}

async fn leave(shared: &Shared, users: Vec<UserId>) -> bool {
    if users.is_empty() {
        return true;
    }
    let channels: Vec<Channel> = users.iter().map(|user| Channel::User(*user)).collect();
    let call = timeout(limits::PUBLISH_PATIENCE, shared.backends.broker.unsubscribe(&channels));
    let unsubscribed = matches!(call.await, Ok(Ok(())));
    if !unsubscribed {
        shared.metrics.failure("broker");
        tracing::warn!(channels = channels.len(), "unsubscribing failed and will be tried again");
    }
    let now = shared.clock.monotonic();
    let wanted = users.into_iter().filter(|&user| shared.interest.left(user, unsubscribed, now)).collect();
    shared.subscriptions.submit(wanted);
    unsubscribed
}

#[cfg(test)]
mod tests;
