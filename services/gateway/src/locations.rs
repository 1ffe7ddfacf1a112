//! `POST /v1/locations`: positions of a device without a connection.

use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use model::UserId;
use protocol::client::{Notice, NoticeCode, decode_reports};
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
    /// What the device should know about single positions that were taken; absent if there is nothing.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    notices: Vec<ItemNotice>,
}

/// What became of one position that was taken, where that may not be what the device expects.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ItemNotice {
    /// Which position of the list, from 0.
    index: usize,
    /// `too_old`: it is older than positions are shown, and went to the history only.
    #[schema(value_type = String, example = "too_old")]
    code: NoticeCode,
    /// What became of it and what would be right, for people.
    message: String,
}

/// Takes in one position, or a list of up to 100, with the fields of the `location` frame.
///
/// All go to the history; the newest also moves the user, unless it is older than positions are shown (by `sent_at`
/// less `ts`, or by the server's clock if there is no `sent_at`). Answered when they are durable; sending a position
/// again keeps one.
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
    let notices = recorded.map_err(|_| Problem::unavailable(web::problem::RETRY_AFTER_FAILURE))?.map_err(problem)?;
    let of_item = |(index, notice): (usize, Notice)| ItemNotice { index, code: notice.code, message: notice.message };
    Ok(Json(Accepted { accepted: reports.len(), notices: notices.into_iter().map(of_item).collect() }))
}
