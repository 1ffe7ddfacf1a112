//! Who is calling: bearer tokens (JWT), the keys they are verified with, and the user they speak for.

mod authenticator;
mod bearer;
mod claims;
mod keys;
mod scopes;

pub use authenticator::{Authenticator, Caller, Identity, Subject};
pub use bearer::bearer;
pub use claims::issue;
pub use keys::{KeyError, TokenKeys};
pub use scopes::{Scope, Scopes};

use std::time::Duration;

use ports::PortError;
use ports::users::MAX_SUBJECT_BYTES;
use thiserror::Error;

use crate::Problem;

/// How far the clock of who made a token may be off.
pub const LEEWAY: Duration = Duration::from_secs(5);

/// The longest token that is looked at, in bytes: a token of an identity provider has 1 to 2 KB.
pub const MAX_TOKEN_BYTES: usize = 8 * 1024;

/// Why a token does not count. Holds nothing of the token.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum AuthError {
    /// No token was given.
    #[error("give a token in the header `Authorization: Bearer <token>`")]
    Missing,
    /// The header is not one bearer token.
    #[error("the header `Authorization` must be given once, as `Bearer <token>`")]
    NotBearer,
    /// It is not a JWT, or its claims are not of the form they must be.
    #[error("the token is not a JWT with a numeric `exp`")]
    Malformed,
    /// No configured key is of the kind (`alg`, `kid`) that the token names; `none` is never of one.
    #[error("the token is signed with a key that is not known here")]
    UnknownKey,
    /// It was not made with the key.
    #[error("the token's signature is wrong")]
    BadSignature,
    /// Its `exp` is past.
    #[error("the token has expired: get a new one")]
    Expired,
    /// Its `nbf` is to come.
    #[error("the token does not count yet")]
    NotYet,
    /// Its `iss` is not the configured one.
    #[error("the token's issuer is not the one that is trusted here")]
    Issuer,
    /// Its `aud` does not hold the configured one.
    #[error("the token is meant for another service")]
    Audience,
    /// A token without scopes speaks for a user, and names none.
    #[error("the token must name its user in `sub`, in 1 to {MAX_SUBJECT_BYTES} bytes")]
    NoSubject,
    /// The token counts, and who its subject is could not be found out.
    #[error("the token's user cannot be looked up")]
    Users(#[from] PortError),
}

impl AuthError {
    /// Whether the same token may count later.
    pub fn is_transient(&self) -> bool {
        match self {
            AuthError::NotYet => true,
            AuthError::Users(error) => error.is_transient(),
            _ => false,
        }
    }
}

impl From<AuthError> for Problem {
    fn from(error: AuthError) -> Problem {
        match error {
            AuthError::Missing => Problem::no_token(),
            AuthError::Users(error) => error.into(),
            other => Problem::unauthorized(other.to_string()),
        }
    }
}
