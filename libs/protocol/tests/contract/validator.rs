//! As much of JSON Schema (draft 7) as the schemas in this repository use. A keyword that it does not know fails the
//! test, so that nothing is ever taken for checked that was not. The crates that know all of it bring 26 to 30 crates along.

use serde_json::Value;

/// Keywords that say nothing about whether a value is valid.
const SILENT: [&str; 6] = ["$schema", "title", "description", "definitions", "format", "default"];

/// Why `value` does not fit the schema, or `Ok`.
pub(crate) fn validate(schema: &Value, value: &Value) -> Result<(), String> {
    check(schema, schema, value)
}

/// Whether it does.
pub(crate) fn is_valid(schema: &Value, value: &Value) -> bool {
    validate(schema, value).is_ok()
}

/// The property names of one frame of a schema of frames, but for `type`.
pub(crate) fn fields(schema: &Value, frame: &str) -> Vec<String> {
    let frames = schema["oneOf"].as_array().unwrap();
    let of_type = |candidate: &&Value| candidate["properties"]["type"]["const"] == frame;
    let found = frames.iter().find(of_type).unwrap_or_else(|| panic!("no frame {frame}"));
    let mut names = Vec::new();
    collect_fields(schema, found, &mut names);
    names.retain(|name| name != "type");
    names.sort();
    names
}

/// The types of the frames of a schema.
pub(crate) fn frame_types(schema: &Value) -> Vec<String> {
    let frames = schema["oneOf"].as_array().unwrap();
    frames.iter().map(|frame| frame["properties"]["type"]["const"].as_str().unwrap().to_owned()).collect()
}

fn collect_fields(root: &Value, schema: &Value, names: &mut Vec<String>) {
    if let Some(properties) = schema["properties"].as_object() {
        names.extend(properties.keys().cloned());
    }
    if let Some(reference) = schema["$ref"].as_str() {
        collect_fields(root, resolve(root, reference), names);
    }
    for part in schema["allOf"].as_array().into_iter().flatten() {
        collect_fields(root, part, names);
    }
}

fn resolve<'a>(root: &'a Value, reference: &str) -> &'a Value {
    let pointer = reference.strip_prefix('#').unwrap_or_else(|| panic!("{reference} leads elsewhere"));
    root.pointer(pointer).unwrap_or_else(|| panic!("{reference} leads nowhere"))
}

fn check(root: &Value, schema: &Value, value: &Value) -> Result<(), String> {
    let keywords = schema.as_object().unwrap_or_else(|| panic!("{schema} is no schema"));
    if let Some(reference) = keywords.get("$ref") {
        assert_eq!(keywords.len(), 1, "draft 7 ignores what stands beside $ref: {schema}");
        return check(root, resolve(root, reference.as_str().unwrap()), value);
    }
    for (keyword, rule) in keywords {
        let held = match keyword.as_str() {
            silent if SILENT.contains(&silent) => true,
            "type" => is_of(rule, value),
            "const" => rule == value,
            "enum" => rule.as_array().unwrap().contains(value),
            "minimum" => number(value).is_none_or(|value| value >= number(rule).unwrap()),
            "maximum" => number(value).is_none_or(|value| value <= number(rule).unwrap()),
            "exclusiveMinimum" => number(value).is_none_or(|value| value > number(rule).unwrap()),
            "required" => value.as_object().is_none_or(|object| {
                rule.as_array().unwrap().iter().all(|name| object.contains_key(name.as_str().unwrap()))
            }),
            "properties" => {
                for (name, part) in rule.as_object().unwrap() {
                    if let Some(value) = value.get(name) {
                        check(root, part, value).map_err(|why| format!("{name}: {why}"))?;
                    }
                }
                true
            }
            "items" => {
                for item in value.as_array().into_iter().flatten() {
                    check(root, rule, item)?;
                }
                true
            }
            "allOf" => {
                for part in rule.as_array().unwrap() {
                    check(root, part, value)?;
                }
                true
            }
            "oneOf" => rule.as_array().unwrap().iter().filter(|part| check(root, part, value).is_ok()).count() == 1,
            "anyOf" => rule.as_array().unwrap().iter().any(|part| check(root, part, value).is_ok()),
            unknown => panic!("the validator does not know the keyword {unknown}"),
        };
        if !held {
            return Err(format!("{value} is not {keyword} {rule}"));
        }
    }
    Ok(())
}

fn number(value: &Value) -> Option<f64> {
    value.as_f64()
}

fn is_of(types: &Value, value: &Value) -> bool {
    let is = |name: &str| match name {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        "number" => value.is_number(),
        "integer" => number(value).is_some_and(|value| value.fract() == 0.0),
        unknown => panic!("there is no type {unknown}"),
    };
    match types {
        Value::String(name) => is(name),
        Value::Array(names) => names.iter().any(|name| is(name.as_str().unwrap())),
        other => panic!("{other} is no type"),
    }
}
