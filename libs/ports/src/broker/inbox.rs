//! The bounded queue between a broker's connections and the engine: what does not fit is told as a gap.

use std::sync::Arc;

use parking_lot::Mutex;
use rustc_hash::FxHashSet;
use tokio::sync::{Notify, mpsc};

use super::{Arrival, Channel, Publication};

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

/// Channels with losses that have not been told yet. Bounded by the number of subscribed channels.
#[derive(Default)]
struct Lost {
    channels: Mutex<FxHashSet<Channel>>,
    some: Notify,
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
        self.lost.channels.lock().extend(channels);
        self.lost.some.notify_one();
    }

    /// These channels are subscribed no longer: a gap that has not been told yet does not name them.
    pub fn forget(&self, channels: &[Channel]) {
        let mut lost = self.lost.channels.lock();
        for channel in channels {
            lost.remove(channel);
        }
    }
}

impl Inbox {
    /// The next arrival; `None` when the backend is gone. Cancel safe.
    ///
    /// A gap is told as soon as it is known, before the batches that still wait: the engine reads the cache, which is
    /// never older than what waits, and drops what is older than it has.
    pub async fn recv(&mut self) -> Option<Arrival> {
        loop {
            if let Some(gap) = self.take_gap() {
                return Some(gap);
            }
            tokio::select! {
                batch = self.batches.recv() => return batch.map(Arrival::Batch),
                () = self.lost.some.notified() => {}
            }
        }
    }

    fn take_gap(&self) -> Option<Arrival> {
        let mut channels = self.lost.channels.lock();
        (!channels.is_empty()).then(|| Arrival::Gap(channels.drain().collect()))
    }
}
