//! Reading requests: axum's extractors with rejections that are [`Problem`]s and name what is wrong.

use axum::Router;
use axum::extract::path::ErrorKind;
use axum::extract::rejection::{BytesRejection, FailedToBufferBody, PathRejection};
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{Kind, Problem};

/// A JSON body, in and out. Its size is bounded by the router's `DefaultBodyLimit`.
#[derive(Clone, Copy, Debug)]
pub struct Json<T>(pub T);

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        axum::Json(self.0).into_response()
    }
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Json<T>, Problem> {
        if !is_json(request.headers()) {
            return Err(Problem::not_json());
        }
        let bytes = axum::body::Bytes::from_request(request, state).await.map_err(body_problem)?;
        from_json(&bytes).map(Json)
    }
}

/// Why a body could not be read.
pub fn body_problem(rejection: BytesRejection) -> Problem {
    match rejection {
        BytesRejection::FailedToBufferBody(FailedToBufferBody::LengthLimitError(_)) => Problem::payload_too_large(None),
        _ => Problem::bad_request("the body ended before it was complete"),
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    let essence = value.split(';').next().unwrap_or("").trim().to_ascii_lowercase();
    essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json"))
}

/// Reads JSON; the problem names the field that is wrong.
pub fn from_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let path = error.path().to_string();
        json_problem(&path, error.inner())
    })?;
    deserializer.end().map_err(|error| json_problem(".", &error))?;
    Ok(value)
}

fn json_problem(path: &str, error: &serde_json::Error) -> Problem {
    if !error.is_data() {
        return Problem::bad_request(format!("the body is not JSON: {error}"));
    }
    let text = error.to_string();
    // Serde says the place of the text after the reason; the field's name is the better place.
    let reason = text.rsplit_once(" at line ").map_or(text.as_str(), |(reason, _)| reason);
    let missing = reason.strip_prefix("missing field `").and_then(|rest| rest.strip_suffix('`'));
    match (missing, path) {
        (Some(field), ".") => Problem::bad_value(field.to_owned(), "be given"),
        (Some(field), path) => Problem::bad_value(format!("{path}.{field}"), "be given"),
        (None, ".") => Problem::bad_request(format!("the body cannot be taken: {reason}")),
        (None, path) => Problem::bad_value(path.to_owned(), format_args!("be of another form: {reason}")),
    }
}

/// The parts of the path.
#[derive(Clone, Copy, Debug)]
pub struct Path<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Path<T>, Problem> {
        let axum::extract::Path(value) =
            axum::extract::Path::<T>::from_request_parts(parts, state).await.map_err(path_problem)?;
        Ok(Path(value))
    }
}

fn path_problem(rejection: PathRejection) -> Problem {
    let PathRejection::FailedToDeserializePathParams(failed) = rejection else { return Problem::internal() };
    match failed.into_kind() {
        ErrorKind::DeserializeError { key, message, .. } => {
            Problem::bad_value(key, format_args!("be of another form: {message}"))
        }
        ErrorKind::ParseErrorAtKey { key, expected_type, .. } => {
            Problem::bad_value(key, format_args!("be a `{expected_type}`"))
        }
        ErrorKind::InvalidUtf8InPathParam { key } => Problem::bad_value(key, "be UTF-8"),
        other => Problem::bad_request(format!("the path cannot be taken: {other}")),
    }
}

/// The parameters of the query.
#[derive(Clone, Copy, Debug)]
pub struct Query<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Query<T>, Problem> {
        match axum::extract::Query::try_from_uri(&parts.uri) {
            Ok(axum::extract::Query(value)) => Ok(Query(value)),
            Err(rejection) => Err(Problem::bad_request(rejection.body_text())),
        }
    }
}

/// Makes what no handler answers a problem too: an unknown path and an unknown method. To be called once, on the whole
/// router, because axum refuses to merge two routers that both know a fallback.
pub fn with_problem_fallbacks<S: Clone + Send + Sync + 'static>(router: Router<S>) -> Router<S> {
    router
        .fallback(async || Problem::new(Kind::NoSuchPath, "see /openapi.json for the paths that there are"))
        .method_not_allowed_fallback(async |method: Method| {
            let detail = format!("this path does not know {method}; the header `Allow` says what it knows");
            Problem::new(Kind::MethodNotAllowed, detail)
        })
}
