//! What a client is told when a request fails: RFC 9457 problem details, the same shape from every endpoint.
//!
//! A problem says what is wrong and what would be right, and nothing about this process: what a backend said goes to
//! the log, once, where it is turned into a problem.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use axum::Json;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use model::UserId;
use ports::PortError;
use serde::Serialize;
use utoipa::ToSchema;

/// The content type of every problem.
pub const CONTENT_TYPE_PROBLEM: &str = "application/problem+json";

/// When a client may try again after a backend failed: long enough for a failover to have begun, short enough not to
/// be noticed as an outage of its own.
pub const RETRY_AFTER_FAILURE: Duration = Duration::from_secs(2);

/// What kind of problem: decides status, `type` and title.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Kind {
    /// A value that cannot be taken.
    BadValue,
    /// No token was given.
    NoToken,
    /// A token was given, and it does not count.
    BadToken,
    /// The token counts, and does not allow this.
    Forbidden,
    /// There is no such thing, or the caller may not know that there is.
    NotFound,
    /// No such path.
    NoSuchPath,
    /// The path does not know this method.
    MethodNotAllowed,
    /// The request contradicts what is.
    Conflict,
    /// The body is too large.
    PayloadTooLarge,
    /// The body is of another content type.
    UnsupportedMediaType,
    /// Too many requests.
    TooMany,
    /// A failure that trying again will not change.
    Internal,
    /// A failure that may be gone later.
    Unavailable,
}

impl Kind {
    /// The HTTP status.
    pub fn status(self) -> StatusCode {
        match self {
            Kind::BadValue => StatusCode::BAD_REQUEST,
            Kind::NoToken | Kind::BadToken => StatusCode::UNAUTHORIZED,
            Kind::Forbidden => StatusCode::FORBIDDEN,
            Kind::NotFound | Kind::NoSuchPath => StatusCode::NOT_FOUND,
            Kind::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Kind::Conflict => StatusCode::CONFLICT,
            Kind::PayloadTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Kind::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Kind::TooMany => StatusCode::TOO_MANY_REQUESTS,
            Kind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Kind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// The `type`: a name that stays, for programs to tell problems apart.
    pub fn uri(self) -> &'static str {
        match self {
            Kind::BadValue => "urn:nearby:problem:bad-value",
            Kind::NoToken => "urn:nearby:problem:no-token",
            Kind::BadToken => "urn:nearby:problem:bad-token",
            Kind::Forbidden => "urn:nearby:problem:forbidden",
            Kind::NotFound => "urn:nearby:problem:not-found",
            Kind::NoSuchPath => "urn:nearby:problem:no-such-path",
            Kind::MethodNotAllowed => "urn:nearby:problem:method-not-allowed",
            Kind::Conflict => "urn:nearby:problem:conflict",
            Kind::PayloadTooLarge => "urn:nearby:problem:payload-too-large",
            Kind::UnsupportedMediaType => "urn:nearby:problem:unsupported-media-type",
            Kind::TooMany => "urn:nearby:problem:too-many",
            Kind::Internal => "urn:nearby:problem:internal",
            Kind::Unavailable => "urn:nearby:problem:unavailable",
        }
    }

    /// The title, for people.
    pub fn title(self) -> &'static str {
        match self {
            Kind::BadValue => "A value cannot be taken",
            Kind::NoToken => "A token is needed",
            Kind::BadToken => "The token does not count",
            Kind::Forbidden => "The token does not allow this",
            Kind::NotFound => "Not found",
            Kind::NoSuchPath => "No such path",
            Kind::MethodNotAllowed => "No such method here",
            Kind::Conflict => "Contradicts what is",
            Kind::PayloadTooLarge => "The body is too large",
            Kind::UnsupportedMediaType => "Another content type is needed",
            Kind::TooMany => "Too many requests",
            Kind::Internal => "This failed",
            Kind::Unavailable => "Not available at the moment",
        }
    }

