//! Tokens of every kind of key, and what must not count as one.
//!
//! The signed tokens in `keys/` were made once for user 7 until 2025-01-01 01:00 UTC, one hour into the virtual clock;
//! the private keys were thrown away.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use model::{TimestampMs, UserId};
use ports::embedded::{FjallUsers, Store};
use ports::{Clock, Users};
use serde_json::{Value, json};
use web::tokens::{LEEWAY, issue};
use web::{AuthError, Authenticator, KeyError, Problem, Scope, Scopes, Subject, TokenKeys};

const SECRET: &[u8] = b"a secret of at least thirty-two bytes";
const JWKS: &[u8] = include_bytes!("keys/jwks.json");
const RSA: &[u8] = include_bytes!("keys/rsa.public.pem");
const SHORT_RSA: &[u8] = include_bytes!("keys/rsa1024.public.pem");
const ED25519: &[u8] = include_bytes!("keys/ed25519.public.pem");

fn signed(name: &str) -> String {
    let all: Value = serde_json::from_str(include_str!("keys/tokens.json")).unwrap();
    all[name].as_str().unwrap().to_owned()
}

/// Seconds of the virtual clock's epoch.
const START_S: u64 = 1_735_689_600;

struct World {
    auth: Authenticator,
    users: Arc<FjallUsers>,
    _dir: tempfile::TempDir,
}

fn world(keys: TokenKeys) -> World {
    let dir = tempfile::tempdir().unwrap();
    let users = Arc::new(FjallUsers::new(Store::open(dir.path()).unwrap()));
    World { auth: Authenticator::new(keys, users.clone(), Clock::virtual_from_now()), users, _dir: dir }
}

fn secret() -> TokenKeys {
    TokenKeys::new().with_hs256(SECRET).unwrap()
}

fn hs256(claims: Value) -> String {
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &EncodingKey::from_secret(SECRET)).unwrap()
}

fn good() -> Value {
    json!({"sub": "7", "exp": START_S + 3_600})
}

fn good_with(name: &str, value: Value) -> Value {
    let mut claims = good();
    claims[name] = value;
    claims
}

