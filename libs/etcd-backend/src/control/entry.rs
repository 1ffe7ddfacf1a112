//! Entries as they are stored.

use std::collections::{BTreeMap, BTreeSet};

use model::{PolicyVersion, UserId};
use parking_lot::Mutex;
use ports::{ControlEntry, ControlRecord, PortError};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use crate::keys;
use crate::kv::KeyValue;
use crate::refused;

/// An entry's value. The index is in the key.
#[derive(Serialize, Deserialize)]
struct Stored {
    /// The index of the entry before.
    after: u64,
    #[serde(flatten)]
    change: Change,
}

/// The names of the kinds below.
const KINDS: [&str; 4] = ["befriended", "unfriended", "user_deleted", "user_forgotten"];

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Change {
    Befriended(UserId, UserId),
    Unfriended(UserId, UserId),
    UserDeleted(UserId),
    UserForgotten(UserId),
}

/// The value of an entry that follows the one at `after`.
pub(super) fn encode(entry: ControlEntry, after: PolicyVersion) -> Result<String, PortError> {
    let change = match entry {
        ControlEntry::Befriended(one, other) => Change::Befriended(one, other),
        ControlEntry::Unfriended(one, other) => Change::Unfriended(one, other),
        ControlEntry::UserDeleted(user) => Change::UserDeleted(user),
        ControlEntry::UserForgotten(user) => Change::UserForgotten(user),
        _ => return Err(refused(format!("{entry:?} cannot be written to etcd yet"))),
    };
    serde_json::to_string(&Stored { after: after.0, change }).map_err(|error| refused(error.to_string()))
}

/// Entries that were read.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Page {
    pub(super) records: Vec<ControlRecord>,
    /// The index that has been read up to; that of an entry that was passed over, if it was the last.
    pub(super) read: PolicyVersion,
}

/// The entries that follow the one at `read`, or `None` if one of them is missing or damaged.
///
/// Each names the one before it: so a gap cannot go unseen, whether it was made by the log's bound, by a backup that
/// was put back, or by a lost disk. An entry of a kind that this version does not know is passed over: newer versions
/// write such entries only once every member announces that it knows them, so it concerns nothing that this node does.
pub(super) fn decode(found: &[KeyValue], mut read: PolicyVersion, unknown: &Unknown) -> Option<Page> {
    let mut records = Vec::with_capacity(found.len());
    for kv in found {
        let Some(index) = keys::number(&kv.key) else {
            tracing::warn!(key = kv.key, "no entry: nobody may write beside the control log");
            continue;
        };
        let link = serde_json::from_str::<Link>(&kv.value).ok().filter(|link| link.after == read.0)?;
        read = PolicyVersion(index);
        if !link.is_known()? {
            unknown.warn_once(&link);
            continue;
        }
        let stored: Stored = serde_json::from_str(&kv.value).ok()?;
        let entry = match stored.change {
            Change::Befriended(one, other) => ControlEntry::Befriended(one, other),
            Change::Unfriended(one, other) => ControlEntry::Unfriended(one, other),
            Change::UserDeleted(user) => ControlEntry::UserDeleted(user),
            Change::UserForgotten(user) => ControlEntry::UserForgotten(user),
        };
        records.push(ControlRecord { index: read, entry });
    }
    Some(Page { records, read })
}

/// What every entry has, of whatever kind.
#[derive(Deserialize)]
struct Link {
    after: u64,
    /// The kind, and what newer versions may write beside it.
    #[serde(flatten)]
    fields: BTreeMap<String, IgnoredAny>,
}

impl Link {
    /// Whether this version knows the entry's kind, whatever newer versions write beside it; `None` if there is none.
    fn is_known(&self) -> Option<bool> {
        (!self.fields.is_empty()).then(|| KINDS.iter().any(|kind| self.fields.contains_key(*kind)))
    }
}

/// The kinds that were passed over, so that a log says so once a kind and not once an entry.
#[derive(Default)]
pub(super) struct Unknown(Mutex<BTreeSet<String>>);

/// Kinds remembered, and the bytes of a kind's name: whatever is written to etcd, neither memory nor logs grow with it.
const UNKNOWN_KINDS: usize = 64;
const KIND_BYTES: usize = 32;

