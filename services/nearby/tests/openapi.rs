//! `schema/openapi.json` is what the handlers say: records and live calls in one document, as a process serves it.

use std::fs;
use std::path::Path;

#[expect(clippy::disallowed_methods, reason = "a switch for whoever runs the tests: no part of the configuration")]
fn is_update() -> bool {
    std::env::var("UPDATE_SCHEMA").is_ok_and(|value| value == "1")
}

#[test]
fn the_openapi_document_is_up_to_date() {
    let mut document = api::openapi();
    document.merge(gateway::openapi());
    let made = format!("{}\n", document.to_pretty_json().unwrap());
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../schema/openapi.json");
    if fs::read_to_string(&path).is_ok_and(|written| written == made) {
        return;
    }
    assert!(is_update(), "schema/openapi.json is out of date: UPDATE_SCHEMA=1 cargo test -p nearby --test openapi");
    fs::write(&path, made).unwrap();
}
