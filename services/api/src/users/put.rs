//! `PUT /v1/users/{id}`: makes a user known, or renames one.

use axum::extract::State;
use axum::http::StatusCode;
use model::UserId;
use ports::users::{FIRST_RESOLVED_ID, PutUser};
use serde::Deserialize;
use utoipa::ToSchema;
use web::openapi::{BodyProblems, Conflict, TokenProblems};
use web::{Caller, Json, Path, Problem, Scope};

use super::UserBody;
use crate::ApiState;

/// What is known of a user.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct NewUser {
    /// What friends are shown: 1 to 100 characters.
    #[schema(example = "Ada", min_length = 1, max_length = 100)]
    name: String,
}

/// Make a user known, or rename one
///
/// Scope `backend`. The id is the application's own choice, below 2^63.
#[utoipa::path(
    put, path = "/v1/users/{id}", tag = "users", security(("token" = [])),
    params(("id" = String, Path, description = "The user")),
    request_body = NewUser,
    responses(
        (status = 201, description = "The user is new", body = UserBody),
        (status = 200, description = "The user was known; the name is the new one", body = UserBody),
        BodyProblems, TokenProblems, Conflict,
    ),
)]
pub(crate) async fn put(
    State(state): State<ApiState>,
    caller: Caller,
    Path(id): Path<UserId>,
    body: Result<Json<NewUser>, Problem>,
) -> Result<(StatusCode, Json<UserBody>), Problem> {
    caller.require(Scope::Backend)?;
    let Json(NewUser { name }) = body?;
    check_name(&name, state.limits.name_chars)?;
    // Up there an id may be given to somebody else at any time.
    if id.0 >= FIRST_RESOLVED_ID && state.users.get_many(&[id]).await?.iter().all(Option::is_none) {
        return Err(Problem::bad_value(
            "id",
            format_args!("be below {FIRST_RESOLVED_ID}: Nearby gives out the others"),
        ));
    }
    let status = match state.users.put(id, &name).await? {
        PutUser::Created => StatusCode::CREATED,
        PutUser::Updated => StatusCode::OK,
        PutUser::Deleting => return Err(Problem::conflict("this user is being deleted: try again when that is done")),
    };
    Ok((status, Json(UserBody { id, name })))
}

fn check_name(name: &str, most: usize) -> Result<(), Problem> {
    let length = name.chars().count();
    if (1..=most).contains(&length) && !name.trim().is_empty() && !name.chars().any(char::is_control) {
        Ok(())
    } else {
        Err(Problem::bad_value(
            "name",
            format_args!("have 1 to {most} characters, visible ones among them, no controls"),
        ))
    }
}
