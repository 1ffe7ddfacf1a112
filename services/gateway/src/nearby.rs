//! `GET /v1/nearby`: what `init` would answer, without a connection.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{Extension, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::Response;
use http_body::{Frame, SizeHint};
use model::{Meters, Position};
use node::{Answer, NearbyCall, Refused};
use protocol::client::{Limit, Nearby, PageCursor};
use serde::Deserialize;
use tokio::sync::oneshot;
use utoipa::IntoParams;
use web::{Caller, InForce, Problem, Query, Wire};

use crate::state::GatewayState;

/// What may be asked.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Asked {
    /// Degrees, with `lon`; without both, the user's own newest position is used.
    lat: Option<f64>,
    /// Degrees, with `lat`.
    lon: Option<f64>,
    /// Above 0, at most the server's maximum (50 km by default).
    radius_m: Option<f64>,
    /// Friends to a page, 1 to 100; 20 if not given.
    limit: Option<u64>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

/// The friends of the caller who are near, nearest first.
///
/// The answer is the `nearby` frame of the WebSocket, without its `type`.
#[utoipa::path(
    get, path = "/v1/nearby", tag = "live", params(Asked), security(("token" = [])),
    responses(
        (status = 200, description = "A page of near friends: the `nearby` frame without its `type`", body = Object),
        web::openapi::TokenProblems, web::openapi::BadValue, web::openapi::NoSuchUser, web::openapi::TooMany,
    ),
)]
pub(crate) async fn nearby(
    State(state): State<GatewayState>,
    Extension(wire): Extension<Arc<Wire>>,
    caller: Caller,
    Query(asked): Query<Asked>,
) -> Result<Response, Problem> {
    let user = caller.user()?;
    let call = asked.call()?;
    let _place = state.admit_call(user).await?;
    let answer = state.node.nearby(user, &call).await.map_err(problem)?;
    let body = serde_json::to_vec::<Nearby>(&answer.nearby).map_err(|_| Problem::internal())?;
    let (taken, buffered) = oneshot::channel();
    let body = Guarded { bytes: Some(body.into()), wire: wire.clone(), taken: Some(taken) };
    let answer = Arc::new(answer);
    let asked = answer.clone();
    // Also when the right to send ends before the client has read: a revoke does not wait for this node then.
    let in_force = wire.write_only_while(move || asked.may_write());
    state.connections.spawn(guard(answer, in_force, wire, buffered));
    let mut response = Response::new(Body::new(body));
    response.headers_mut().insert(CONTENT_TYPE, axum::http::HeaderValue::from_static("application/json"));
    Ok(response)
}

impl Asked {
    fn call(&self) -> Result<NearbyCall, Problem> {
        let position = match (self.lat, self.lon) {
            (None, None) => None,
            (Some(lat), Some(lon)) => Some(
                Position::new(lat, lon)
                    .map_err(|bad| Problem::bad_request(format!("`{0}` {bad}", field(bad))).about(field(bad)))?,
            ),
            (Some(_), None) => return Err(Problem::bad_value("lon", "be given with `lat`")),
            (None, Some(_)) => return Err(Problem::bad_value("lat", "be given with `lon`")),
        };
        let limit =
            match self.limit {
                None => None,
                Some(limit) => Some(Limit::new(limit).ok_or_else(|| {
                    Problem::bad_value("limit", format!("be a whole number from 1 to {}", Limit::MAX))
                })?),
            };
        let cursor: Option<PageCursor> = match &self.cursor {
            None => None,
            Some(cursor) => Some(
                cursor
                    .parse()
                    .map_err(|_| Problem::bad_value("cursor", "be the `next_cursor` of an earlier answer"))?,
            ),
        };
        Ok(NearbyCall { position, radius: self.radius_m.map(Meters), limit, cursor })
    }
}

fn field(bad: model::BadPosition) -> &'static str {
    if bad == model::BadPosition::Lat { "lat" } else { "lon" }
}

/// What the engine refused, as a problem.
pub(crate) fn problem(refused: Refused) -> Problem {
    match refused {
        Refused::Bad(bad) => match bad.field {
            Some(field) => Problem::bad_request(bad.message).about(field),
            None => Problem::bad_request(bad.message),
        },
        Refused::Unavailable(error) => error.into(),
        Refused::Deleted => Problem::no_such_user(),
        Refused::Silent => Problem::unavailable(web::problem::RETRY_AFTER_FAILURE),
    }
}

/// Holds the engine's [`Answer`] until the kernel has the last byte: a revoke waits for it.
async fn guard(answer: Arc<Answer>, in_force: InForce, wire: Arc<Wire>, buffered: oneshot::Receiver<u64>) {
    let sent = async {
        // A body that was dropped before the server took it was not sent.
        if let Ok(flushes) = buffered.await {
            wire.flushed_after(flushes).await;
        }
    };
    tokio::select! {
        () = sent => {}
        // A revoke does not wait for a client that does not read.
        () = answer.signal().is_cut() => {
            wire.cut();
            wire.ended().await;
        }
    }
    drop(in_force);
}

/// A body that tells when the server has taken it into its buffers: how often these had been flushed before.
struct Guarded {
    bytes: Option<Bytes>,
    wire: Arc<Wire>,
    taken: Option<oneshot::Sender<u64>>,
}

impl HttpBody for Guarded {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::convert::Infallible>>> {
        if let Some(taken) = self.taken.take() {
            // Fails only when the process stops.
            let _ = taken.send(self.wire.flushes());
        }
        Poll::Ready(self.bytes.take().map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
    }
}
