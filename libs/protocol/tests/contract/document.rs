//! `docs/PROTOCOL.md` against the code: what it shows is taken, what there is is told.

use std::fs;

use protocol::client::{ErrorCode, GoneReason, ServerFrame, decode};
use protocol::close::{CLOSE_CODES, Then};
use protocol::record::RECORD_LEN;
use protocol::schema::{client_frames, server_frames};
use serde_json::{Value, json};

use crate::root;
use crate::validator::{fields, frame_types, validate};

/// One frame's part of the document.
struct Section {
    frame: String,
    examples: Vec<String>,
    fields: Vec<String>,
}

fn document() -> String {
    fs::read_to_string(root().join("docs/PROTOCOL.md")).unwrap()
}

/// The cells of a table's row, without backticks.
fn cells(line: &str) -> Option<Vec<String>> {
    let row = line.strip_prefix('|')?.strip_suffix('|')?;
    Some(row.split('|').map(|cell| cell.trim().trim_matches('`').to_owned()).collect())
}

/// The lines of a chapter: from its heading to the next of its kind.
fn chapter<'a>(document: &'a str, heading: &str) -> &'a str {
    let from = document.find(heading).unwrap_or_else(|| panic!("no chapter {heading}"));
    let rest = &document[from + heading.len()..];
    rest.find("\n## ").map_or(rest, |end| &rest[..end])
}

fn sections(chapter: &str) -> Vec<Section> {
    chapter.split("\n### ").skip(1).map(section).collect()
}

fn section(text: &str) -> Section {
    let frame = text.lines().next().unwrap().trim_matches('`').to_owned();
    let examples = text.split("```json\n").skip(1).map(|rest| rest.split("```").next().unwrap().trim().to_owned());
    let rows = text.lines().skip_while(|line| !line.starts_with("| field ")).skip(2);
    let rows = rows.map_while(cells).map(|cells| cells[0].clone()).filter(|field| !field.is_empty());
    let mut fields: Vec<String> = rows.collect();
    fields.sort();
    Section { frame, examples: examples.collect(), fields }
}

#[test]
fn every_frame_is_told_with_all_its_fields_and_an_example() {
    let document = document();
    for (heading, schema) in
        [("\n## From client to server", client_frames()), ("\n## From server to client", server_frames())]
    {
        let sections = sections(chapter(&document, heading));
        let told: Vec<&str> = sections.iter().map(|section| section.frame.as_str()).collect();
        assert_eq!(told, frame_types(&schema), "{heading}");
        for Section { frame, examples, fields: told } in &sections {
            assert_eq!(*told, fields(&schema, frame), "the fields of {frame}");
            assert!(!examples.is_empty(), "{frame} has no example");
            for example in examples {
                let value: Value = serde_json::from_str(example).unwrap_or_else(|why| panic!("{example}: {why}"));
                assert_eq!(value["type"], json!(frame), "{example}");
                validate(&schema, &value).unwrap_or_else(|why| panic!("{example}: {why}"));
            }
        }
    }
}

#[test]
fn every_example_of_a_client_frame_is_taken() {
    for section in sections(chapter(&document(), "\n## From client to server")) {
        for example in section.examples {
            decode(&example).unwrap_or_else(|why| panic!("{example}: {why}"));
        }
    }
}

/// Read and written again it is the same: nothing in an example is made up.
#[test]
fn every_example_of_a_server_frame_is_one() {
    for section in sections(chapter(&document(), "\n## From server to client")) {
        for example in section.examples {
            let frame: ServerFrame = serde_json::from_str(&example).unwrap_or_else(|why| panic!("{example}: {why}"));
            let (sent, told): (Value, Value) =
                (serde_json::from_str(&frame.encode()).unwrap(), serde_json::from_str(&example).unwrap());
            assert_eq!(sent, told);
        }
    }
}

#[test]
fn the_error_codes_and_reasons_are_told() {
    let document = document();
    let section = document.split("\n### ").find(|text| text.starts_with("`error`")).unwrap();
    let rows = section.lines().skip_while(|line| !line.starts_with("| code ")).skip(2);
    let told: Vec<String> = rows.map_while(cells).map(|cells| cells[0].clone()).collect();
    let known: Vec<Value> = told.iter().map(|code| json!(code)).collect();
    for code in &known {
        serde_json::from_value::<ErrorCode>(code.clone()).unwrap();
    }
    assert_eq!(known.len(), server_frames()["definitions"]["ErrorCode"]["oneOf"].as_array().unwrap().len());
    let section = document.split("\n### ").find(|text| text.starts_with("`gone`")).unwrap();
    let reasons: Vec<String> = section.lines().filter_map(cells).map(|cells| cells[1].clone()).collect();
    for reason in [GoneReason::OutOfRange, GoneReason::Inactive, GoneReason::Hidden] {
        assert!(reasons.iter().any(|told| json!(told) == json!(reason)), "{reason:?}");
    }
}

fn next(then: Then) -> &'static str {
    match then {
        Then::ReconnectNow => "reconnect now",
        Then::ReconnectWithJitter => "reconnect with jitter",
        Then::SignIn => "sign in, then reconnect",
        Then::Stop => "stop",
    }
}

#[test]
fn the_close_codes_are_told_with_what_to_do_next() {
    let document = document();
    let rows = chapter(&document, "\n## Closing and connecting again").lines();
    let rows = rows.skip_while(|line| !line.starts_with("| code ")).skip(2).map_while(cells);
    let told: Vec<[String; 3]> = rows.map(|row| [row[0].clone(), row[1].clone(), row[3].clone()]).collect();
    let known = CLOSE_CODES
        .map(|close| [close.code().to_string(), close.reason().to_owned(), next(close.then()).to_owned()])
        .to_vec();
    assert_eq!(told, known);
}

/// The table of the record is the one beside the code that writes it.
#[test]
fn the_record_is_told_as_its_module_says_it() {
    let document = document();
    let told = document.split("```text\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let module = fs::read_to_string(root().join("libs/protocol/src/record.rs")).unwrap();
    let table = module.split("//! ```text\n").nth(1).and_then(|rest| rest.split("//! ```").next()).unwrap();
    let table: String = table.lines().map(|line| format!("{}\n", line.trim_start_matches("//! "))).collect();
    assert_eq!(told, table);
    assert!(document.contains(&format!("{RECORD_LEN} bytes")));
}
