//! What the driver says, as the ports say it. Its texts name statements and nodes, never bound values.

use ports::PortError;
use scylla::errors::{DbError, ExecutionError, NewSessionError, PrepareError, RequestAttemptError, UseKeyspaceError};

/// What operators read in errors.
const BACKEND: &str = "cassandra";

pub(crate) fn refused(reason: impl ToString) -> PortError {
    PortError::Refused { backend: BACKEND, reason: reason.to_string() }
}

pub(crate) fn unavailable(reason: impl ToString) -> PortError {
    PortError::Unavailable { backend: BACKEND, reason: reason.to_string() }
}

/// A row that does not decode: it was damaged, or written by something else.
pub(crate) fn damaged(what: &str) -> PortError {
    refused(format!("a stored {what} is damaged"))
}

pub(crate) fn failed(error: ExecutionError) -> PortError {
    let is_ours = match &error {
        ExecutionError::BadQuery(_) => true,
        ExecutionError::LastAttemptError(error) => is_refusal(error),
        ExecutionError::PrepareError(error) => return cannot_prepare(error.clone()),
        _ => false,
    };
    if is_ours { refused(error) } else { unavailable(error) }
}

pub(crate) fn cannot_prepare(error: PrepareError) -> PortError {
    match &error {
        PrepareError::AllAttemptsFailed { first_attempt } if is_refusal(first_attempt) => refused(error),
        _ => unavailable(error),
    }
}

pub(crate) fn cannot_connect(error: NewSessionError) -> PortError {
    match &error {
        NewSessionError::EmptyKnownNodesList | NewSessionError::IllegalConfig(_) => refused(error),
        NewSessionError::UseKeyspaceError(error) => cannot_use(error),
        _ => unavailable(error),
    }
}

pub(crate) fn cannot_use(error: &UseKeyspaceError) -> PortError {
    match error {
        UseKeyspaceError::RequestError(attempt) if is_refusal(attempt) => refused(error),
        UseKeyspaceError::RequestError(_) | UseKeyspaceError::RequestTimeout(_) => unavailable(error),
        error => refused(error),
    }
}

/// Whether asking again would be answered alike.
fn is_refusal(error: &RequestAttemptError) -> bool {
    matches!(
        error,
        RequestAttemptError::DbError(
            DbError::SyntaxError
                | DbError::Invalid
                | DbError::AlreadyExists { .. }
                | DbError::AuthenticationError
                | DbError::Unauthorized
                | DbError::ConfigError,
            _
        )
    )
}
