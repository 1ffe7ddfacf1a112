//! Friendships, as the application's backend makes and ends them.

mod announce;
mod delete;
mod list;
mod put;

pub(crate) use announce::announced;
pub use announce::{SETTLED, announce_left_behind};
pub(crate) use delete::unfriend;
pub(crate) use list::{FriendsPage, page};

use model::UserId;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use web::Problem;

use crate::ApiState;

pub(crate) fn router() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default().routes(routes!(put::put, delete::delete)).routes(routes!(list::list))
}

pub(crate) fn check_differ(user: UserId, friend: UserId) -> Result<(), Problem> {
    if user == friend { Err(Problem::bad_value("friend", "be another user than the first")) } else { Ok(()) }
}
