//! Where the token stands in a request.

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;

use super::AuthError;

/// The token of the header `Authorization: Bearer <token>`.
pub fn bearer(headers: &HeaderMap) -> Result<&str, AuthError> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = match (values.next(), values.next()) {
        (None, _) => return Err(AuthError::Missing),
        (Some(value), None) => value.to_str().map_err(|_| AuthError::NotBearer)?,
        // Whichever were taken, something in front of this server may have checked the other.
        (Some(_), Some(_)) => return Err(AuthError::NotBearer),
    };
    let (scheme, token) = value.trim().split_once(' ').ok_or(AuthError::NotBearer)?;
    let token = token.trim_start();
    let one_word = !token.is_empty() && !token.contains([' ', ',']);
    if scheme.eq_ignore_ascii_case("bearer") && one_word { Ok(token) } else { Err(AuthError::NotBearer) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &[&'static str]) -> Result<String, AuthError> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(AUTHORIZATION, value.parse().unwrap());
        }
        bearer(&headers).map(str::to_owned)
    }

    #[test]
    fn one_bearer_token_in_any_case_of_the_scheme() {
        for good in ["Bearer a.b.c", "bearer a.b.c", "BEARER  a.b.c "] {
            assert_eq!(of(&[good]), Ok("a.b.c".into()), "{good}");
        }
        assert_eq!(of(&[]), Err(AuthError::Missing));
        for bad in
            [&["Basic YTpi"][..], &["Bearer"], &["Bearer "], &["Bearer a b"], &["a.b.c"], &["Bearer a", "Bearer b"]]
        {
            assert_eq!(of(bad), Err(AuthError::NotBearer), "{bad:?}");
        }
    }
}
