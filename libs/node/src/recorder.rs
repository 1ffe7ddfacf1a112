//! The way to the history: offered and never waited for by a live position, waited for by a posted one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use model::{Fix, UserId};
use parking_lot::Mutex;
use ports::{HistoryPoint, PortError};
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

#[derive(Default)]
struct Waiting {
    points: Vec<HistoryPoint>,
    /// Told when all that was waiting with them is durable.
    durable: Vec<oneshot::Sender<Result<(), PortError>>>,
}

/// Points on their way to the history.
pub(crate) struct Recorder {
    waiting: Mutex<Waiting>,
    bell: Bell,
    urgent: Bell,
    begun: AtomicU64,
    done: Watermark,
    metrics: Metrics,
}

impl Recorder {
    pub(crate) fn new(metrics: Metrics) -> Recorder {
        Recorder {
            waiting: Mutex::default(),
            bell: Bell::default(),
            urgent: Bell::default(),
            begun: AtomicU64::new(0),
            done: Watermark::default(),
            metrics,
        }
    }

    /// Takes points along, as far as there is room: what does not fit is dropped and counted.
    pub(crate) fn offer(&self, points: impl IntoIterator<Item = HistoryPoint>) {
        let mut waiting = self.waiting.lock();
        let mut dropped = 0;
        for point in points {
            if waiting.points.len() < limits::HISTORY_QUEUE {
                waiting.points.push(point);
            } else {
                dropped += 1;
            }
        }
        let queued = waiting.points.len();
        drop(waiting);
        self.metrics.history_queued.set(queued as i64);
        if dropped > 0 {
            self.metrics.history("dropped", dropped);
        }
        if queued > 0 {
            self.bell.ring();
        }
    }

    /// Takes points along to be written at once; what comes back tells when they are durable. `Unavailable`, and none
    /// is kept, when there is no room.
    pub(crate) fn record(&self, points: &[HistoryPoint]) -> Result<Durable, PortError> {
        let (sender, durable) = oneshot::channel();
        {
            let mut waiting = self.waiting.lock();
            if waiting.points.len() + points.len() > limits::HISTORY_QUEUE {
                let reason = "too many points wait to be written".into();
                return Err(PortError::Unavailable { backend: "history", reason });
            }
            waiting.points.extend_from_slice(points);
            waiting.durable.push(sender);
        }
        self.bell.ring();
        self.urgent.ring();
        Ok(durable)
    }

    /// Drops what waits of a user, and returns when nothing of theirs is being written any more.
    pub(crate) async fn forget(&self, user: UserId) {
        self.waiting.lock().points.retain(|point| point.user != user);
        self.done.wait_for(self.begun.load(Ordering::Acquire)).await;
    }

    fn take(&self) -> Waiting {
        let mut waiting = self.waiting.lock();
        if !waiting.points.is_empty() {
            self.begun.fetch_add(1, Ordering::AcqRel);
        }
        std::mem::take(&mut *waiting)
    }

    /// Puts back what could not be written, as far as there is room beside what came meanwhile.
    fn put_back(&self, mut points: Vec<HistoryPoint>) {
        let mut waiting = self.waiting.lock();
        let room = limits::HISTORY_QUEUE.saturating_sub(waiting.points.len());
        let dropped = points.len().saturating_sub(room);
        points.drain(..dropped);
        points.append(&mut waiting.points);
        waiting.points = points;
        self.metrics.history("dropped", dropped);
    }
}

/// Writes until `stop`, and then what is left.
pub(crate) async fn run(shared: Arc<Shared>, stop: CancellationToken) {
    let recorder = &shared.recorder;
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => {
                write(&shared).await;
                return;
            }
            () = recorder.bell.rung() => {}
        }
        // A moment for company, unless somebody waits.
        let nobody_waits = recorder.waiting.lock().durable.is_empty();
        if nobody_waits {
            tokio::select! {
                biased;
                () = recorder.urgent.rung() => {}
                () = stop.cancelled() => {}
                () = sleep(limits::HISTORY_LINGER) => {}
            }
        }
        if !write(&shared).await {
            let _ = timeout(REST, stop.cancelled()).await;
            recorder.bell.ring();
        }
    }
}

async fn write(shared: &Shared) -> bool {
    let recorder = &shared.recorder;
    let Waiting { points, durable } = recorder.take();
    if points.is_empty() {
        durable.into_iter().for_each(|waits| drop(waits.send(Ok(()))));
        return true;
    }
    let mut outcome = Ok(());
    let mut written = 0;
    for batch in points.chunks(limits::HISTORY_BATCH) {
        outcome = shared.backends.history.append(batch).await;
        if outcome.is_err() {
            break;
        }
        written += batch.len();
    }
    recorder.metrics.history("written", written);
    if let Err(error) = &outcome {
        shared.metrics.failure("history");
        tracing::warn!(%error, points = points.len() - written, "writing the history failed and will be tried again");
        // Those who wait are told now and may send again: the same point twice is one point.
        recorder.put_back(points[written..].to_vec());
    }
    recorder.metrics.history_queued.set(recorder.waiting.lock().points.len() as i64);
    // One is written at a time: all that were begun are done.
    recorder.done.reach(recorder.begun.load(Ordering::Acquire));
    durable.into_iter().for_each(|waits| drop(waits.send(outcome.clone())));
    outcome.is_ok()
}

/// What the history keeps of a fix.
pub(crate) fn point(fix: &Fix) -> HistoryPoint {
    HistoryPoint { user: fix.user, ts: fix.order.ts, position: fix.place.position(), motion: fix.motion }
}
