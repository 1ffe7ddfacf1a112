//! `GET /v1/users/{id}`.

use axum::extract::State;
use model::UserId;
use web::openapi::{BadValue, NoSuchUser, TokenProblems};
use web::{Caller, Json, Path, Problem, Scope};

use super::UserBody;
use crate::ApiState;

/// A user
///
/// Scope `backend`, or the user itself.
#[utoipa::path(
    get, path = "/v1/users/{id}", tag = "users", security(("token" = [])),
    params(("id" = String, Path, description = "The user")),
    responses((status = 200, description = "The user", body = UserBody), BadValue, TokenProblems, NoSuchUser),
)]
pub(crate) async fn get(
    State(state): State<ApiState>,
    caller: Caller,
    Path(id): Path<UserId>,
) -> Result<Json<UserBody>, Problem> {
    caller.require_self_or(Scope::Backend, id)?;
    let user = state.user(id).await?.ok_or_else(Problem::no_such_user)?;
    Ok(Json(user.into()))
}
