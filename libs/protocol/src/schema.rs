//! The schemas of the frames, made from the types.

use serde_json::Value;

use crate::client::ServerFrame;

/// JSON Schema of the frames from client to server.
pub fn client_frames() -> Value {
    schemars::schema_for!(crate::client::ClientFrameSchema).to_value()
}

/// JSON Schema of the frames from server to client.
pub fn server_frames() -> Value {
    schemars::schema_for!(ServerFrame).to_value()
}
