//! Everything that carries positions live: the WebSocket, the nearby call, posted positions.
//!
//! One connection, in reading order: `admission` before anything costs something, `upgrade` decides whether to speak,
//! `socket` speaks, in the frames of `websocket`. `nearby` and `locations` are the same engine's verbs for callers without a connection.

mod state;
mod admission;
mod upgrade;
mod socket;
mod outbound;
mod websocket;
mod nearby;
mod locations;

pub use admission::Admission;
pub use state::{Gateway, GatewayLimits, GatewayState};

use axum::Router;
use axum::extract::DefaultBodyLimit;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The document of the live endpoints, made from their handlers.
pub fn openapi() -> OpenApi {
    live().into_openapi()
}

/// Everything that this crate serves.
pub fn router(state: GatewayState) -> Router {
    let body_bytes = state.limits.body_bytes;
    let (router, _) = live().split_for_parts();
    router.with_state(state).layer(DefaultBodyLimit::max(body_bytes))
}

fn live() -> OpenApiRouter<GatewayState> {
    OpenApiRouter::with_openapi(web::openapi::empty_document())
        .routes(routes!(upgrade::socket))
        .routes(routes!(nearby::nearby))
        .routes(routes!(locations::post_locations))
}
