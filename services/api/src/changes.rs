//! Changes of several steps, which a client that hangs up must not leave half done: each runs as a task of its own, and
//! the process waits for them when it stops.

use std::future::Future;
use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;
use web::Problem;
use web::problem::RETRY_AFTER_FAILURE;

/// Changes under way at once. A revoke waits up to 10 s for a node that is cut off, so at 1,000 a second most of them
/// are refused while one is; a task waiting costs about 1 KB.
const AT_ONCE: usize = 4_096;

/// The changes under way. A copy is the same.
#[derive(Clone, Debug)]
pub struct Changes {
    tasks: TaskTracker,
    room: Arc<Semaphore>,
}

impl Default for Changes {
    fn default() -> Changes {
        Changes { tasks: TaskTracker::new(), room: Arc::new(Semaphore::new(AT_ONCE)) }
    }
}

impl Changes {
    /// None yet.
    pub fn new() -> Changes {
        Changes::default()
    }

    /// Runs a change to its end, whoever still waits for it.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        change: impl Future<Output = Result<T, Problem>> + Send + 'static,
    ) -> Result<T, Problem> {
        let Ok(place) = self.room.clone().try_acquire_owned() else {
            return Err(Problem::unavailable(RETRY_AFTER_FAILURE));
        };
        let task = self.tasks.spawn(async move {
            let outcome = change.await;
            drop(place);
            outcome
        });
        // Fails only when the change panicked, which the panic has told the log.
        task.await.unwrap_or_else(|_| Err(Problem::internal()))
    }

    /// Waits until none is under way; to be called after the server stopped accepting requests.
    pub async fn finished(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }
}
