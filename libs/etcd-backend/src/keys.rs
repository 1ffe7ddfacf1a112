//! What lies where.

use model::{NodeId, PolicyVersion};

/// The names of all keys of one cluster. Numbers are written with 16 hex digits, so that etcd's order is theirs.
pub(crate) struct Keys {
    prefix: String,
}

/// All keys from `from` on and before `to`.
pub(crate) struct Span {
    pub(crate) from: String,
    pub(crate) to: String,
}

impl Keys {
    pub(crate) fn below(prefix: &str) -> Keys {
        Keys { prefix: prefix.trim_end_matches('/').to_owned() }
    }

    pub(crate) fn node(&self, node: NodeId) -> String {
        format!("{}/nodes/{node}", self.prefix)
    }

    pub(crate) fn nodes(&self) -> Span {
        self.folder("nodes")
    }

    pub(crate) fn sender(&self, node: NodeId) -> String {
        format!("{}/senders/{node}", self.prefix)
    }

    pub(crate) fn senders(&self) -> Span {
        self.folder("senders")
    }

    pub(crate) fn confirmed(&self, node: NodeId) -> String {
        format!("{}/confirmed/{node}", self.prefix)
    }

    pub(crate) fn all_confirmed(&self) -> Span {
        self.folder("confirmed")
    }

    pub(crate) fn erased(&self, node: NodeId) -> String {
        format!("{}/erased/{node}", self.prefix)
    }

    pub(crate) fn all_erased(&self) -> Span {
        self.folder("erased")
    }

    pub(crate) fn document(&self, name: &str) -> String {
        format!("{}/doc/{name}", self.prefix)
    }

    pub(crate) fn control_end(&self) -> String {
        format!("{}/control-end", self.prefix)
    }

    pub(crate) fn entry(&self, index: PolicyVersion) -> String {
        format!("{}/control/{}", self.prefix, hex(index.0))
    }

    pub(crate) fn entries(&self) -> Span {
        self.folder("control")
    }

    pub(crate) fn entries_after(&self, index: PolicyVersion) -> Span {
        // The shortest key that is greater than the entry's own.
        Span { from: self.entry(index) + "\0", to: self.entries().to }
    }

    fn folder(&self, name: &str) -> Span {
        // '0' follows '/'.
        Span { from: format!("{}/{name}/", self.prefix), to: format!("{}/{name}0", self.prefix) }
    }
}

/// A number as it is written in keys and values, so that comparing the text compares the numbers.
pub(crate) fn hex(number: u64) -> String {
    format!("{number:016x}")
}

/// The number at the end of a key, or `None` if nobody here wrote that key.
pub(crate) fn number(key: &str) -> Option<u64> {
    let digits = key.rsplit('/').next().filter(|digits| digits.len() == 16)?;
    u64::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_hold_exactly_their_keys() {
        let keys = Keys::below("/nearby/");
        let holds = |span: Span, key: String| (span.from..span.to).contains(&key);
        assert!(holds(keys.nodes(), keys.node(NodeId(0))) && holds(keys.nodes(), keys.node(NodeId(u64::MAX))));
        assert!(holds(keys.entries(), keys.entry(PolicyVersion(7))) && !holds(keys.entries(), keys.control_end()));
        let after = || keys.entries_after(PolicyVersion(7));
        assert!(!holds(after(), keys.entry(PolicyVersion(7))) && holds(after(), keys.entry(PolicyVersion(8))));
        assert!(!holds(keys.entries_after(PolicyVersion(u64::MAX)), keys.entry(PolicyVersion(u64::MAX))));
    }

    #[test]
    fn a_foreign_key_has_no_number() {
        assert_eq!(number(&Keys::below("/n").entry(PolicyVersion(77))), Some(77));
        for foreign in ["/n/control/", "/n/control/note", "/n/control/4d", "/n/control/zzzzzzzzzzzzzzzz"] {
            assert_eq!(number(foreign), None, "{foreign}");
        }
    }
}
