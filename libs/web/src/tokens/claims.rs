//! The claims that are read, and the development token that is written.

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use model::TimestampMs;
use serde::{Deserialize, Serialize};

use super::{KeyError, Scopes};

/// `iss` and `aud` are read by the library.
#[derive(Deserialize)]
pub(super) struct Claims {
    #[serde(default)]
    pub(super) sub: Option<String>,
    pub(super) exp: NumericDate,
    #[serde(default)]
    pub(super) nbf: Option<NumericDate>,
    #[serde(default)]
    pub(super) scope: Option<String>,
}

/// Seconds since the Unix epoch, whole or not (RFC 7519).
#[derive(Clone, Copy, Deserialize)]
#[serde(transparent)]
pub(super) struct NumericDate(f64);

impl From<NumericDate> for TimestampMs {
    /// Saturates either way: a time before the epoch is as past as the epoch, and one beyond `u64` as far away.
    fn from(date: NumericDate) -> TimestampMs {
        TimestampMs((date.0 * 1_000.0) as u64)
    }
}

#[derive(Serialize)]
struct Issued<'a> {
    sub: &'a str,
    exp: u64,
    scope: String,
}

/// Makes a token with an HS256 secret, for development and tests. `expires` counts in whole seconds.
pub fn issue(secret: &[u8], subject: &str, scopes: Scopes, expires: TimestampMs) -> Result<String, KeyError> {
    let claims = Issued { sub: subject, exp: expires.0 / 1_000, scope: scopes.to_string() };
    super::keys::check_secret(secret)?;
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &EncodingKey::from_secret(secret))
        .map_err(|_| KeyError::NotAKey("HS256 secret"))
}
