//! `GET /v1/ws`: whether to speak with who asks.

use axum::body::Body;
use axum::extract::State;
use axum::http::header::{
    AUTHORIZATION, CONNECTION, ORIGIN, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use protocol::{BEARER_SUBPROTOCOL_PREFIX, SUBPROTOCOL};
use sha1::{Digest, Sha1};
use web::tokens::{AuthError, bearer};
use web::{Problem, Takeover};

use crate::socket;
use crate::state::GatewayState;

/// What RFC 6455 puts behind the client's key.
const KEY_SUFFIX: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

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
    headers: HeaderMap,
    takeover: Result<Takeover, ()>,
) -> Result<Response, Problem> {
    let (Ok(takeover), Some(accepted)) = (takeover, accept(&headers)) else {
        return Err(Problem::bad_request(
            "this is a WebSocket endpoint: send `Connection: Upgrade`, `Upgrade: websocket`, version 13",
        ));
    };
    check_draining(&state)?;
    let place = state.admission.enter()?;
    check_origin(&headers, &state.origins)?;
    check_subprotocol(&headers)?;
    let caller = state.authenticator.authenticate(token(&headers)?).await?;
    let user = caller.user()?;
    // Registered before it is looked up: a deletion in between closes it.
    let opened = state.node.open(user);
    // Who registered too late to be told that the node stops, finds out here.
    check_draining(&state)?;
    state.must_exist(user).await?;
    drop(place);
    state.clone().connections.spawn(async move {
        if let Some(taken) = takeover.connection().await {
            let connection = socket::Connection::new(state.clone(), taken, opened, caller.expires);
            // A task of its own: this one's memory has room for the upgrade, too.
            state.connections.spawn(connection.run());
        }
    });
    Ok(switching(accepted, subprotocols(&headers).any(|entry| entry == SUBPROTOCOL)))
}

/// The value of `Sec-WebSocket-Accept`, if a WebSocket of the version that there is is asked for.
fn accept(headers: &HeaderMap) -> Option<HeaderValue> {
    let says = |name: HeaderName, wanted: &str| {
        let lines = headers.get_all(name).iter().filter_map(|line| line.to_str().ok());
        lines.flat_map(|line| line.split(',')).any(|entry| entry.trim().eq_ignore_ascii_case(wanted))
    };
    let asked = says(CONNECTION, "upgrade") && says(UPGRADE, "websocket") && says(SEC_WEBSOCKET_VERSION, "13");
    let key = headers.get(SEC_WEBSOCKET_KEY).filter(|_| asked)?;
    let digest = Sha1::new().chain_update(key.as_bytes()).chain_update(KEY_SUFFIX).finalize();
    HeaderValue::from_str(&STANDARD.encode(digest)).ok()
}

fn switching(accepted: HeaderValue, names_protocol: bool) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, accepted);
    if names_protocol {
        headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
    }
    response
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
