//! What the OpenAPI documents of all surfaces share: the token, the shape of a problem, and which problems an endpoint
//! may answer, by name: `responses(.., TokenProblems, NoSuchUser)`.

use std::collections::BTreeMap;

use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{
    ComponentsBuilder, ContentBuilder, InfoBuilder, OpenApi, OpenApiBuilder, Ref, RefOr, Response, ResponseBuilder,
};
use utoipa::{IntoResponses, PartialSchema};

use crate::ProblemBody;
use crate::problem::CONTENT_TYPE_PROBLEM;

/// The name of the token's security scheme: `security(("token" = []))`.
pub const TOKEN_SCHEME: &str = "token";

/// A document without paths, to collect paths into.
pub fn empty_document() -> OpenApi {
    let token = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("JWT").build();
    let components = ComponentsBuilder::new()
        .schema("Problem", ProblemBody::schema())
        .security_scheme(TOKEN_SCHEME, SecurityScheme::Http(token))
        .build();
    let info = InfoBuilder::new().title("Nearby").version("1").build();
    OpenApiBuilder::new().info(info).components(Some(components)).build()
}

/// A response with a problem.
pub fn problem_response(description: &str) -> Response {
    let body = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
    ResponseBuilder::new().description(description).content(CONTENT_TYPE_PROBLEM, body).build()
}

macro_rules! problems {
    ($($(#[$doc:meta])* $name:ident { $($status:literal: $description:literal),+ $(,)? })+) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug)]
        pub struct $name;

        impl IntoResponses for $name {
            fn responses() -> BTreeMap<String, RefOr<Response>> {
                [$(($status.to_owned(), RefOr::T(problem_response($description)))),+].into()
            }
        }
    )+};
}

problems! {
    /// Of every endpoint that wants a token and asks a backend.
    TokenProblems {
        "401": "No token, or one that does not count",
        "403": "The token does not allow this",
        "500": "A failure that trying again will not change",
        "503": "A failure that may be gone after `Retry-After`",
    }
    /// A part of the path or of the query is wrong.
    BadValue { "400": "A value that cannot be taken; `field` says which" }
    /// There is no such user, or the caller is a stranger to them: one answer for both.
    NoSuchUser { "404": "There is no such user, or the caller is a stranger to them" }
    /// A body is expected.
    BodyProblems {
        "400": "A value that cannot be taken; `field` says which",
        "413": "The body is too large",
        "415": "The body is not JSON by its content type",
    }
    /// More calls than the user's rate.
    TooMany { "429": "Too many calls of this user; again after `Retry-After`" }
    /// The request contradicts what is.
    Conflict { "409": "The request contradicts what is" }
}
