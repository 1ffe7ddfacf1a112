//! How to reach the database.

use std::time::Duration;

use ports::PortError;

use crate::error::refused;

/// Where the database is and how long it may take.
#[derive(Clone)]
pub struct CassandraOptions {
    /// Some of the nodes, `host:port`; the others are found through them.
    pub contact_points: Vec<String>,
    /// The keyspace: lower case letters, digits and `_`.
    pub keyspace: String,
    /// The datacenter that is local. None where there is only one.
    pub datacenter: Option<String>,
    /// User and password, where the database asks for them.
    pub credentials: Option<(String, String)>,
    /// How long connecting may take in all.
    pub connect_timeout: Duration,
    /// How long one request may take in all.
    pub request_timeout: Duration,
    /// When a silent node's request is given to another one as well.
    pub speculate_after: Duration,
    /// How long one change of the schema may take.
    pub schema_timeout: Duration,
}

impl CassandraOptions {
    /// With times that suit a database in the same datacenter.
    pub fn new(contact_points: Vec<String>, keyspace: &str) -> CassandraOptions {
        CassandraOptions {
            contact_points,
            keyspace: keyspace.to_owned(),
            datacenter: None,
            credentials: None,
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(2),
            speculate_after: Duration::from_millis(150),
            schema_timeout: Duration::from_secs(30),
        }
    }

    /// Keyspaces are named in text, not in bound values, so their names are held to what needs no quotes.
    pub(crate) fn check(&self) -> Result<(), PortError> {
        let name = &self.keyspace;
        let plain = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
        if plain && name.starts_with(|first: char| first.is_ascii_lowercase()) && name.len() <= 48 {
            return Ok(());
        }
        Err(refused(format!("{name:?} is no keyspace: 1 to 48 lower case letters, digits and _, a letter first")))
    }
}

/// How many nodes hold each row of a keyspace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Replication {
    /// So many, wherever they are: for tests and trials.
    Simple(u8),
    /// So many in each named datacenter.
    Datacenters(Vec<(String, u8)>),
}

impl Replication {
    pub(crate) fn cql(&self) -> Result<String, PortError> {
        let datacenters = match self {
            Replication::Simple(copies) => {
                return Ok(format!("{{'class': 'SimpleStrategy', 'replication_factor': {copies}}}"));
            }
            Replication::Datacenters(datacenters) => datacenters,
        };
        let mut text = "{'class': 'NetworkTopologyStrategy'".to_owned();
        for (name, copies) in datacenters {
            if name.is_empty() || name.contains(['\'', '\\']) {
                return Err(refused(format!("{name:?} is no name of a datacenter")));
            }
            text += &format!(", '{name}': {copies}");
        }
        Ok(text + "}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_needs_quotes_is_refused() {
        for (name, good) in [("nearby", true), ("nearby_2", true), ("", false), ("2nearby", false), ("a;b", false)] {
            assert_eq!(CassandraOptions::new(vec![], name).check().is_ok(), good, "{name}");
        }
        let quoted = Replication::Datacenters(vec![("a'b".to_owned(), 3)]);
        assert!(!quoted.cql().unwrap_err().is_transient());
    }

    #[test]
    fn replication_is_written_as_the_database_reads_it() {
        let two = Replication::Datacenters(vec![("east".to_owned(), 3), ("west".to_owned(), 2)]);
        assert_eq!(two.cql().unwrap(), "{'class': 'NetworkTopologyStrategy', 'east': 3, 'west': 2}");
        assert_eq!(Replication::Simple(1).cql().unwrap(), "{'class': 'SimpleStrategy', 'replication_factor': 1}");
    }
}
