//! `POST /v1/locations`: positions of a device without a connection.

use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use model::UserId;
use protocol::client::decode_reports;
use serde::Serialize;
use tokio::time::timeout;
use utoipa::ToSchema;
use web::{Caller, Json, Problem};

use crate::nearby::problem;
use crate::state::GatewayState;

/// What was taken in.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Accepted {
    /// Positions that are durable now.
    accepted: usize,
}

/// Takes in one position, or a list of up to 100, with the fields of the `location` frame.
///
/// All go to the history; the newest also moves the user. Answered when they are durable; sending a position again
/// changes nothing.
#[utoipa::path(
    post, path = "/v1/locations", tag = "live", security(("token" = [])),
    request_body(content = Object, description = "`{lat, lon, ts, ..}`, or a list of such"),
    responses(
        (status = 200, description = "Durable", body = Accepted),
        (status = 413, description = "The body is too large"),
        web::openapi::TokenProblems, web::openapi::BadValue, web::openapi::NoSuchUser, web::openapi::TooMany,
    ),
)]
pub(crate) async fn post_locations(
    State(state): State<GatewayState>,
    caller: Caller,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Accepted>, Problem> {
    let user: UserId = caller.user()?;
    let body = body.map_err(web::extract::body_problem)?;
    // Before the look-up: a deletion that is applied after this refuses the call.
    let began = state.node.clock().monotonic();
    let _place = state.admit_call(user).await?;
    let json = str::from_utf8(&body).map_err(|_| Problem::bad_request("the body must be JSON in UTF-8"))?;
    let reports = decode_reports(json, state.limits.batch).map_err(|bad| problem(bad.into()))?;
    // Longer than this the engine does not remember that the user may have been deleted meanwhile.
    let recorded = timeout(node::limits::CALL, state.node.record(user, &reports, began)).await;
    recorded.map_err(|_| Problem::unavailable(web::problem::RETRY_AFTER_FAILURE))?.map_err(problem)?;
    Ok(Json(Accepted { accepted: reports.len() }))
}
