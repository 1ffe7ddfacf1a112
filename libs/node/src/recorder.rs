//! The way to the history: offered and never waited for by a live position, waited for by a posted one.
//!
//! Points wait in batches, in the order in which they came, and one batch is written at a time. A batch that fails goes
//! back to the front; what was written is not written again. No point of a user who is being erased is taken in or
//! tried again ([`Recorder::forget`]). At the end of the process, what could not be written is counted and said
//! ([`Recorder::give_up`]): in = written + dropped + erased + queued.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use model::{Fix, UserId};
use parking_lot::Mutex;
use ports::{HistoryPoint, LocationHistory, PortError};
use rustc_hash::FxHashMap;
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::bell::Bell;
use crate::limits;
use crate::metrics::Metrics;
use crate::shared::Shared;
use crate::watermark::Watermark;

/// How long the writer rests after a failure.
const REST: Duration = Duration::from_secs(1);

/// Tells when points are durable, or why they are not.
pub(crate) type Durable = oneshot::Receiver<Result<(), PortError>>;

/// Who waits until a batch is durable, and whose points.
type Waiter = (UserId, oneshot::Sender<Result<(), PortError>>);

/// At most [`limits::HISTORY_BATCH`] points, written by one call.
#[derive(Default)]
struct Batch {
    points: Vec<HistoryPoint>,
    /// Told when this batch is durable: those before it are by then.
    waiters: Vec<Waiter>,
}

#[derive(Default)]
struct Queue {
    batches: VecDeque<Batch>,
    /// Points in `batches` and in the batch that is being written: at most [`limits::HISTORY_QUEUE`].
    len: usize,
    /// Batches whose writing began,
    begun: u64,
    /// and those of them that failed.
    failed: u64,
    /// Users who are being erased, each with the number of calls that do so.
    erasing: FxHashMap<UserId, usize>,
    /// Nothing is written any more.
    closed: bool,
}

impl Queue {
    fn push(&mut self, point: HistoryPoint) {
        match self.batches.back_mut() {
            Some(last) if last.points.len() < limits::HISTORY_BATCH => last.points.push(point),
            _ => self.batches.push_back(Batch { points: vec![point], waiters: Vec::new() }),
        }
        self.len += 1;
    }
}

/// Points on their way to the history.
pub(crate) struct Recorder {
    queue: Mutex<Queue>,
    wakeup: Bell,
    urgent: Bell,
    /// Batches whose writing ended, one way or the other.
    done: Watermark,
    gave_up: CancellationToken,
    metrics: Metrics,
}

impl Recorder {
    pub(crate) fn new(metrics: Metrics) -> Recorder {
        Recorder {
            queue: Mutex::default(),
            wakeup: Bell::default(),
            urgent: Bell::default(),
            done: Watermark::default(),
            gave_up: CancellationToken::new(),
            metrics,
        }
    }

    /// Takes points along, as far as there is room: what does not fit is dropped and counted. So are points of users
    /// who are being erased.
    pub(crate) fn offer(&self, points: impl IntoIterator<Item = HistoryPoint>) {
        let (mut dropped, mut erased) = (0, 0);
        let queued = {
            let mut queue = self.queue.lock();
            for point in points {
                if queue.erasing.contains_key(&point.user) {
                    erased += 1;
                } else if queue.closed || queue.len >= limits::HISTORY_QUEUE {
                    dropped += 1;
                } else {
                    queue.push(point);
                }
            }
            queue.len
        };
        self.metrics.history_queued.set(queued as i64);
        self.count("dropped", dropped);
        self.count("erased", erased);
        if queued > 0 {
            self.wakeup.ring();
        }
    }

    /// Takes points of one user along, to be written at once; what comes back tells when they are durable.
    /// `Unavailable`, and none is kept, when there is no room, when the user is being erased, or after
    /// [`Recorder::give_up`].
    pub(crate) fn record(&self, points: &[HistoryPoint]) -> Result<Durable, PortError> {
        let (sender, durable) = oneshot::channel();
        let Some(user) = points.first().map(|point| point.user) else {
            let _ = sender.send(Ok(()));
            return Ok(durable);
        };
        debug_assert!(points.iter().all(|point| point.user == user));
        {
            let mut queue = self.queue.lock();
            if queue.closed {
                return Err(unavailable("this node is stopping"));
            }
            if queue.erasing.contains_key(&user) {
                return Err(being_erased());
            }
            if queue.len + points.len() > limits::HISTORY_QUEUE {
                return Err(unavailable("too many points wait to be written"));
            }
            points.iter().for_each(|point| queue.push(*point));
            // The batch with the last of them.
            if let Some(last) = queue.batches.back_mut() {
                last.waiters.push((user, sender));
            }
        }
        self.wakeup.ring();
        self.urgent.ring();
        Ok(durable)
    }

