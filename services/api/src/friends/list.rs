//! `GET /v1/users/{id}/friends`, page by page.

use axum::extract::State;
use model::UserId;
use serde::Deserialize;
use utoipa::IntoParams;
use web::openapi::{BadValue, NoSuchUser, TokenProblems};
use web::{Caller, Json, Page, Path, Problem, Query, Scope, cursor};

use crate::ApiState;
use crate::users::UserBody;

/// This list, in its cursors.
const LIST: u8 = b'f';

/// Which page.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct FriendsPage {
    /// Friends to a page.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 1000)]
    limit: Option<String>,
    /// The `next_cursor` of the page before.
    cursor: Option<String>,
}

/// A user's friends
///
/// Scope `backend`. Ascending by id.
#[utoipa::path(
    get, path = "/v1/users/{id}/friends", tag = "friends", security(("token" = [])),
    params(("id" = String, Path, description = "The user"), FriendsPage),
    responses((status = 200, description = "A page of friends", body = Page<UserBody>), BadValue, TokenProblems, NoSuchUser),
)]
pub(crate) async fn list(
    State(state): State<ApiState>,
    caller: Caller,
    Path(id): Path<UserId>,
    query: Result<Query<FriendsPage>, Problem>,
) -> Result<Json<Page<UserBody>>, Problem> {
    caller.require(Scope::Backend)?;
    let Query(wanted) = query?;
    state.user(id).await?.ok_or_else(Problem::no_such_user)?;
    Ok(Json(page(&state, id, &wanted).await?))
}

/// One page of friends with their names; who is being deleted is left out.
pub(crate) async fn page(state: &ApiState, of: UserId, wanted: &FriendsPage) -> Result<Page<UserBody>, Problem> {
    let limit = state.limits.friends.read(wanted.limit.as_deref())?;
    let after = wanted.cursor.as_deref().map(|text| cursor::decode(LIST, text)).transpose()?.map(|[id]| UserId(id));
    let ids =
        Page::cut(state.friendships.list(of, after, limit + 1).await?, limit, |last| cursor::encode(LIST, [last.0]));
    let mut users = state.users.get_many(&ids.items).await?.into_iter();
    Ok(ids.filter_map(|_| users.next().flatten().filter(|user| !user.deleting).map(UserBody::from)))
}
