//! The keys that tokens are verified with.

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, Header, Validation};
use thiserror::Error;

use super::claims::Claims;
use super::{AuthError, MAX_TOKEN_BYTES};

/// A token of unknown `kid` is tried with each key of its algorithm, so there are few.
const MAX_KEYS: usize = 64;

/// RFC 7518 wants an HS256 secret as long as its hash.
const MIN_SECRET_BYTES: usize = 32;

/// RFC 7518 wants RSA keys of 2048 bits or more; longer than 4096 the library does not verify.
const RSA_MODULUS_BYTES: std::ops::RangeInclusive<usize> = 256..=512;

/// Why a key cannot be used: said before the server starts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The text is not such a key.
    #[error("not a usable {0}")]
    NotAKey(&'static str),
    /// The secret is too short to resist guessing.
    #[error("an HS256 secret must have at least {MIN_SECRET_BYTES} bytes")]
    ShortSecret,
    /// The modulus is too short to resist factoring, or too long to verify quickly.
    #[error("an RSA key must have 2048 to 4096 bits")]
    RsaSize,
    /// A JWKS file without a public signature key of RS256, ES256 or EdDSA.
    #[error("a JWKS file must hold at least one public key for RS256, ES256 or EdDSA")]
    NoUsableKey,
    /// More keys than are ever tried.
    #[error("at most {MAX_KEYS} keys")]
    TooMany,
}

/// The keys that tokens are verified with, and whom they must be from and for. Several keys may count at once, so that
/// they can be replaced one at a time.
#[derive(Clone, Default, Debug)]
pub struct TokenKeys {
    keys: Vec<Key>,
    issuer: Option<String>,
    audience: Option<String>,
}

/// A key counts for one algorithm only: a public key can never be taken for an HMAC secret.
#[derive(Clone, Debug)]
struct Key {
    id: Option<String>,
    algorithm: Algorithm,
    verifying: DecodingKey,
}

pub(super) fn check_secret(secret: &[u8]) -> Result<(), KeyError> {
    if secret.len() < MIN_SECRET_BYTES { Err(KeyError::ShortSecret) } else { Ok(()) }
}

impl TokenKeys {
    /// None yet: every token is refused.
    pub fn new() -> TokenKeys {
        TokenKeys::default()
    }

    /// Also an HS256 secret.
    pub fn with_hs256(self, secret: &[u8]) -> Result<TokenKeys, KeyError> {
        check_secret(secret)?;
        self.with(Key { id: None, algorithm: Algorithm::HS256, verifying: DecodingKey::from_secret(secret) })
    }

    /// Also an Ed25519 public key, PEM.
    pub fn with_eddsa_pem(self, pem: &[u8]) -> Result<TokenKeys, KeyError> {
        let bad = KeyError::NotAKey("Ed25519 public key in PEM");
        let verifying = DecodingKey::from_ed_pem(pem).map_err(|_| bad)?;
        check_ed25519(&verifying).then_some(()).ok_or(bad)?;
        self.with(Key { id: None, algorithm: Algorithm::EdDSA, verifying })
    }

    /// Also an RSA public key for RS256, PEM.
    pub fn with_rs256_pem(self, pem: &[u8]) -> Result<TokenKeys, KeyError> {
        let bad = KeyError::NotAKey("RSA public key in PEM");
        let verifying = DecodingKey::from_rsa_pem(pem).map_err(|_| bad)?;
        check_rsa(&verifying, bad)?;
        self.with(Key { id: None, algorithm: Algorithm::RS256, verifying })
    }

    /// Also the public signature keys of a JWKS document; those of other kinds or uses are left out (RFC 7517).
    pub fn with_jwks(mut self, json: &[u8]) -> Result<TokenKeys, KeyError> {
        let bad = KeyError::NotAKey("JWKS document");
        let set: JwkSet = serde_json::from_slice(json).map_err(|_| bad)?;
        let before = self.keys.len();
        for jwk in &set.keys {
            if let Some(algorithm) = algorithm_of(jwk) {
                let verifying = DecodingKey::from_jwk(jwk).map_err(|_| bad)?;
                match algorithm {
                    Algorithm::RS256 => check_rsa(&verifying, bad)?,
                    Algorithm::EdDSA => check_ed25519(&verifying).then_some(()).ok_or(bad)?,
                    _ => check_ecdsa(&verifying).then_some(()).ok_or(bad)?,
                }
                self = self.with(Key { id: jwk.common.key_id.clone(), algorithm, verifying })?;
            }
        }
        if self.keys.len() == before { Err(KeyError::NoUsableKey) } else { Ok(self) }
    }

    /// Only tokens of this issuer (`iss`).
    pub fn with_issuer(self, issuer: impl Into<String>) -> TokenKeys {
        TokenKeys { issuer: Some(issuer.into()), ..self }
    }

    /// Only tokens for this audience (`aud`).
    pub fn with_audience(self, audience: impl Into<String>) -> TokenKeys {
        TokenKeys { audience: Some(audience.into()), ..self }
    }

