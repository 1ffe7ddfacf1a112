//! `GET /v1/ws`: whether to speak with who asks.

use std::sync::Arc;

use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::{Extension, State};
use axum::http::header::{AUTHORIZATION, ORIGIN, SEC_WEBSOCKET_PROTOCOL};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use protocol::{BEARER_SUBPROTOCOL_PREFIX, SUBPROTOCOL};
use web::tokens::{AuthError, bearer};
use web::{Problem, Wire};

use crate::socket;
use crate::state::GatewayState;

/// Bytes read from a connection at a time, and kept for it: a `location` frame is about 120.
const READ_BUFFER_BYTES: usize = 1_024;
/// Frames that are ready together go out in one write of up to this many bytes.
const WRITE_BUFFER_BYTES: usize = 4 * 1_024;

/// Speaks `nearby.v1.json`: the frames are in `schema/`.
///
/// The token is given in `Authorization: Bearer`, or, by browsers, as second entry of `Sec-WebSocket-Protocol`,
/// `bearer.<token>`. It is never taken from the URL.
#[utoipa::path(
    get, path = "/v1/ws", tag = "live", security(("token" = [])),
    responses((status = 101, description = "Switching to WebSocket"), web::openapi::TokenProblems, web::openapi::BadValue, web::openapi::NoSuchUser),
)]
pub(crate) async fn socket(
    State(state): State<GatewayState>,
    Extension(wire): Extension<Arc<Wire>>,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Problem> {
    let upgrade = upgrade.map_err(|_| {
        Problem::bad_request(
            "this is a WebSocket endpoint: send `Connection: Upgrade`, `Upgrade: websocket`, version 13",
        )
    })?;
    check_draining(&state)?;
    let place = state.admission.enter()?;
    check_origin(&headers, &state.origins)?;
    check_subprotocol(&headers)?;
    let caller = state.authenticator.authenticate(token(&headers)?).await?;
    let user = caller.user()?;
    // Registered before it is looked up: a deletion in between closes it.
    let session = state.node.open(user);
    // Who registered too late to be told that the node stops, finds out here.
    check_draining(&state)?;
    state.must_exist(user).await?;
    drop(place);
    let upgrade = upgrade
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(WRITE_BUFFER_BYTES)
        .max_write_buffer_size(node::limits::SLOW_READER_BYTES)
        .max_message_size(state.limits.message_bytes)
        .max_frame_size(state.limits.message_bytes)
        .protocols([SUBPROTOCOL]);
    let connections = state.connections.clone();
    let mut response = upgrade.on_upgrade(move |ws| {
        connections.track_future(socket::Connection::new(state, ws, wire, session, caller.expires).run())
    });
    debug_assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    response.headers_mut().remove("content-length");
    Ok(response)
}

fn check_draining(state: &GatewayState) -> Result<(), Problem> {
    if state.node.is_closing() { Err(Problem::unavailable(state.limits.drain)) } else { Ok(()) }
}

/// A browser says where its page came from, and cannot be kept from saying so. Who is no browser says nothing.
fn check_origin(headers: &HeaderMap, allowed: &[String]) -> Result<(), Problem> {
    let Some(origin) = headers.get(ORIGIN) else { return Ok(()) };
    if allowed.iter().any(|allowed| origin.as_bytes().eq_ignore_ascii_case(allowed.as_bytes())) {
        return Ok(());
    }
    Err(Problem::forbidden("pages of this origin may not connect: an operator can add it to `server.origins`")
        .about("Origin"))
}

fn subprotocols(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let lines = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(str::trim).filter(|entry| !entry.is_empty())
}

/// Who offers subprotocols must offer ours; who offers none gets it unasked, as simple tools do.
fn check_subprotocol(headers: &HeaderMap) -> Result<(), Problem> {
    let mut offered = subprotocols(headers).peekable();
    if offered.peek().is_none() || offered.any(|entry| entry == SUBPROTOCOL) {
        return Ok(());
    }
    Err(Problem::bad_value("Sec-WebSocket-Protocol", format!("offer `{SUBPROTOCOL}`")))
}

fn token(headers: &HeaderMap) -> Result<&str, AuthError> {
    if headers.contains_key(AUTHORIZATION) {
        return bearer(headers);
    }
    subprotocols(headers).find_map(|entry| entry.strip_prefix(BEARER_SUBPROTOCOL_PREFIX)).ok_or(AuthError::Missing)
}
