//! `GET /v1/users/{id}/history`, page by page.

use axum::extract::State;
use model::UserId;
use serde::Deserialize;
use utoipa::IntoParams;
use web::openapi::{BadValue, NoSuchUser, TokenProblems};
use web::{Caller, Json, Page, Path, Problem, Query, Scope};

use super::point::PointBody;
use super::span::Span;
use crate::ApiState;

/// Which positions, and which page of them.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct HistoryPage {
    /// From this time on (RFC 3339); a day before `to` unless given.
    #[param(format = "date-time")]
    from: Option<String>,
    /// Before this time (RFC 3339); now unless given.
    #[param(format = "date-time")]
    to: Option<String>,
    /// Positions to a page.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 1000)]
    limit: Option<String>,
    /// The `next_cursor` of the page before; it holds `from` and `to`, which may then be left out.
    cursor: Option<String>,
}

/// Where a user was
///
/// The user itself, or scope `history`. Ascending by time.
#[utoipa::path(
    get, path = "/v1/users/{id}/history", tag = "history", security(("token" = [])),
    params(("id" = String, Path, description = "The user"), HistoryPage),
    responses((status = 200, description = "A page of positions", body = Page<PointBody>), BadValue, TokenProblems, NoSuchUser),
)]
pub(crate) async fn list(
    State(state): State<ApiState>,
    caller: Caller,
    Path(id): Path<UserId>,
    query: Result<Query<HistoryPage>, Problem>,
) -> Result<Json<Page<PointBody>>, Problem> {
    caller.require_self_or(Scope::History, id)?;
    let Query(HistoryPage { from, to, limit, cursor }) = query?;
    let limit = state.limits.history.read(limit.as_deref())?;
    let span = Span::read(from.as_deref(), to.as_deref(), cursor.as_deref(), state.clock.wall())?;
    state.user(id).await?.ok_or_else(Problem::no_such_user)?;
    let points = state.history.range(id, span.from, span.to, limit + 1).await?;
    let page = Page::cut(points, limit, |last| span.cursor_after(last.ts));
    Ok(Json(page.filter_map(|point| Some(point.into()))))
}
