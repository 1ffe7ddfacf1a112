//! Where people were, for themselves and for those who learn from it.

mod list;
mod point;
mod span;

use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::ApiState;

pub(crate) fn router() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default().routes(routes!(list::list))
}
