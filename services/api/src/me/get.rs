//! `GET /v1/me`.

use axum::extract::State;
use web::openapi::{NoSuchUser, TokenProblems};
use web::{Caller, Json, Problem};

use crate::ApiState;
use crate::users::UserBody;

/// The token's own user
#[utoipa::path(
    get, path = "/v1/me", tag = "me", security(("token" = [])),
    responses((status = 200, description = "The user", body = UserBody), TokenProblems, NoSuchUser),
)]
pub(crate) async fn get(State(state): State<ApiState>, caller: Caller) -> Result<Json<UserBody>, Problem> {
    let user = state.own(caller.user()?).await?;
    Ok(Json(user.into()))
}
