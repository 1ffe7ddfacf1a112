//! The same for the user whose token it is.

mod friends;
mod get;

use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::ApiState;

pub(crate) fn router() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default().routes(routes!(get::get)).routes(routes!(friends::list)).routes(routes!(friends::delete))
}
