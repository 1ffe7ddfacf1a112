//! Waiting for an answer, but not for ever.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use tokio::time::error::Elapsed;
use tokio::time::timeout;

/// As [`timeout`], which is begun only when the answer is not there at once: backends in this process are asked for every
/// position and never keep anybody waiting, and to begin it reads a clock.
pub(crate) async fn within<T>(patience: Duration, call: impl Future<Output = T>) -> Result<T, Elapsed> {
    let mut call = pin!(call);
    match poll_fn(|cx| Poll::Ready(call.as_mut().poll(cx))).await {
        Poll::Ready(answer) => Ok(answer),
        Poll::Pending => timeout(patience, call).await,
    }
}
