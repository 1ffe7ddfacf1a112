//! `GET /v1/me/friends` and `DELETE /v1/me/friends/{friend}`.

use axum::extract::State;
use axum::http::StatusCode;
use model::UserId;
use web::openapi::{BadValue, NoSuchUser, TokenProblems};
use web::{Caller, Json, Page, Path, Problem, Query};

use crate::ApiState;
use crate::friends::{FriendsPage, check_differ, page, unfriend};
use crate::users::UserBody;

/// Your friends
///
/// Ascending by id.
#[utoipa::path(
    get, path = "/v1/me/friends", tag = "me", security(("token" = [])),
    params(FriendsPage),
    responses((status = 200, description = "A page of friends", body = Page<UserBody>), BadValue, TokenProblems, NoSuchUser),
)]
pub(crate) async fn list(
    State(state): State<ApiState>,
    caller: Caller,
    query: Result<Query<FriendsPage>, Problem>,
) -> Result<Json<Page<UserBody>>, Problem> {
    let user = caller.user()?;
    let Query(wanted) = query?;
    state.own(user).await?;
    Ok(Json(page(&state, user, &wanted).await?))
}

/// End a friendship of yours
///
/// When it is answered, neither is shown the other any more. The answer is the same for who was a friend, a stranger or
/// nobody.
#[utoipa::path(
    delete, path = "/v1/me/friends/{friend}", tag = "me", security(("token" = [])),
    params(("friend" = String, Path, description = "The friend")),
    responses((status = 204, description = "They are no friends"), BadValue, TokenProblems, NoSuchUser),
)]
pub(crate) async fn delete(
    State(state): State<ApiState>,
    caller: Caller,
    Path(friend): Path<UserId>,
) -> Result<StatusCode, Problem> {
    let user = caller.user()?;
    check_differ(user, friend)?;
    state.own(user).await?;
    let changes = state.changes.clone();
    changes
        .run(async move {
            unfriend(&state, user, friend).await?;
            Ok(StatusCode::NO_CONTENT)
        })
        .await
}
