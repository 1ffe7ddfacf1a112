//! For operators and machines: is it alive, is it ready, what does it measure, what does it serve. Without a token: an
//! orchestrator has none, and nothing here is about anybody.

mod health;
mod metrics;

use std::sync::Arc;

use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use prometheus_client::registry::Registry;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use web::Readiness;

#[derive(Clone)]
struct Operations {
    readiness: Readiness,
    registry: Arc<Registry>,
}

/// `/livez`, `/readyz`, `/metrics`, and `/openapi.json` with the document given: all that a process serves which has
/// no part in records.
pub fn router(readiness: Readiness, registry: Arc<Registry>, mut document: OpenApi) -> Router {
    let (router, own) = OpenApiRouter::<Operations>::default()
        .routes(routes!(health::live))
        .routes(routes!(health::ready))
        .routes(routes!(metrics::metrics))
        .split_for_parts();
    document.merge(own);
    let document = Arc::new(document);
    router
        .with_state(Operations { readiness, registry })
        .route("/openapi.json", get(async move || Json(&*document).into_response()))
}
