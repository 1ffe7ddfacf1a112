//! The bounded queue between a broker's connections and the engine: what does not fit is told as a gap, and what is to
//! be published again takes no room in it.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use futures_util::task::AtomicWaker;
use parking_lot::Mutex;
use rustc_hash::FxHashSet;
use tokio::sync::mpsc;

use super::{Affected, Arrival, Channel, Publication};

/// Where a broker's backend puts what arrived.
#[derive(Clone)]
pub struct InboxSender {
    batches: mpsc::Sender<Vec<Publication>>,
    lost: Arc<Lost>,
}

/// Where the engine takes it.
pub struct Inbox {
    batches: mpsc::Receiver<Vec<Publication>>,
    lost: Arc<Lost>,
}

/// Losses that have not been told yet.
#[derive(Default)]
struct Lost {
    untold: Mutex<Untold>,
    /// Of who takes arrivals.
    task: AtomicWaker,
}

#[derive(Default)]
struct Untold {
    /// Where messages to us were lost. Bounded by the number of subscribed channels.
    channels: FxHashSet<Channel>,
    /// Where messages of ours were; all of it in one.
    ours: Option<Affected>,
}

/// An inbox that holds at most `batches` batches; the backend bounds the length of each.
pub fn inbox(batches: usize) -> (InboxSender, Inbox) {
    let (sender, receiver) = mpsc::channel(batches);
    let lost = Arc::new(Lost::default());
    (InboxSender { batches: sender, lost: lost.clone() }, Inbox { batches: receiver, lost })
}

impl InboxSender {
    /// Puts a batch in, or marks its channels as lost when there is no room. Never waits. A receiver that is gone is
    /// nobody to tell.
    pub fn deliver(&self, batch: Vec<Publication>) {
        if let Err(mpsc::error::TrySendError::Full(batch)) = self.batches.try_send(batch) {
            self.gap(batch.iter().map(Publication::channel));
        }
    }

    /// Tells that messages on these channels may have been lost.
    pub fn gap(&self, channels: impl IntoIterator<Item = Channel>) {
        self.lost.untold.lock().channels.extend(channels);
        self.lost.task.wake();
    }

    /// Tells that what this node published on these channels may not have reached everybody. Never lost.
    pub fn republish(&self, affected: Affected) {
        let mut untold = self.lost.untold.lock();
        untold.ours = Some(match untold.ours.take() {
            Some(waiting) => waiting.or(affected),
            None => affected,
        });
        drop(untold);
        self.lost.task.wake();
    }

    /// These channels are subscribed no longer: a gap that has not been told yet does not name them.
    pub fn forget(&self, channels: &[Channel]) {
        let mut untold = self.lost.untold.lock();
        for channel in channels {
            untold.channels.remove(channel);
        }
    }
}

impl Inbox {
    /// The next arrival; `None` when the backend is gone. Cancel safe.
    ///
    /// A loss is told as soon as it is known, before the batches that still wait: the engine reads the cache, which is
    /// never older than what waits, and drops what is older than it has.
    pub async fn recv(&mut self) -> Option<Arrival> {
        poll_fn(|cx| {
            // Registered before the look, or a loss between the two would be missed.
            self.lost.task.register(cx.waker());
            match self.take_loss() {
                Some(loss) => Poll::Ready(Some(loss)),
                None => self.batches.poll_recv(cx).map(|batch| batch.map(Arrival::Batch)),
            }
        })
        .await
    }

    fn take_loss(&self) -> Option<Arrival> {
        let mut untold = self.lost.untold.lock();
        if !untold.channels.is_empty() {
            return Some(Arrival::Gap(untold.channels.drain().collect()));
        }
        untold.ours.take().map(Arrival::Republish)
    }
}
