//! `PUT /v1/users/{id}/friends/{friend}`: makes two people friends.

use axum::extract::State;
use axum::http::StatusCode;
use model::UserId;
use ports::ControlEntry;
use ports::friendships::{Change, MAX_FRIENDS};
use web::openapi::{BadValue, Conflict, NoSuchUser, TokenProblems};
use web::{Caller, Path, Problem, Scope};

use super::announce::{announced, end};
use super::{check_differ, unfriend};
use crate::ApiState;

/// Make two people friends
///
/// Scope `backend`. Each sees the other from now on, in both directions, also on connections that are open.
#[utoipa::path(
    put, path = "/v1/users/{id}/friends/{friend}", tag = "friends", security(("token" = [])),
    params(("id" = String, Path, description = "One user"), ("friend" = String, Path, description = "The other")),
    responses(
        (status = 201, description = "They are friends now"),
        (status = 204, description = "They were friends before"),
        BadValue, TokenProblems, NoSuchUser, Conflict,
    ),
)]
pub(crate) async fn put(
    State(state): State<ApiState>,
    caller: Caller,
    Path((id, friend)): Path<(UserId, UserId)>,
) -> Result<StatusCode, Problem> {
    caller.require(Scope::Backend)?;
    check_differ(id, friend)?;
    let changes = state.changes.clone();
    changes.run(async move { befriend(&state, id, friend).await }).await
}

async fn befriend(state: &ApiState, user: UserId, friend: UserId) -> Result<StatusCode, Problem> {
    check_both_exist(state, user, friend).await?;
    let changed = state.friendships.add(user, friend).await?;
    if let Change::TooMany(who) = changed.change {
        // Who connected between the write and its taking back may hold the edge.
        if changed.note.is_some() {
            end(state, user, friend, changed.note).await?;
        }
        return Err(Problem::conflict(format!("user {who} has {MAX_FRIENDS} friends, and nobody can have more")));
    }
    // A deletion that began after the first look may have forgotten the friendships before this one came; one that
    // begins after the second look will find it.
    if let Err(gone) = check_both_exist(state, user, friend).await {
        unfriend(state, user, friend).await?;
        announced(state, changed.note.as_slice()).await;
        return Err(gone);
    }
    // Also when nothing changed: an earlier attempt may have ended between the record and the log.
    state.control.append(ControlEntry::Befriended(user, friend)).await?;
    announced(state, changed.note.as_slice()).await;
    Ok(if changed.change == Change::Done { StatusCode::CREATED } else { StatusCode::NO_CONTENT })
}

async fn check_both_exist(state: &ApiState, user: UserId, friend: UserId) -> Result<(), Problem> {
    let found = state.users.get_many(&[user, friend]).await?;
    for ((id, field), found) in [(user, "id"), (friend, "friend")].into_iter().zip(found) {
        if found.is_none_or(|user| user.deleting) {
            return Err(Problem::not_found(format!("there is no user {id}")).about(field));
        }
    }
    Ok(())
}
