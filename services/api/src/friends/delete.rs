//! `DELETE /v1/users/{id}/friends/{friend}`: ends a friendship, and the promise that goes with it: when this is
//! answered, no position of the one is sent to the other any more.

use axum::extract::State;
use axum::http::StatusCode;
use model::UserId;
use ports::PortError;
use web::openapi::{BadValue, TokenProblems};
use web::{Caller, Path, Problem, Scope};

use super::announce::end;
use super::check_differ;
use crate::ApiState;

/// End a friendship
///
/// Scope `backend`. When it is answered, neither is shown the other any more. Repeating it is allowed, also for two who
/// never were friends.
#[utoipa::path(
    delete, path = "/v1/users/{id}/friends/{friend}", tag = "friends", security(("token" = [])),
    params(("id" = String, Path, description = "One user"), ("friend" = String, Path, description = "The other")),
    responses((status = 204, description = "They are no friends"), BadValue, TokenProblems),
)]
pub(crate) async fn delete(
    State(state): State<ApiState>,
    caller: Caller,
    Path((id, friend)): Path<(UserId, UserId)>,
) -> Result<StatusCode, Problem> {
    caller.require(Scope::Backend)?;
    check_differ(id, friend)?;
    let changes = state.changes.clone();
    changes
        .run(async move {
            unfriend(&state, id, friend).await?;
            Ok(StatusCode::NO_CONTENT)
        })
        .await
}

/// The revoke: write, append, and wait until every node that may send has applied it or has lost the right to send.
///
/// It is done in full whether the record changed or not: an attempt that ended between the write and the append left
/// nodes that still send, and the repetition is what makes them stop.
pub(crate) async fn unfriend(state: &ApiState, user: UserId, friend: UserId) -> Result<(), PortError> {
    let changed = state.friendships.remove(user, friend).await?;
    end(state, user, friend, changed.note).await
}