    /// Drops what waits of a user, and returns when nothing of theirs is being written any more. Until then no point of
    /// theirs is taken in, and none comes back from a batch that fails. Cancel safe.
    pub(crate) async fn forget(&self, user: UserId) {
        let _erasing = self.begin_erasing(user);
        let (erased, waiters, begun) = {
            let mut queue = self.queue.lock();
            let (mut erased, mut waiters) = (0, Vec::new());
            for batch in &mut queue.batches {
                erased += batch.erase(|of| of == user, &mut waiters);
            }
            queue.batches.retain(|batch| !batch.points.is_empty());
            queue.len -= erased;
            (erased, waiters, queue.begun)
        };
        self.count("erased", erased);
        tell(waiters, &Err(being_erased()));
        self.done.wait_for(begun).await;
    }

    /// Waits until all points that wait now are written.
    pub(crate) async fn written_so_far(&self) {
        loop {
            let (last, failed) = {
                let queue = self.queue.lock();
                (queue.begun + queue.batches.len() as u64, queue.failed)
            };
            self.done.wait_for(last).await;
            // A batch that failed is one of those that wait now.
            if self.queue.lock().failed == failed {
                return;
            }
        }
    }

    fn begin_erasing(&self, user: UserId) -> Erasing<'_> {
        *self.queue.lock().erasing.entry(user).or_default() += 1;
        Erasing { recorder: self, user }
    }

    /// Nothing is written any more from now on. Returns the number of points that were not, having counted them as
    /// dropped and said so.
    pub(crate) fn give_up(&self) -> usize {
        let (lost, batches) = {
            let mut queue = self.queue.lock();
            queue.closed = true;
            // What is being written does not come back: nobody will see whether it was.
            (std::mem::take(&mut queue.len), std::mem::take(&mut queue.batches))
        };
        self.gave_up.cancel();
        self.metrics.history_queued.set(0);
        self.count("dropped", lost);
        if lost > 0 {
            tracing::error!(points = lost, "points of the history could not be written before the end and are lost");
        }
        batches.into_iter().for_each(|batch| tell(batch.waiters, &Err(unavailable("this node is stopping"))));
        lost
    }

    /// The next batch, which is being written from now on.
    fn take(&self) -> Option<Batch> {
        let mut queue = self.queue.lock();
        let batch = queue.batches.pop_front()?;
        queue.begun += 1;
        Some(batch)
    }

    /// The batch that was being written is durable.
    fn written(&self, batch: Batch) {
        let counts = {
            let mut queue = self.queue.lock();
            // Else it is counted as dropped.
            let counts = !queue.closed;
            if counts {
                queue.len -= batch.points.len();
            }
            self.metrics.history_queued.set(queue.len as i64);
            self.done.reach(queue.begun);
            counts
        };
        if counts {
            self.count("written", batch.points.len());
        }
        tell(batch.waiters, &Ok(()));
    }

    /// The batch that was being written failed. It is tried again, less what is of users who are being erased. All who
    /// wait are told now and may send again: the same point twice is one point.
    fn failed(&self, mut batch: Batch, error: &PortError) {
        let mut waiters = std::mem::take(&mut batch.waiters);
        let mut erased = 0;
        {
            let mut queue = self.queue.lock();
            queue.failed += 1;
            if !queue.closed {
                erased = batch.erase(|of| queue.erasing.contains_key(&of), &mut waiters);
                queue.len -= erased;
                if !batch.points.is_empty() {
                    queue.batches.push_front(batch);
                }
                queue.batches.iter_mut().for_each(|batch| waiters.append(&mut batch.waiters));
            }
            self.metrics.history_queued.set(queue.len as i64);
            // After what comes back was decided: who erases looks no further.
            self.done.reach(queue.begun);
        }
        self.count("erased", erased);
        tell(waiters, &Err(error.clone()));
    }

    fn count(&self, kind: &'static str, points: usize) {
        if points > 0 {
            self.metrics.history(kind, points);
        }
    }

    fn is_empty(&self) -> bool {
        self.queue.lock().batches.is_empty()
    }

    fn somebody_waits(&self) -> bool {
        self.queue.lock().batches.iter().any(|batch| !batch.waiters.is_empty())
    }
}