#[tokio::test(start_paused = true)]
async fn every_kind_of_key_verifies_its_tokens_and_no_others() {
    let hs256 = hs256(good());
    let cases = [
        ("HS256", secret(), vec![hs256.clone()]),
        ("EdDSA", TokenKeys::new().with_eddsa_pem(ED25519).unwrap(), vec![signed("ed"), signed("ed_kid")]),
        ("RS256", TokenKeys::new().with_rs256_pem(RSA).unwrap(), vec![signed("rsa"), signed("rsa_kid")]),
        (
            "JWKS",
            TokenKeys::new().with_jwks(JWKS).unwrap(),
            ["rsa", "rsa_kid", "ed", "ed_kid", "ec", "ec_kid"].map(signed).to_vec(),
        ),
    ];
    let all: Vec<String> =
        ["rsa", "rsa_kid", "ed", "ed_kid", "ec", "ec_kid"].map(signed).into_iter().chain([hs256]).collect();
    for (name, keys, own) in cases {
        let world = world(keys);
        for token in &all {
            let verified = world.auth.verify(token).map(|identity| identity.subject);
            let expected =
                if own.contains(token) { Ok(Some(Subject::User(UserId(7)))) } else { Err(AuthError::UnknownKey) };
            assert_eq!(verified, expected, "{name} {token}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn several_keys_count_at_once() {
    let other = b"another secret of thirty-two bytes or more";
    let keys = TokenKeys::new().with_hs256(other).unwrap().with_jwks(JWKS).unwrap().with_hs256(SECRET).unwrap();
    let world = world(keys);
    for token in [hs256(good()), signed("rsa"), signed("ed_kid")] {
        assert!(world.auth.verify(&token).is_ok());
    }
}

#[tokio::test(start_paused = true)]
async fn a_public_key_is_never_taken_for_a_secret_and_none_is_no_algorithm() {
    let world = world(TokenKeys::new().with_rs256_pem(RSA).unwrap().with_eddsa_pem(ED25519).unwrap());
    for public in [RSA, ED25519] {
        let confused =
            jsonwebtoken::encode(&Header::new(Algorithm::HS256), &good(), &EncodingKey::from_secret(public)).unwrap();
        assert_eq!(world.auth.verify(&confused), Err(AuthError::UnknownKey));
    }
    let part = |json: &str| {
        use base64::Engine;
        base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(json)
    };
    let claims = part(&good().to_string());
    for none in ["none", "None", "NONE", "nOnE", ""] {
        let header = part(&json!({"alg": none}).to_string());
        for signature in ["", "AAAA"] {
            let unsigned = format!("{header}.{claims}.{signature}");
            assert_eq!(world.auth.verify(&unsigned), Err(AuthError::UnknownKey), "{unsigned}");
        }
    }
    // A signature of one algorithm under the name of another.
    let rsa = signed("rsa");
    let (_, rest) = rsa.split_once('.').unwrap();
    for other in ["RS384", "RS512", "PS256", "ES256", "HS256", "EdDSA"] {
        let renamed = format!("{}.{rest}", part(&json!({"alg": other}).to_string()));
        assert!(world.auth.verify(&renamed).is_err(), "{other}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_kid_selects_its_key_alone() {
    let world = world(TokenKeys::new().with_jwks(JWKS).unwrap());
    let token = |kid: &str, algorithm| {
        let header = Header { kid: Some(kid.into()), ..Header::new(algorithm) };
        jsonwebtoken::encode(&header, &good(), &EncodingKey::from_secret(SECRET)).unwrap()
    };
    // Unknown; of another algorithm; a symmetric key, which the file must not be trusted for.
    for kid in ["nobody", "r1", "secret"] {
        assert_eq!(world.auth.verify(&token(kid, Algorithm::HS256)), Err(AuthError::UnknownKey), "{kid}");
    }
    // A key that was given another name is another key, to who asks by name.
    let renamed = String::from_utf8(JWKS.to_vec()).unwrap().replace("\"r1\"", "\"r2\"");
    let world = self::world(TokenKeys::new().with_jwks(renamed.as_bytes()).unwrap());
    assert_eq!(world.auth.verify(&signed("rsa_kid")), Err(AuthError::UnknownKey));
    assert!(world.auth.verify(&signed("rsa")).is_ok());
}

#[tokio::test(start_paused = true)]
async fn what_is_no_token_does_not_count() {
    let world = world(secret());
    let token = hs256(good());
    let (signed_part, signature) = token.rsplit_once('.').unwrap();
    let other = hs256(good_with("sub", json!("8")));
    let (other_part, _) = other.rsplit_once('.').unwrap();
    for (bad, why) in [
        (String::new(), AuthError::Malformed),
        ("a".into(), AuthError::Malformed),
        ("a.b.c".into(), AuthError::Malformed),
        (format!("{token}.x"), AuthError::Malformed),
        (signed_part.to_owned(), AuthError::Malformed),
        (format!("{signed_part}."), AuthError::BadSignature),
        (format!("{other_part}.{signature}"), AuthError::BadSignature),
        ("x".repeat(1_000_000), AuthError::Malformed),
        (hs256(good_with("sub", json!("x".repeat(10_000)))), AuthError::Malformed),
    ] {
        let error = world.auth.verify(&bad).unwrap_err();
        assert_eq!(error.clone(), why, "{}", &bad[..bad.len().min(200)]);
        assert_eq!(Problem::from(error).status().as_u16(), 401);
    }
    let crit = Header { crit: Some(vec!["b64".into()]), ..Header::new(Algorithm::HS256) };
    let crit = jsonwebtoken::encode(&crit, &good(), &EncodingKey::from_secret(SECRET)).unwrap();
    assert_eq!(world.auth.verify(&crit), Err(AuthError::Malformed));
}

#[tokio::test(start_paused = true)]
async fn times_are_those_of_the_clock() {
    let world = world(secret());
    let until = |exp: Value| world.auth.verify(&hs256(good_with("exp", exp))).map(|identity| identity.expires);
    assert_eq!(until(json!(START_S + 60)), Ok(TimestampMs(START_S * 1_000 + 65_000)));
    assert_eq!(until(json!(START_S as f64 + 0.5)), Ok(TimestampMs(START_S * 1_000 + 5_500)));
    assert_eq!(until(json!(1e300)), Ok(TimestampMs(u64::MAX)));
    assert!(until(json!(START_S - 4)).is_ok(), "within the leeway");
    for past in [json!(START_S - 5), json!(0), json!(-1)] {
        assert_eq!(until(past.clone()), Err(AuthError::Expired), "{past}");
    }
    for bad in [json!("soon"), json!(null), json!(true), json!([1])] {
        assert_eq!(until(bad.clone()), Err(AuthError::Malformed), "{bad}");
    }
    assert_eq!(world.auth.verify(&hs256(json!({"sub": "7"}))), Err(AuthError::Malformed), "no exp");

    let from = |nbf: u64| world.auth.verify(&hs256(good_with("nbf", json!(nbf)))).map(|_| ());
    assert_eq!(from(START_S + LEEWAY.as_secs()), Ok(()));
    assert_eq!(from(START_S + LEEWAY.as_secs() + 1), Err(AuthError::NotYet));

    let token = hs256(good());
    tokio::time::advance(Duration::from_millis(3_604_999)).await;
    assert!(world.auth.verify(&token).is_ok());
    tokio::time::advance(Duration::from_millis(1)).await;
    assert_eq!(world.auth.verify(&token), Err(AuthError::Expired));
}

#[tokio::test(start_paused = true)]
async fn issuer_and_audience_count_when_configured() {
    let any = world(secret());
    let strict = world(secret().with_issuer("https://id.example").with_audience("nearby"));
    let check = |iss: Option<Value>, aud: Option<Value>| {
        let mut claims = good();
        iss.into_iter().for_each(|iss| claims["iss"] = iss);
        aud.into_iter().for_each(|aud| claims["aud"] = aud);
        let token = hs256(claims);
        assert!(any.auth.verify(&token).is_ok());
        strict.auth.verify(&token).map(|_| ())
    };
    let (iss, aud) = (Some(json!("https://id.example")), Some(json!("nearby")));
    assert_eq!(check(iss.clone(), aud.clone()), Ok(()));
    assert_eq!(check(iss.clone(), Some(json!(["other", "nearby"]))), Ok(()));
    assert_eq!(check(None, aud.clone()), Err(AuthError::Issuer));
    assert_eq!(check(Some(json!("https://evil.example")), aud.clone()), Err(AuthError::Issuer));
    assert_eq!(check(Some(json!(5)), aud), Err(AuthError::Issuer));
    assert_eq!(check(iss.clone(), None), Err(AuthError::Audience));
    assert_eq!(check(iss.clone(), Some(json!("other"))), Err(AuthError::Audience));
    assert_eq!(check(iss, Some(json!([]))), Err(AuthError::Audience));
}

#[tokio::test(start_paused = true)]
async fn a_named_subject_becomes_one_user_and_a_server_none() {
    let world = world(secret());
    let caller = async |claims: Value| world.auth.authenticate(&hs256(claims)).await;
    let named = good_with("sub", json!("auth0|abc"));
    let user = caller(named.clone()).await.unwrap().user.unwrap();
    assert!(user.0 >= 1 << 63);
    assert_eq!(caller(named).await.unwrap().user, Some(user));
    assert_eq!(world.users.resolve("auth0|abc").await.unwrap(), user);

    let seven = caller(good()).await.unwrap();
    assert_eq!((seven.user, seven.may(Scope::User), seven.may(Scope::Backend)), (Some(UserId(7)), true, false));
    let server = caller(json!({"sub": "shop-server", "exp": START_S + 60, "scope": "openid backend"})).await.unwrap();
    assert_eq!((server.user, server.may(Scope::Backend), server.may(Scope::History)), (None, true, false));
    assert_eq!(server.user().unwrap_err().status().as_u16(), 403);
    let nobody = caller(json!({"exp": START_S + 60, "scope": "history"})).await.unwrap();
    assert_eq!((nobody.user, nobody.scopes), (None, Scopes::of(&[Scope::History])));
    let both = caller(good_with("scope", json!("user history"))).await.unwrap();
    assert_eq!((both.user, both.may(Scope::History)), (Some(UserId(7)), true));

    for sub in [json!(""), json!("x".repeat(4_097)), json!(null)] {
        assert_eq!(caller(good_with("sub", sub.clone())).await, Err(AuthError::NoSubject), "{sub}");
    }
    assert_eq!(caller(good_with("sub", json!(7))).await, Err(AuthError::Malformed), "RFC 7519: sub is a string");
    assert_eq!(caller(good_with("scope", json!(["backend"]))).await, Err(AuthError::Malformed));
}

#[tokio::test(start_paused = true)]
async fn an_issued_token_counts() {
    let world = world(secret());
    let scopes = Scopes::of(&[Scope::Backend, Scope::History]);
    let expires = TimestampMs((START_S + 60) * 1_000);
    let identity = world.auth.verify(&issue(SECRET, "7", scopes, expires).unwrap()).unwrap();
    assert_eq!((identity.subject, identity.scopes), (Some(Subject::User(UserId(7))), scopes));
    assert_eq!(issue(b"short", "7", scopes, expires), Err(KeyError::ShortSecret));
}

#[test]
fn an_unusable_key_is_an_error_before_the_server_starts() {
    let new = TokenKeys::new;
    assert_eq!(new().with_hs256(b"too short").unwrap_err(), KeyError::ShortSecret);
    assert_eq!(new().with_rs256_pem(SHORT_RSA).unwrap_err(), KeyError::RsaSize);
    let not_a_key = |result: Result<TokenKeys, KeyError>| matches!(result, Err(KeyError::NotAKey(_)));
    for text in [&b""[..], b"-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----", b"AAAA", &[0xff; 40]] {
        assert!(not_a_key(new().with_rs256_pem(text)) && not_a_key(new().with_eddsa_pem(text)));
        assert!(not_a_key(new().with_jwks(text)));
    }
    assert!(not_a_key(new().with_rs256_pem(ED25519)) && not_a_key(new().with_eddsa_pem(RSA)));
    assert_eq!(new().with_jwks(br#"{"keys": []}"#).unwrap_err(), KeyError::NoUsableKey);
    // The library would panic on the first token that is verified with this one.
    let short = br#"{"keys": [{"kty": "OKP", "crv": "Ed25519", "x": "AAAA"}]}"#;
    assert!(not_a_key(new().with_jwks(short)));
    let point = br#"{"keys": [{"kty": "EC", "crv": "P-256", "x": "AAAA", "y": "AAAA"}]}"#;
    assert!(not_a_key(new().with_jwks(point)));
    assert!(new().is_empty() && !new().with_jwks(JWKS).unwrap().is_empty());
}

#[test]
fn nothing_printed_tells_a_secret() {
    let printed = format!("{:?}", secret());
    assert!(!printed.contains("a secret") && !printed.contains("97, 32"), "{printed}");
}
