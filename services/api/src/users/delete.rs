//! `DELETE /v1/users/{id}`: live, complete, and taken up again after a crash.
//!
//! The order is what makes it safe. The mark is durable first, so that a crash at any later step is found and the rest
//! done again; then every node is told, stops showing the user and taking the user's positions in, and says when it
//! holds none any more; only then are the records forgotten, because a position that arrives after would bring some of
//! them back; every node is told once more, as after each write of friendships; the user itself goes last.

use axum::extract::State;
use axum::http::StatusCode;
use model::{PolicyVersion, UserId};
use ports::{ControlEntry, PortError};
use web::openapi::{BadValue, TokenProblems};
use web::{Caller, Path, Problem, Scope};

use crate::ApiState;
use crate::friends::announced;

/// Deletions that are taken up together and wait for the nodes once.
const TOGETHER: usize = 100;

/// Delete a user and everything of theirs
///
/// Scope `backend`. When it is answered, nobody sees the user any more, and position, history and friendships are gone.
/// Repeating it is allowed, also for a user who never was.
#[utoipa::path(
    delete, path = "/v1/users/{id}", tag = "users", security(("token" = [])),
    params(("id" = String, Path, description = "The user")),
    responses((status = 204, description = "There is no such user any more"), BadValue, TokenProblems),
)]
pub(crate) async fn delete(
    State(state): State<ApiState>,
    caller: Caller,
    Path(id): Path<UserId>,
) -> Result<StatusCode, Problem> {
    caller.require(Scope::Backend)?;
    let changes = state.changes.clone();
    changes
        .run(async move {
            if state.users.begin_delete(id).await? {
                finish(&state, &[id]).await?;
            }
            Ok(StatusCode::NO_CONTENT)
        })
        .await
}

/// Takes up the deletions that a crash interrupted, and returns how many there were; to be called at start, and again
/// after an error.
pub async fn resume_deletions(state: &ApiState) -> Result<usize, PortError> {
    let interrupted = state.users.deleting().await?;
    for users in interrupted.chunks(TOGETHER) {
        finish(state, users).await?;
    }
    Ok(interrupted.len())
}

/// Everything after the mark; each step may be repeated.
async fn finish(state: &ApiState, users: &[UserId]) -> Result<(), PortError> {
    let Some(last) = tell(state, users, ControlEntry::UserDeleted).await? else { return Ok(()) };
    state.control.settled(last).await?;
    state.control.erased(last).await?;

    // While this waited, another run may have finished, and the application may have made the user known anew: then
    // what is there now is not to be forgotten.
    let now = state.users.get_many(users).await?;
    let marked: Vec<UserId> = now.into_iter().flatten().filter(|user| user.deleting).map(|user| user.id).collect();
    state.cache.remove(&marked).await?;
    let mut notes = Vec::new();
    for &user in &marked {
        notes.extend(state.friendships.forget(user).await?);
        state.history.forget(user).await?;
    }
    // Who connected since the nodes were told has read the friendships from before. Also of those who are not marked any
    // more: if they are known anew, the entry above came too late and took friends away from them.
    if let Some(last) = tell(state, users, ControlEntry::UserForgotten).await? {
        announced(state, &notes).await;
        state.control.settled(last).await?;
    }
    for user in marked {
        state.users.finish_delete(user).await?;
    }
    Ok(())
}

/// Tells every node something of each of these users; returns the index of the last entry.
async fn tell(
    state: &ApiState,
    users: &[UserId],
    what: fn(UserId) -> ControlEntry,
) -> Result<Option<PolicyVersion>, PortError> {
    let mut last = None;
    for user in users {
        last = Some(state.control.append(what(*user)).await?);
    }
    Ok(last)
}
