//! `GET /livez` and `GET /readyz`.

use std::time::Duration;

use axum::extract::State;
use web::{Kind, Problem};

use super::Operations;

/// When to look again: readiness changes within a second or not for long.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Whether the process is alive
///
/// Whoever gets no answer should start it anew.
#[utoipa::path(
    get, path = "/livez", tag = "operations",
    responses((status = 200, description = "It is", body = String, content_type = "text/plain")),
)]
pub(super) async fn live() -> &'static str {
    "live\n"
}

/// Whether the process should be sent work
#[utoipa::path(
    get, path = "/readyz", tag = "operations",
    responses(
        (status = 200, description = "It should", body = String, content_type = "text/plain"),
        (status = 503, description = "It should not; `detail` says what is missing",
            body = inline(web::ProblemBody<'static>), content_type = "application/problem+json"),
    ),
)]
pub(super) async fn ready(State(state): State<Operations>) -> Result<&'static str, Problem> {
    let missing = state.readiness.missing();
    if missing.is_empty() {
        return Ok("ready\n");
    }
    let list: Vec<String> = missing.into_iter().map(|(name, why)| format!("{name} ({why})")).collect();
    Err(Problem::new(Kind::Unavailable, format!("not ready: {}", list.join(", "))).retry_after(LOOK_AGAIN))
}