    /// What `WWW-Authenticate` says (RFC 6750): whether to get a token, a new one, or one that allows more.
    fn challenge(self) -> Option<&'static str> {
        match self {
            Kind::NoToken => Some("Bearer"),
            Kind::BadToken => Some(r#"Bearer error="invalid_token""#),
            Kind::Forbidden => Some(r#"Bearer error="insufficient_scope""#),
            _ => None,
        }
    }
}

/// One problem, ready to be answered.
#[derive(Clone, PartialEq, Eq, Debug)]
#[must_use]
pub struct Problem {
    kind: Kind,
    detail: Cow<'static, str>,
    field: Option<Cow<'static, str>>,
    retry_after_s: Option<u32>,
}

/// A problem as it is sent, `application/problem+json`.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
pub struct ProblemBody<'a> {
    /// A name that stays, for programs to tell problems apart.
    #[serde(rename = "type")]
    #[schema(example = "urn:nearby:problem:bad-value")]
    pub kind: &'a str,
    /// The same for people.
    #[schema(example = "A value cannot be taken")]
    pub title: &'a str,
    /// The HTTP status.
    #[schema(example = 400)]
    pub status: u16,
    /// What is wrong, and what would be right.
    #[schema(example = "`limit` must be a whole number from 1 to 1000")]
    pub detail: &'a str,
    /// Which part of the request is wrong, when one is.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "limit")]
    pub field: Option<&'a str>,
}

impl Problem {
    /// Of any kind.
    pub fn new(kind: Kind, detail: impl Into<Cow<'static, str>>) -> Problem {
        Problem { kind, detail: detail.into(), field: None, retry_after_s: None }
    }

    /// `field` must be something else: `must` goes on after "must", as in "be a number from 1 to 100".
    pub fn bad_value(field: impl Into<Cow<'static, str>>, must: impl fmt::Display) -> Problem {
        let field = field.into();
        let detail = format!("`{field}` must {must}");
        Problem { field: Some(field), ..Problem::new(Kind::BadValue, detail) }
    }

    /// The request as a whole cannot be taken.
    pub fn bad_request(detail: impl Into<Cow<'static, str>>) -> Problem {
        Problem::new(Kind::BadValue, detail)
    }

    /// No token was given.
    pub fn no_token() -> Problem {
        Problem::new(Kind::NoToken, "give a token in the header `Authorization: Bearer <token>`")
    }

    /// A token was given, and it does not count.
    pub fn unauthorized(detail: impl Into<Cow<'static, str>>) -> Problem {
        Problem::new(Kind::BadToken, detail)
    }

    /// The token does not allow this.
    pub fn forbidden(detail: impl Into<Cow<'static, str>>) -> Problem {
        Problem::new(Kind::Forbidden, detail)
    }

    /// There is no such thing.
    pub fn not_found(detail: impl Into<Cow<'static, str>>) -> Problem {
        Problem::new(Kind::NotFound, detail)
    }

    /// There is no such user, or the caller is a stranger to them: one answer, byte for byte, for both.
    pub fn no_such_user() -> Problem {
        Problem::not_found("there is no such user")
    }

    /// The token's own user has not been made known.
    pub fn unknown_self(user: UserId) -> Problem {
        Problem::not_found(format!(
            "this token's user {user} is not known: the application's backend must `PUT /v1/users/{user}` first"
        ))
    }

    /// The request contradicts what is.
    pub fn conflict(detail: impl Into<Cow<'static, str>>) -> Problem {
        Problem::new(Kind::Conflict, detail)
    }

