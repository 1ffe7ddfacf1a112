//! `GET /metrics`.

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use prometheus_client::encoding::text::encode;
use web::Problem;

use super::Operations;

/// What Prometheus wants to be told of the text below.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What this process measures
#[utoipa::path(
    get, path = "/metrics", tag = "operations",
    responses((status = 200, description = "OpenMetrics", body = String, content_type = "application/openmetrics-text")),
)]
pub(super) async fn metrics(State(state): State<Operations>) -> Result<impl IntoResponse, Problem> {
    let mut text = String::new();
    encode(&mut text, &state.registry).map_err(|error| {
        tracing::error!(%error, "the metrics could not be written");
        Problem::internal()
    })?;
    Ok(([(CONTENT_TYPE, OPENMETRICS)], text))
}
