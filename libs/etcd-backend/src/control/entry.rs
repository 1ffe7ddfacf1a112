//! Entries as they are stored.

use model::{PolicyVersion, UserId};
use ports::{ControlEntry, ControlRecord, PortError};
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

/// The entries that follow the one at `read`, or `None` if one of them is missing or not understood.
///
/// Each names the one before it: so a gap cannot go unseen, whether it was made by the log's bound, by a backup that
/// was put back, or by a lost disk. An entry that is not understood, written by a newer version, counts as missing:
/// passing over a change of permissions is never right.
pub(super) fn decode(found: &[KeyValue], mut read: PolicyVersion) -> Option<Vec<ControlRecord>> {
    let mut records = Vec::with_capacity(found.len());
    for kv in found {
        let Some(index) = keys::number(&kv.key) else {
            tracing::warn!(key = kv.key, "no entry: nobody may write beside the control log");
            continue;
        };
        let stored = serde_json::from_str::<Stored>(&kv.value).ok().filter(|stored| stored.after == read.0)?;
        read = PolicyVersion(index);
        let entry = match stored.change {
            Change::Befriended(one, other) => ControlEntry::Befriended(one, other),
            Change::Unfriended(one, other) => ControlEntry::Unfriended(one, other),
            Change::UserDeleted(user) => ControlEntry::UserDeleted(user),
            Change::UserForgotten(user) => ControlEntry::UserForgotten(user),
        };
        records.push(ControlRecord { index: read, entry });
    }
    Some(records)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::Keys;

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
            assert_eq!(decode(&[stored(9, text)], PolicyVersion(7)), Some(vec![record]));
        }
    }

    #[test]
    fn a_gap_and_what_is_not_understood_are_seen() {
        let user_deleted = |after: u64| format!(r#"{{"after":{after},"user_deleted":"1"}}"#);
        let after = PolicyVersion(7);
        assert_eq!(decode(&[], after), Some(vec![]));
        assert!(decode(&[stored(8, &user_deleted(7)), stored(9, &user_deleted(8))], after).is_some());
        for bad in [&user_deleted(6), &user_deleted(8), "", "{}", r#"{"after":7,"blocked":["1","2"]}"#, "\u{fffd}"] {
            assert_eq!(decode(&[stored(9, bad)], after), None, "{bad}");
        }
        assert_eq!(decode(&[stored(8, &user_deleted(7)), stored(10, &user_deleted(9))], after), None);
    }
}
