//! The schemas of the frames, made from the types, and the AsyncAPI document that puts them on their channel.
//!
//! Draft 7, because that is what AsyncAPI and most generators of client code read. `schema/` in the repository holds
//! what these functions return.

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use crate::client::{ClientFrameSchema, ServerFrame};
use crate::close::CLOSE_CODES;
use crate::{BEARER_SUBPROTOCOL_PREFIX, SUBPROTOCOL};

/// The file of [`client_frames`], which the others refer to by this name.
pub const CLIENT_FRAMES_FILE: &str = "client-frames.schema.json";

/// The file of [`server_frames`].
pub const SERVER_FRAMES_FILE: &str = "server-frames.schema.json";

/// JSON Schema of the frames from client to server.
pub fn client_frames() -> Value {
    schema_of::<ClientFrameSchema>()
}

/// JSON Schema of the frames from server to client.
pub fn server_frames() -> Value {
    schema_of::<ServerFrame>()
}

fn schema_of<T: JsonSchema>() -> Value {
    SchemaSettings::draft07().into_generator().into_root_schema_for::<T>().to_value()
}

/// AsyncAPI 3.0 of the WebSocket, said from the server's side: it receives what clients send.
pub fn asyncapi() -> Value {
    let mut messages = Map::new();
    let from_client = add_messages(&mut messages, &client_frames(), CLIENT_FRAMES_FILE);
    let to_client = add_messages(&mut messages, &server_frames(), SERVER_FRAMES_FILE);
    let on_channel: Map<String, Value> = messages
        .keys()
        .map(|name| (name.clone(), json!({ "$ref": format!("#/components/messages/{name}") })))
        .collect();
    json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": "Nearby, live",
            "version": "1",
            "description": "Who of one's friends is close by, live. `docs/PROTOCOL.md` tells what the frames mean.",
        },
        "defaultContentType": "application/json",
        "servers": {
            "local": {
                "host": "localhost:8080",
                "protocol": "ws",
                "description": "A server started with its default configuration; elsewhere `wss` and a name.",
                "security": [{ "$ref": "#/components/securitySchemes/bearer" }],
            },
        },
        "channels": { "live": channel(on_channel) },
        "operations": {
            "fromClient": operation("receive", "What a client says. The first frame is `init`.", &from_client),
            "toClient": operation("send", "What a client is told.", &to_client),
        },
        "components": {
            "messages": messages,
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "bearerFormat": "JWT",
                    "description": format!(
                        "In `Authorization`, or, by browsers, as an entry `{BEARER_SUBPROTOCOL_PREFIX}<token>` of \
                         `Sec-WebSocket-Protocol`. Never in the URL."
                    ),
                },
            },
        },
    })
}

fn channel(messages: Map<String, Value>) -> Value {
    let closes: Vec<Value> = CLOSE_CODES
        .into_iter()
        .map(|close| json!({ "code": close.code(), "reason": close.reason(), "then": close.then() }))
        .collect();
    json!({
        "address": "/v1/ws",
        "title": "The WebSocket",
        "description": format!("Text messages of the subprotocol `{SUBPROTOCOL}`, one frame each."),
        "messages": messages,
        "bindings": {
            "ws": {
                "method": "GET",
                "headers": {
                    "type": "object",
                    "properties": {
                        "Authorization": { "type": "string", "description": "`Bearer <token>`" },
                        "Sec-WebSocket-Protocol": {
                            "type": "string",
                            "description": format!("`{SUBPROTOCOL}`, or `{SUBPROTOCOL}, {BEARER_SUBPROTOCOL_PREFIX}<token>`"),
                        },
                    },
                },
                "bindingVersion": "0.1.0",
            },
        },
        "x-close-codes": closes,
    })
}

fn operation(action: &str, summary: &str, messages: &[String]) -> Value {
    let messages: Vec<Value> =
        messages.iter().map(|name| json!({ "$ref": format!("#/channels/live/messages/{name}") })).collect();
    json!({ "action": action, "channel": { "$ref": "#/channels/live" }, "summary": summary, "messages": messages })
}

/// Adds one message for each frame of a schema, and returns their names in the schema's order.
fn add_messages(messages: &mut Map<String, Value>, schema: &Value, file: &str) -> Vec<String> {
    let mut names = Vec::new();
    for (at, frame) in schema["oneOf"].as_array().into_iter().flatten().enumerate() {
        let Some(name) = frame["properties"]["type"]["const"].as_str() else { continue };
        let message = json!({
            "name": name,
            "summary": frame["description"],
            "payload": { "$ref": format!("./{file}#/oneOf/{at}") },
        });
        messages.insert(name.to_owned(), message);
        names.push(name.to_owned());
    }
    names
}
