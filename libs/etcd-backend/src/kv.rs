//! etcd's keys and values as its JSON gateway writes them: text in base64, 64-bit numbers in quotes.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

use crate::client::{Client, Failure, Repeat};
use crate::keys::Span;

/// Several operations at one revision, some only if something holds.
#[derive(Default)]
pub(crate) struct Txn {
    compare: Vec<Value>,
    then: Vec<Value>,
    otherwise: Vec<Value>,
}

impl Txn {
    /// Only if the key's last change was at this revision; 0 for a key that does not exist.
    pub(crate) fn when_unchanged_since(mut self, key: &str, revision: u64) -> Txn {
        let revision = revision.to_string();
        self.compare.push(json!({"target": "MOD", "result": "EQUAL", "key": coded(key), "mod_revision": revision}));
        self
    }

    /// Only if the key exists and lives by this lease.
    pub(crate) fn when_leased(mut self, key: &str, lease: i64) -> Txn {
        self.compare.push(json!({"target": "LEASE", "result": "EQUAL", "key": coded(key), "lease": lease.to_string()}));
        self
    }

    /// Only if the key exists and its value, as text, is greater than this.
    pub(crate) fn when_greater(mut self, key: &str, value: &str) -> Txn {
        self.compare.push(json!({"target": "VALUE", "result": "GREATER", "key": coded(key), "value": coded(value)}));
        self
    }

    pub(crate) fn then(mut self, operation: Value) -> Txn {
        self.then.push(operation);
        self
    }

    pub(crate) fn otherwise(mut self, operation: Value) -> Txn {
        self.otherwise.push(operation);
        self
    }

    /// Reads in it are linearizable.
    pub(crate) async fn commit(self, client: &Client, repeat: Repeat) -> Result<Committed, Failure> {
        let question = json!({"compare": self.compare, "success": self.then, "failure": self.otherwise});
        client.call("/v3/kv/txn", &question, repeat).await
    }
}

pub(crate) fn put(key: &str, value: &str) -> Value {
    json!({"request_put": {"key": coded(key), "value": coded(value)}})
}

/// The key goes when the lease ends.
pub(crate) fn put_leased(key: &str, value: &str, lease: i64) -> Value {
    json!({"request_put": {"key": coded(key), "value": coded(value), "lease": lease.to_string()}})
}

pub(crate) fn get(key: &str) -> Value {
    json!({"request_range": {"key": coded(key)}})
}

/// All keys of the span, ascending.
pub(crate) fn list(span: &Span) -> Value {
    json!({"request_range": {"key": coded(&span.from), "range_end": coded(&span.to)}})
}

/// The first keys of the span, ascending.
pub(crate) fn list_first(span: &Span, limit: usize) -> Value {
    let limit = limit.to_string();
    json!({"request_range": {"key": coded(&span.from), "range_end": coded(&span.to), "limit": limit}})
}

pub(crate) fn count(span: &Span) -> Value {
    json!({"request_range": {"key": coded(&span.from), "range_end": coded(&span.to), "count_only": true}})
}

pub(crate) fn delete(span: &Span) -> Value {
    json!({"request_delete_range": {"key": coded(&span.from), "range_end": coded(&span.to)}})
}

/// What became of a [`Txn`].
#[derive(Deserialize)]
pub(crate) struct Committed {
    header: Header,
    /// Whether its conditions held. A condition that did not is told by leaving this out.
    #[serde(default)]
    pub(crate) succeeded: bool,
    #[serde(default)]
    responses: Vec<Response>,
}

impl Committed {
    /// The revision that was made, or read.
    pub(crate) fn revision(&self) -> u64 {
        self.header.revision
    }

    /// What the n-th operation, which was a read, found.
    pub(crate) fn found(&mut self, operation: usize) -> Found {
        self.responses.get_mut(operation).and_then(|response| response.response_range.take()).unwrap_or_default()
    }
}

/// What every answer begins with.
#[derive(Default, Deserialize)]
pub(crate) struct Header {
    #[serde(default, deserialize_with = "quoted")]
    pub(crate) revision: u64,
}

#[derive(Deserialize)]
struct Response {
    response_range: Option<Found>,
}

/// Keys that were read.
#[derive(Default, Deserialize)]
pub(crate) struct Found {
    #[serde(default)]
    pub(crate) kvs: Vec<KeyValue>,
    /// How many there are, those beyond the limit included.
    #[serde(default, deserialize_with = "quoted")]
    pub(crate) count: usize,
}

/// A key.
#[derive(Deserialize)]
pub(crate) struct KeyValue {
    #[serde(deserialize_with = "decoded")]
    pub(crate) key: String,
    #[serde(default, deserialize_with = "decoded")]
    pub(crate) value: String,
    /// The revision of its last change.
    #[serde(default, deserialize_with = "quoted")]
    pub(crate) mod_revision: u64,
}

/// As keys and values are written.
pub(crate) fn coded(text: &str) -> String {
    STANDARD.encode(text)
}

/// A number in quotes.
pub(crate) fn quoted<'de, D: Deserializer<'de>, N: std::str::FromStr>(deserializer: D) -> Result<N, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(|_| serde::de::Error::custom("no number in quotes"))
}

/// What is no UTF-8 was written by nobody here, and becomes something that will not be understood.
fn decoded<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let bytes = STANDARD.decode(String::deserialize(deserializer)?).map_err(serde::de::Error::custom)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_and_what_is_missing_is_nothing() {
        let text = r#"{"header":{"revision":"9"},"responses":[{"response_put":{"header":{"revision":"9"}}},
            {"response_range":{"kvs":[{"key":"YQ==","mod_revision":"9223372036854775807"}],"count":"3"}}]}"#;
        let mut committed: Committed = serde_json::from_str(text).unwrap();
        assert!(!committed.succeeded);
        let found = committed.found(1);
        assert_eq!((found.count, found.kvs[0].key.as_str(), found.kvs[0].value.as_str()), (3, "a", ""));
        assert_eq!((committed.revision(), found.kvs[0].mod_revision), (9, i64::MAX as u64));
        assert_eq!((committed.found(0).count, committed.found(7).count), (0, 0));
    }
}
