//! Records over REST: users, friendships, history; health and metrics. A folder per noun, a file per verb.
//!
//! This crate writes records and appends to the control log; the nodes read it there. It knows nothing of live
//! positions but that a deleted user's must go.

mod changes;
mod friends;
mod history;
mod me;
mod operations;
mod state;
mod users;

pub use changes::Changes;
pub use friends::{SETTLED, announce_left_behind};
pub use operations::router as operations_router;
pub use state::{ApiLimits, ApiState};
pub use users::resume_deletions;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;

/// The document of the endpoints for records, made from their handlers.
pub fn openapi() -> OpenApi {
    records().into_openapi()
}

/// Everything that this crate serves: records, health, metrics and the document, into which `extra` is merged, the
/// document of another surface of the same process.
///
/// It answers only its own paths. [`web::with_problem_fallbacks`] is to be called on the whole of a process's routers,
/// once they are merged.
pub fn router(state: ApiState, extra: Option<OpenApi>) -> Router {
    let (records, mut document) = records().split_for_parts();
    if let Some(extra) = extra {
        document.merge(extra);
    }
    let operations = operations_router(state.readiness.clone(), state.registry.clone(), document);
    let limit = DefaultBodyLimit::max(state.limits.body_bytes);
    records.with_state(state).layer(limit).merge(operations)
}

fn records() -> OpenApiRouter<ApiState> {
    OpenApiRouter::with_openapi(web::openapi::empty_document())
        .merge(users::router())
        .merge(friends::router())
        .merge(me::router())
        .merge(history::router())
}
