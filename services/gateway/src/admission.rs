//! Who may begin: a storm of reconnects is turned away before any token is checked, so that those who are connected do
//! not notice it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use web::Problem;

/// When who was turned away may try again.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// The places for those who are being authenticated or read. A copy is the same places.
#[derive(Clone, Debug)]
pub struct Admission(Arc<Semaphore>);

impl Admission {
    /// So many at once.
    pub fn new(places: usize) -> Admission {
        Admission(Arc::new(Semaphore::new(places)))
    }

    /// A place now, or 503 with `Retry-After`.
    pub(crate) fn enter(&self) -> Result<OwnedSemaphorePermit, Problem> {
        self.0.clone().try_acquire_owned().map_err(|_| Problem::unavailable(RETRY_AFTER))
    }

    /// A place within `patience`, for who has been let in before.
    pub(crate) async fn wait(&self, patience: Duration) -> Option<OwnedSemaphorePermit> {
        timeout(patience, self.0.clone().acquire_owned()).await.ok()?.ok()
    }
}
