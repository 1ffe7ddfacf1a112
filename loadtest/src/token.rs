//! Development tokens, made from the server's own signing secret.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use jsonwebtoken::{EncodingKey, Header};
use model::UserId;
use serde::Serialize;

/// Long enough for any run: people do not sign in again while it lasts.
const VALID_S: u64 = 24 * 3_600;

/// Makes HS256 tokens. Neither the secret nor a token is ever printed.
pub struct Tokens(EncodingKey);

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tokens(..)")
    }
}

#[derive(Serialize)]
struct Claims<'a> {
    sub: String,
    exp: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<&'a str>,
}

impl Tokens {
    /// From the file given, or from `signing-secret` in the server's data directory.
    pub fn open(secret_file: Option<&Path>, data_dir: Option<&Path>) -> Result<Tokens> {
        let path: PathBuf = match (secret_file, data_dir) {
            (Some(file), _) => file.to_owned(),
            (None, Some(dir)) => dir.join("signing-secret"),
            (None, None) => {
                bail!("tokens need the server's secret: --data-dir DIR (as the server has it) or --secret-file FILE")
            }
        };
        let secret = fs::read_to_string(&path).with_context(|| {
            format!(
                "cannot read the signing secret {}: has the server been started with this data directory?",
                path.display()
            )
        })?;
        ensure!(!secret.trim_end().is_empty(), "the signing secret {} is empty", path.display());
        Ok(Tokens::from_secret(secret.trim_end()))
    }

    /// From the secret's text.
    pub fn from_secret(secret: &str) -> Tokens {
        Tokens(EncodingKey::from_secret(secret.as_bytes()))
    }

    /// What this user's phone shows.
    pub fn user(&self, user: UserId) -> Result<String> {
        self.sign(user, None)
    }

    /// What an application's own server shows.
    pub fn backend(&self) -> Result<String> {
        self.sign(UserId(0), Some("backend"))
    }

    fn sign(&self, user: UserId, scope: Option<&str>) -> Result<String> {
        let exp = crate::clock::wall_ms() / 1_000 + VALID_S;
        let claims = Claims { sub: user.to_string(), exp, scope };
        jsonwebtoken::encode(&Header::default(), &claims, &self.0).context("cannot sign a token")
    }
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::{DecodingKey, Validation, decode};
    use serde_json::Value;

    use super::*;

    #[test]
    fn tokens_are_what_the_server_checks() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("signing-secret"), "secret\n").unwrap();
        let tokens = Tokens::open(None, Some(dir.path())).unwrap();
        let key = DecodingKey::from_secret(b"secret");
        let claims = |token: String| decode::<Value>(&token, &key, &Validation::default()).unwrap().claims;
        let user = claims(tokens.user(UserId(7)).unwrap());
        assert_eq!((&user["sub"], user.get("scope")), (&Value::from("7"), None));
        assert_eq!(claims(tokens.backend().unwrap())["scope"], "backend");
    }

    #[test]
    fn without_a_secret_the_way_to_give_one_is_told() {
        let error = Tokens::open(None, None).unwrap_err().to_string();
        assert!(error.contains("--data-dir") && error.contains("--secret-file"), "{error}");
        let error = Tokens::open(Some(Path::new("/nonexistent")), None).unwrap_err().to_string();
        assert!(error.contains("has the server been started"), "{error}");
    }
}