impl Batch {
    /// Takes out the points of these users and who waits for them. Returns the number of points.
    fn erase(&mut self, is_erased: impl Fn(UserId) -> bool, waiters: &mut Vec<Waiter>) -> usize {
        let before = self.points.len();
        self.points.retain(|point| !is_erased(point.user));
        waiters.extend(self.waiters.extract_if(.., |(user, _)| is_erased(*user)));
        before - self.points.len()
    }
}

/// A user is being erased, until this is dropped.
struct Erasing<'a> {
    recorder: &'a Recorder,
    user: UserId,
}

impl Drop for Erasing<'_> {
    fn drop(&mut self) {
        let mut queue = self.recorder.queue.lock();
        if let Some(calls) = queue.erasing.get_mut(&self.user) {
            *calls -= 1;
            if *calls == 0 {
                queue.erasing.remove(&self.user);
            }
        }
    }
}

fn tell(waiters: Vec<Waiter>, outcome: &Result<(), PortError>) {
    // Whoever waited may have gone.
    waiters.into_iter().for_each(|(_, waiter)| drop(waiter.send(outcome.clone())));
}

fn unavailable(reason: &str) -> PortError {
    PortError::Unavailable { backend: "history", reason: reason.to_owned() }
}

fn being_erased() -> PortError {
    unavailable("the user is being deleted")
}

/// Writes until `stop`, and then what is left, until nothing is or [`Recorder::give_up`].
pub(crate) async fn run(shared: Arc<Shared>, stop: CancellationToken) {
    write_until(&shared.recorder, &*shared.backends.history, &stop).await;
}

async fn write_until(recorder: &Recorder, history: &dyn LocationHistory, stop: &CancellationToken) {
    let mut is_failing = false;
    while !stop.is_cancelled() {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            () = recorder.wakeup.rung() => {}
        }
        // A moment for company, unless somebody waits.
        if !recorder.somebody_waits() {
            tokio::select! {
                biased;
                () = recorder.urgent.rung() => {}
                () = stop.cancelled() => {}
                () = sleep(limits::HISTORY_LINGER) => {}
            }
        }
        if !write_all(recorder, history, &mut is_failing).await {
            let _ = timeout(REST, stop.cancelled()).await;
            recorder.wakeup.ring();
        }
    }
    while !recorder.is_empty() && !write_all(recorder, history, &mut is_failing).await {
        if timeout(limits::RETRY, recorder.gave_up.cancelled()).await.is_ok() {
            return;
        }
    }
}

/// Writes what waits, a batch at a time, up to the first that fails. Returns whether none did. Of failures in a row only
/// the first is a warning.
async fn write_all(recorder: &Recorder, history: &dyn LocationHistory, is_failing: &mut bool) -> bool {
    while let Some(batch) = recorder.take() {
        let outcome = tokio::select! {
            biased;
            () = recorder.gave_up.cancelled() => return false,
            outcome = history.append(&batch.points) => outcome,
        };
        match outcome {
            Ok(()) => {
                *is_failing = false;
                recorder.written(batch);
            }
            Err(error) => {
                recorder.metrics.failure("history");
                let points = batch.points.len();
                if std::mem::replace(is_failing, true) {
                    tracing::debug!(%error, points, "writing the history failed again");
                } else {
                    tracing::warn!(%error, points, "writing the history failed and will be tried again");
                }
                recorder.failed(batch, &error);
                return false;
            }
        }
    }
    true
}

/// What the history keeps of a fix.
pub(crate) fn point(fix: &Fix) -> HistoryPoint {
    HistoryPoint { user: fix.user, ts: fix.order.ts, position: fix.place.position(), motion: fix.motion }
}

#[cfg(test)]
mod tests;
