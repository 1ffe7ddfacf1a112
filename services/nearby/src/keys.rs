//! The keys that tokens are verified with.

use std::fs;
use std::path::Path;

use anyhow::Context;
use web::TokenKeys;

use crate::config::Config;
use crate::secret;

/// Those of the configuration; when it names none, the development secret of the data directory.
pub(crate) fn load(config: &Config) -> anyhow::Result<TokenKeys> {
    let auth = &config.auth;
    let read = |key: &str, file: &Path| {
        fs::read(file).with_context(|| format!("auth.{key}: {} cannot be read", file.display()))
    };
    let given = |file: &Path| !file.as_os_str().is_empty();
    let mut keys = TokenKeys::new();
    if given(&auth.hs256_secret_file) {
        let secret = read("hs256_secret_file", &auth.hs256_secret_file)?;
        keys = keys.with_hs256(&secret).context("auth.hs256_secret_file")?;
    }
    if given(&auth.eddsa_pem_file) {
        let pem = read("eddsa_pem_file", &auth.eddsa_pem_file)?;
        keys = keys.with_eddsa_pem(&pem).context("auth.eddsa_pem_file")?;
    }
    if given(&auth.rs256_pem_file) {
        let pem = read("rs256_pem_file", &auth.rs256_pem_file)?;
        keys = keys.with_rs256_pem(&pem).context("auth.rs256_pem_file")?;
    }
    if given(&auth.jwks_file) {
        let jwks = read("jwks_file", &auth.jwks_file)?;
        keys = keys.with_jwks(&jwks).context("auth.jwks_file")?;
    }
    if keys.is_empty() {
        let data_dir = config.data_dir().context("auth: configure the keys that tokens are verified with")?;
        keys = keys.with_hs256(&secret::load_or_make(data_dir)?)?;
    }
    if !auth.issuer.is_empty() {
        keys = keys.with_issuer(auth.issuer.clone());
    }
    if !auth.audience.is_empty() {
        keys = keys.with_audience(auth.audience.clone());
    }
    Ok(keys)
}
