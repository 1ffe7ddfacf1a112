//! Users, as the application's backend makes them known.

mod delete;
mod get;
mod put;

pub use delete::resume_deletions;

use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::ApiState;

/// A user.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = User)]
pub(crate) struct UserBody {
    /// A decimal number.
    #[schema(value_type = String, example = "7")]
    pub(crate) id: model::UserId,
    /// What friends are shown.
    #[schema(example = "Ada")]
    pub(crate) name: String,
}

impl From<ports::User> for UserBody {
    fn from(user: ports::User) -> UserBody {
        UserBody { id: user.id, name: user.name }
    }
}

pub(crate) fn router() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default().routes(routes!(put::put, get::get, delete::delete))
}
