//! The directories of a spool.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::RwLock;
use ports::{LocationHistory, PortError};
use tokio::time::sleep;

use super::OpenSegment;
use crate::error::{refused, unavailable};

/// How often it is looked whether somebody still writes to a closed segment.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// One directory. Whoever writes to it holds it meanwhile.
pub(super) struct Segment {
    pub(super) history: Arc<dyn LocationHistory>,
    /// Points that were given to it by this process.
    pub(super) points: AtomicUsize,
    directory: PathBuf,
}

pub(super) struct Segments {
    directory: PathBuf,
    open: Arc<OpenSegment>,
    state: RwLock<State>,
}

struct State {
    active: Arc<Segment>,
    /// To be replayed, the oldest first.
    closed: Vec<Arc<Segment>>,
    /// The number of the next directory.
    next: u64,
}

impl Segments {
    /// What is there is closed; what comes goes to a new one.
    pub(super) async fn open(directory: PathBuf, open: Arc<OpenSegment>) -> Result<Segments, PortError> {
        let listed = directory.clone();
        let numbers = blocking(move || {
            fs::create_dir_all(&listed).map_err(|error| refused(format!("{}: {error}", listed.display())))?;
            let entries = fs::read_dir(&listed).map_err(|error| refused(format!("{}: {error}", listed.display())))?;
            let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
            let mut numbers: Vec<u64> = names.filter_map(|name| name.parse().ok()).collect();
            numbers.sort_unstable();
            Ok(numbers)
        })
        .await?;
        let next = numbers.last().map_or(0, |last| last + 1);
        let mut closed = Vec::new();
        for number in numbers {
            closed.push(open_one(&directory, number, &open).await?);
        }
        let active = open_one(&directory, next, &open).await?;
        Ok(Segments { directory, open, state: RwLock::new(State { active, closed, next: next + 1 }) })
    }

    /// The one that is written to.
    pub(super) fn active(&self) -> Arc<Segment> {
        self.state.read().active.clone()
    }

    /// Every one.
    pub(super) fn all(&self) -> Vec<Arc<Segment>> {
        let state = self.state.read();
        state.closed.iter().chain([&state.active]).cloned().collect()
    }

    /// The next to be replayed.
    pub(super) fn oldest_closed(&self) -> Option<Arc<Segment>> {
        self.state.read().closed.first().cloned()
    }

    /// Closes the active one, if anything was written to it. Only by the one who replays.
    pub(super) async fn roll(&self) -> Result<(), PortError> {
        if self.active().points.load(Ordering::Relaxed) == 0 {
            return Ok(());
        }
        let number = self.state.read().next;
        let fresh = open_one(&self.directory, number, &self.open).await?;
        let mut state = self.state.write();
        let full = std::mem::replace(&mut state.active, fresh);
        state.closed.push(full);
        state.next = number + 1;
        Ok(())
    }

    /// Waits until nobody but the caller holds a closed one: no append to it is under way any more.
    pub(super) async fn settle(&self, segment: &Arc<Segment>) {
        while Arc::strong_count(segment) > 2 {
            sleep(LOOK_AGAIN).await;
        }
    }

    /// Deletes one that was replayed. It is out of reading first.
    pub(super) async fn remove(&self, segment: Arc<Segment>) -> Result<(), PortError> {
        self.state.write().closed.retain(|closed| !Arc::ptr_eq(closed, &segment));
        while Arc::strong_count(&segment) > 1 {
            sleep(LOOK_AGAIN).await;
        }
        let directory = segment.directory.clone();
        blocking(move || {
            // Closes its files.
            drop(segment);
            fs::remove_dir_all(&directory).map_err(|error| unavailable(format!("{}: {error}", directory.display())))
        })
        .await
    }
}

async fn open_one(
    directory: &std::path::Path,
    number: u64,
    open: &Arc<OpenSegment>,
) -> Result<Arc<Segment>, PortError> {
    let (directory, open) = (directory.join(number.to_string()), open.clone());
    blocking(move || {
        fs::create_dir_all(&directory).map_err(|error| unavailable(format!("{}: {error}", directory.display())))?;
        let history = open(&directory)?;
        Ok(Arc::new(Segment { history, points: AtomicUsize::new(0), directory }))
    })
    .await
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, PortError> + Send + 'static,
) -> Result<T, PortError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| unavailable("the spool was abandoned"))?
}