    /// Whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    fn with(mut self, key: Key) -> Result<TokenKeys, KeyError> {
        if self.keys.len() == MAX_KEYS {
            return Err(KeyError::TooMany);
        }
        self.keys.push(key);
        Ok(self)
    }

    /// Checks the signature, `iss` and `aud`. The times are left to who knows what time it is.
    pub(super) fn verify(&self, token: &str) -> Result<Claims, AuthError> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(AuthError::Malformed);
        }
        let header = jsonwebtoken::decode_header(token).map_err(|error| match error.kind() {
            // An algorithm that the library does not know, `none` among them, is JSON of another form to it.
            ErrorKind::Json(_) | ErrorKind::InvalidAlgorithmName => AuthError::UnknownKey,
            _ => AuthError::Malformed,
        })?;
        // What must be understood and is not makes a token void (RFC 7515, 4.1.11).
        if header.crit.is_some() {
            return Err(AuthError::Malformed);
        }
        let mut refused = AuthError::UnknownKey;
        for key in self.candidates(&header) {
            match jsonwebtoken::decode(token, &key.verifying, &self.validation(key.algorithm)) {
                Ok(data) => return Ok(data.claims),
                Err(error) => refused = refusal(error.kind()),
            }
            // Another key may fit only if this one did not.
            if refused != AuthError::BadSignature {
                break;
            }
        }
        Err(refused)
    }

    /// Keys of the token's algorithm: the one that its `kid` names, or those that have no name.
    fn candidates(&self, header: &Header) -> impl Iterator<Item = &Key> {
        let named = header.kid.as_deref().filter(|kid| self.keys.iter().any(|key| key.id.as_deref() == Some(*kid)));
        let anonymous = header.kid.is_none();
        self.keys.iter().filter(move |key| {
            let fits = match named {
                Some(kid) => key.id.as_deref() == Some(kid),
                None => anonymous || key.id.is_none(),
            };
            fits && key.algorithm == header.alg
        })
    }

    fn validation(&self, algorithm: Algorithm) -> Validation {
        let mut validation = Validation::new(algorithm);
        // The library would ask the machine's clock: the times are checked by ours.
        validation.validate_exp = false;
        validation.validate_nbf = false;
        validation.validate_aud = self.audience.is_some();
        let mut required = vec![];
        if let Some(issuer) = &self.issuer {
            validation.set_issuer(&[issuer]);
            required.push("iss");
        }
        if let Some(audience) = &self.audience {
            validation.set_audience(&[audience]);
            required.push("aud");
        }
        validation.set_required_spec_claims(&required);
        validation
    }
}

fn refusal(kind: &ErrorKind) -> AuthError {
    match kind {
        ErrorKind::InvalidSignature => AuthError::BadSignature,
        ErrorKind::InvalidIssuer => AuthError::Issuer,
        ErrorKind::InvalidAudience => AuthError::Audience,
        ErrorKind::MissingRequiredClaim(claim) if claim == "iss" => AuthError::Issuer,
        ErrorKind::MissingRequiredClaim(claim) if claim == "aud" => AuthError::Audience,
        _ => AuthError::Malformed,
    }
}

/// The one algorithm that a key of a JWKS document counts for; `None` if it is no public signature key of ours.
fn algorithm_of(jwk: &Jwk) -> Option<Algorithm> {
    if !matches!(jwk.common.public_key_use, None | Some(PublicKeyUse::Signature)) {
        return None;
    }
    let (own, name) = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => (Algorithm::RS256, KeyAlgorithm::RS256),
        AlgorithmParameters::OctetKeyPair(pair) if pair.curve == EllipticCurve::Ed25519 => {
            (Algorithm::EdDSA, KeyAlgorithm::EdDSA)
        }
        AlgorithmParameters::EllipticCurve(curve) if curve.curve == EllipticCurve::P256 => {
            (Algorithm::ES256, KeyAlgorithm::ES256)
        }
        // A symmetric secret in a file that is made to be published is a mistake.
        _ => return None,
    };
    jwk.common.key_algorithm.is_none_or(|algorithm| algorithm == name).then_some(own)
}

/// The library would take the first 32 bytes of whatever there is, and panic on fewer.
fn check_ed25519(key: &DecodingKey) -> bool {
    key.try_get_as_bytes().is_ok_and(|bytes| bytes.len() == 32) && parses(key, Algorithm::EdDSA)
}

fn check_ecdsa(key: &DecodingKey) -> bool {
    parses(key, Algorithm::ES256)
}

/// A verification of nothing: fails only if the key cannot be read.
fn parses(key: &DecodingKey, algorithm: Algorithm) -> bool {
    jsonwebtoken::crypto::verify("", b"", key, algorithm).is_ok()
}

fn check_rsa(key: &DecodingKey, bad: KeyError) -> Result<(), KeyError> {
    let jwk = Jwk::from_decoding_key(key, Some(Algorithm::RS256)).map_err(|_| bad)?;
    let AlgorithmParameters::RSA(rsa) = &jwk.algorithm else { return Err(bad) };
    // Unpadded base64url: 3 bytes in 4 characters.
    let modulus_bytes = rsa.n.len() * 3 / 4;
    if RSA_MODULUS_BYTES.contains(&modulus_bytes) { Ok(()) } else { Err(KeyError::RsaSize) }
}