impl Unknown {
    /// Names the kind, and nothing that the entry says.
    fn warn_once(&self, link: &Link) {
        let is_name =
            |kind: &str| kind.len() <= KIND_BYTES && kind.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
        for kind in link.fields.keys() {
            let kind = if is_name(kind) { kind } else { "(no name of a kind)" };
            let mut warned = self.0.lock();
            if warned.len() < UNKNOWN_KINDS && warned.insert(kind.to_owned()) {
                tracing::warn!(
                    kind,
                    "entries of the control log of a kind that only newer versions know are passed over"
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::Keys;

    fn read(found: &[KeyValue], after: PolicyVersion) -> Option<Page> {
        decode(found, after, &Unknown::default())
    }

    fn stored(index: u64, value: &str) -> KeyValue {
        let key = Keys::below("/n").entry(PolicyVersion(index));
        KeyValue { key, value: value.to_owned(), mod_revision: 1 }
    }

    #[test]
    fn what_is_stored_is_understood_by_every_later_version() {
        let (one, other) = (UserId(1), UserId(u64::MAX));
        let entries = [
            (ControlEntry::Befriended(one, other), r#"{"after":7,"befriended":["1","18446744073709551615"]}"#),
            (ControlEntry::Unfriended(other, one), r#"{"after":7,"unfriended":["18446744073709551615","1"]}"#),
            (ControlEntry::UserDeleted(one), r#"{"after":7,"user_deleted":"1"}"#),
            (ControlEntry::UserForgotten(one), r#"{"after":7,"user_forgotten":"1"}"#),
        ];
        for (entry, text) in entries {
            assert_eq!(encode(entry, PolicyVersion(7)).unwrap(), text);
            let record = ControlRecord { index: PolicyVersion(9), entry };
            let page = Page { records: vec![record], read: PolicyVersion(9) };
            assert_eq!(read(&[stored(9, text)], PolicyVersion(7)), Some(page));
        }
    }

    #[test]
    fn a_gap_and_what_is_damaged_are_seen() {
        let user_deleted = |after: u64| format!(r#"{{"after":{after},"user_deleted":"1"}}"#);
        let after = PolicyVersion(7);
        assert_eq!(read(&[], after), Some(Page { records: vec![], read: after }));
        assert!(read(&[stored(8, &user_deleted(7)), stored(9, &user_deleted(8))], after).is_some());
        let damaged = r#"{"after":7,"user_deleted":["1","2"]}"#;
        for bad in [&user_deleted(6), &user_deleted(8), "", "{}", r#"{"after":7}"#, damaged, "\u{fffd}"] {
            assert_eq!(read(&[stored(9, bad)], after), None, "{bad}");
        }
        assert_eq!(read(&[stored(8, &user_deleted(7)), stored(10, &user_deleted(9))], after), None);
    }

    #[test]
    fn what_only_newer_versions_know_is_passed_over_and_a_gap_behind_it_seen() {
        let newer = |after: u64| format!(r#"{{"after":{after},"level":{{"owner":"1","viewer":"2","level":"city"}}}}"#);
        let user_deleted = |after: u64| format!(r#"{{"after":{after},"user_deleted":"1"}}"#);
        let after = PolicyVersion(7);
        let last = read(&[stored(8, &newer(7))], after);
        assert_eq!(last, Some(Page { records: vec![], read: PolicyVersion(8) }));
        let page = read(&[stored(8, &newer(7)), stored(9, &user_deleted(8))], after).unwrap();
        assert_eq!((page.records.len(), page.records[0].index, page.read), (1, PolicyVersion(9), PolicyVersion(9)));
        assert_eq!(read(&[stored(9, &newer(8))], after), None);
        assert_eq!(read(&[stored(8, &newer(7)), stored(10, &user_deleted(9))], after), None);
    }

    /// A later version may add a field to a kind that all know. That says nothing about the change, which still holds.
    #[test]
    fn a_known_kind_is_obeyed_whatever_a_newer_version_writes_beside_it() {
        let deleted = ControlEntry::UserDeleted(UserId(1));
        for text in [
            r#"{"after":7,"by":"support","user_deleted":"1"}"#,
            r#"{"after":7,"user_deleted":"1","version":{"a":[2]}}"#,
        ] {
            let record = ControlRecord { index: PolicyVersion(8), entry: deleted };
            let page = Page { records: vec![record], read: PolicyVersion(8) };
            assert_eq!(read(&[stored(8, text)], PolicyVersion(7)), Some(page), "{text}");
        }
    }

    #[test]
    fn a_kind_is_warned_of_once_and_few_are_remembered() {
        let unknown = Unknown::default();
        let warned = |unknown: &Unknown| unknown.0.lock().iter().cloned().collect::<Vec<String>>();
        let newer = |index: u64, kind: &str| stored(index, &format!(r#"{{"after":{},"{kind}":"1"}}"#, index - 1));
        let page: Vec<KeyValue> = (8..108).map(|index| newer(index, "level")).collect();
        assert!(decode(&page, PolicyVersion(7), &unknown).is_some_and(|page| page.read == PolicyVersion(107)));
        assert_eq!(warned(&unknown), ["level"]);
        let content = newer(8, "user 4711 of 52.1 north");
        assert!(decode(&[content], PolicyVersion(7), &unknown).is_some());
        assert_eq!(warned(&unknown), ["(no name of a kind)", "level"]);
        for letters in 0..200u8 {
            let kind: String = [b'a' + letters / 26, b'a' + letters % 26].map(char::from).iter().collect();
            assert!(decode(&[newer(8, &kind)], PolicyVersion(7), &unknown).is_some());
        }
        assert_eq!(warned(&unknown).len(), UNKNOWN_KINDS);
    }
}