    /// The body is larger than `limit_bytes`.
    pub fn payload_too_large(limit_bytes: Option<usize>) -> Problem {
        let detail: Cow<'static, str> = match limit_bytes {
            Some(limit) => format!("the body must be at most {limit} bytes").into(),
            None => "the body is larger than this endpoint takes".into(),
        };
        Problem::new(Kind::PayloadTooLarge, detail)
    }

    /// The body is not JSON by its content type.
    pub fn not_json() -> Problem {
        Problem::new(Kind::UnsupportedMediaType, "send the body with `Content-Type: application/json`")
    }

    /// Too many requests: again after `retry_after`.
    pub fn too_many(retry_after: Duration) -> Problem {
        Problem::new(Kind::TooMany, "too many requests: slow down").retry_after(retry_after)
    }

    /// Not now: again after `retry_after`.
    pub fn unavailable(retry_after: Duration) -> Problem {
        Problem::new(Kind::Unavailable, "this cannot be done at the moment: try again later").retry_after(retry_after)
    }

    /// A failure that trying again will not change.
    pub fn internal() -> Problem {
        Problem::new(Kind::Internal, "this failed, and trying again will not help")
    }

    /// The same, about this part of the request.
    pub fn about(self, field: impl Into<Cow<'static, str>>) -> Problem {
        Problem { field: Some(field.into()), ..self }
    }

    /// The same with `Retry-After`, in whole seconds, at least one.
    pub fn retry_after(self, after: Duration) -> Problem {
        let whole = u32::try_from(after.as_millis().div_ceil(1_000)).unwrap_or(u32::MAX);
        Problem { retry_after_s: Some(whole.max(1)), ..self }
    }

    /// Which kind.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The HTTP status.
    pub fn status(&self) -> StatusCode {
        self.kind.status()
    }

    /// What is wrong, and what would be right.
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// Which part of the request is wrong, when one is.
    pub fn field(&self) -> Option<&str> {
        self.field.as_deref()
    }

    /// As it is sent.
    pub fn body(&self) -> ProblemBody<'_> {
        ProblemBody {
            kind: self.kind.uri(),
            title: self.kind.title(),
            status: self.status().as_u16(),
            detail: &self.detail,
            field: self.field.as_deref(),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}

impl std::error::Error for Problem {}

impl From<PortError> for Problem {
    /// Logs what the backend said: this is where the error is handled, and the client is told nothing internal.
    fn from(error: PortError) -> Problem {
        if error.is_transient() {
            tracing::warn!(%error, "a request failed for now");
            Problem::unavailable(RETRY_AFTER_FAILURE)
        } else {
            tracing::error!(%error, "a request failed");
            Problem::internal()
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = (self.status(), Json(self.body())).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE_PROBLEM));
        if let Some(challenge) = self.kind.challenge() {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        if let Some(seconds) = self.retry_after_s {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers_of(problem: Problem) -> axum::http::HeaderMap {
        problem.into_response().headers().clone()
    }

    #[test]
    fn says_what_would_be_right_and_where() {
        let body = serde_json::to_value(Problem::bad_value("limit", "be a whole number").body()).unwrap();
        assert_eq!(
            body,
            serde_json::json!({
                "type": "urn:nearby:problem:bad-value", "title": "A value cannot be taken", "status": 400,
                "detail": "`limit` must be a whole number", "field": "limit",
            })
        );
    }

    #[test]
    fn is_problem_json_and_asks_for_a_token_or_for_patience() {
        assert_eq!(headers_of(Problem::no_token())[WWW_AUTHENTICATE], "Bearer");
        assert_eq!(headers_of(Problem::no_token())[CONTENT_TYPE], CONTENT_TYPE_PROBLEM);
        assert_eq!(headers_of(Problem::unauthorized("old"))[WWW_AUTHENTICATE], r#"Bearer error="invalid_token""#);
        assert_eq!(headers_of(Problem::too_many(Duration::from_millis(1_001)))[RETRY_AFTER], "2");
        assert_eq!(headers_of(Problem::too_many(Duration::ZERO))[RETRY_AFTER], "1");
    }

    #[test]
    fn a_backend_failure_tells_the_client_nothing_internal() {
        let down = PortError::Unavailable { backend: "etcd", reason: "10.0.0.7:2379 refused".into() };
        let refused = PortError::Refused { backend: "etcd", reason: "10.0.0.7:2379 refused".into() };
        for (error, status) in [(down, 503), (refused, 500)] {
            let problem = Problem::from(error);
            assert_eq!(problem.status().as_u16(), status);
            let text = serde_json::to_string(&problem.body()).unwrap();
            assert!(!text.contains("etcd") && !text.contains("10.0.0.7"), "{text}");
        }
    }
}
