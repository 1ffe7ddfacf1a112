//! `schema/` is what the types say.

use std::fs;

use protocol::schema::{CLIENT_FRAMES_FILE, SERVER_FRAMES_FILE, asyncapi, client_frames, server_frames};
use serde_json::Value;

use crate::root;

#[expect(clippy::disallowed_methods, reason = "a switch for whoever runs the tests: no part of the configuration")]
fn is_update() -> bool {
    std::env::var("UPDATE_SCHEMA").is_ok_and(|value| value == "1")
}

/// The values are compared and not the texts, whose order of fields depends on how `serde_json` was built.
fn compare(file: &str, made: &Value) {
    let path = root().join("schema").join(file);
    let written = fs::read_to_string(&path).ok().and_then(|text| serde_json::from_str::<Value>(&text).ok());
    if written.as_ref() == Some(made) {
        return;
    }
    assert!(is_update(), "schema/{file} is out of date: UPDATE_SCHEMA=1 cargo test -p protocol");
    let text = format!("{}\n", serde_json::to_string_pretty(made).unwrap());
    fs::write(&path, text).unwrap();
}

#[test]
fn the_client_frames_are_up_to_date() {
    compare(CLIENT_FRAMES_FILE, &client_frames());
}

#[test]
fn the_server_frames_are_up_to_date() {
    compare(SERVER_FRAMES_FILE, &server_frames());
}

#[test]
fn the_asyncapi_document_is_up_to_date() {
    compare("asyncapi.json", &asyncapi());
}

/// Every `$ref` of the document, within it and into the schemas beside it, leads somewhere.
#[test]
fn the_asyncapi_document_hangs_together() {
    let document = asyncapi();
    let mut references = Vec::new();
    collect(&document, &mut references);
    assert!(references.len() > 20, "{}", references.len());
    for reference in references {
        let (file, pointer) = reference.split_once('#').unwrap();
        let target = match file {
            "" => &document,
            "./client-frames.schema.json" => &client_frames(),
            "./server-frames.schema.json" => &server_frames(),
            other => panic!("{other} is no file of ours"),
        };
        assert!(target.pointer(pointer).is_some(), "{reference} leads nowhere");
    }
    let frames = [client_frames(), server_frames()].map(|schema| schema["oneOf"].as_array().unwrap().len());
    let operations = ["fromClient", "toClient"]
        .map(|operation| document["operations"][operation]["messages"].as_array().unwrap().len());
    assert_eq!(operations, frames);
    assert_eq!(document["components"]["messages"].as_object().unwrap().len(), frames[0] + frames[1]);
}

fn collect(value: &Value, references: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            references.extend(fields.get("$ref").map(|reference| reference.as_str().unwrap().to_owned()));
            fields.values().for_each(|field| collect(field, references));
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, references)),
        _ => {}
    }
}
