//! The schema: numbered files, each applied once.

use std::time::Duration;

use ports::PortError;
use scylla::client::session::Session;
use scylla::serialize::row::SerializeRow;
use scylla::statement::{Consistency, Statement};
use tokio::time::{Instant, sleep};

use crate::error::{cannot_use, damaged, failed, refused, unavailable};
use crate::options::{CassandraOptions, Replication};
use crate::session::{is_applied, open};

/// What a version is called, and the file it is.
struct Migration {
    version: i32,
    name: &'static str,
    cql: &'static str,
}

/// The files of `schema/cassandra`, in their order. One that was released is never changed.
const MIGRATIONS: [Migration; 3] = [
    Migration { version: 1, name: "0001_history", cql: include_str!("../../../schema/cassandra/0001_history.cql") },
    Migration { version: 2, name: "0002_users", cql: include_str!("../../../schema/cassandra/0002_users.cql") },
    Migration {
        version: 3,
        name: "0003_friendships",
        cql: include_str!("../../../schema/cassandra/0003_friendships.cql"),
    },
];

const LEDGER: &str = "CREATE TABLE IF NOT EXISTS schema_versions \
     (part tinyint, version int, name text, applied_at timestamp, PRIMARY KEY (part, version))";
const LOCK: &str = "CREATE TABLE IF NOT EXISTS schema_lock (name text PRIMARY KEY, owner bigint)";

/// Seconds that the lock outlives its owner's last sign of life; a change of the schema takes less.
const LOCK_TTL_S: i32 = 60;

/// How long another migration is waited for.
const LOCK_PATIENCE: Duration = Duration::from_secs(90);

const LOCK_POLL: Duration = Duration::from_millis(200);

/// How long it is waited for what is listed and cannot be used yet.
const PREPARE_PATIENCE: Duration = Duration::from_secs(10);

/// Brings a keyspace to the newest schema.
///
/// Any number may run at the same time: one has the lock, the others wait and find nothing left to do. Only the
/// keyspace and the two tables that the lock needs are made without it, each only if it is absent.
pub struct Migrator {
    options: CassandraOptions,
    replication: Replication,
}

/// What a run did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Migrated {
    /// There was no such keyspace.
    pub created_keyspace: bool,
    /// The migrations that were missing and are there now.
    pub applied: Vec<&'static str>,
    /// How many were there before.
    pub present: usize,
}

impl Migrator {
    /// The replication counts only for a keyspace that does not exist yet.
    pub fn new(options: CassandraOptions, replication: Replication) -> Migrator {
        // Every request here may be a change of the schema, or wait for one.
        let options = CassandraOptions { request_timeout: options.schema_timeout, ..options };
        Migrator { options, replication }
    }

    /// Applies what is missing. May be repeated, also after a failure half way.
    pub async fn run(&self) -> Result<Migrated, PortError> {
        self.options.check()?;
        let session = open(&self.options, None).await?;
        let created_keyspace = self.prepare(&session).await?;
        let owner = rand::random();
        lock(&session, owner).await?;
        let outcome = apply_missing(&session, owner).await;
        // If this fails, the lock expires.
        let released =
            condition(&session, "UPDATE schema_lock SET owner = null WHERE name = 'schema' IF owner = ?", (owner,));
        let _ = released.await;
        let applied = outcome?;
        Ok(Migrated { created_keyspace, present: MIGRATIONS.len() - applied.len(), applied })
    }

    /// Makes what the lock needs, and says whether that began with the keyspace. What another run is making at this
    /// moment is listed before it can be used; until then the server refuses it, or fails.
    async fn prepare(&self, session: &Session) -> Result<bool, PortError> {
        let (mut created, start) = (false, Instant::now());
        loop {
            created |= self.ensure_keyspace(session).await?;
            match self.ensure_tables(session).await {
                Err(_) if start.elapsed() < PREPARE_PATIENCE => sleep(LOCK_POLL).await,
                outcome => return outcome.map(|()| created),
            }
        }
    }

    async fn ensure_tables(&self, session: &Session) -> Result<(), PortError> {
        session.use_keyspace(&self.options.keyspace, false).await.map_err(|error| cannot_use(&error))?;
        for (table, cql) in [("schema_versions", LEDGER), ("schema_lock", LOCK)] {
            if !self.has_table(session, table).await? {
                run(session, cql, ()).await?;
            }
            session.await_schema_agreement().await.map_err(unavailable)?;
            run(session, &format!("SELECT * FROM {table} LIMIT 1"), ()).await?;
        }
        Ok(())
    }

    async fn ensure_keyspace(&self, session: &Session) -> Result<bool, PortError> {
        let name = &self.options.keyspace;
        let known = "SELECT keyspace_name FROM system_schema.keyspaces WHERE keyspace_name = ?";
        if !is_empty(session, known, (name,)).await? {
            return Ok(false);
        }
        let replication = self.replication.cql()?;
        run(session, &format!("CREATE KEYSPACE IF NOT EXISTS {name} WITH replication = {replication}"), ()).await?;
        Ok(true)
    }

    async fn has_table(&self, session: &Session, table: &str) -> Result<bool, PortError> {
        let known = "SELECT table_name FROM system_schema.tables WHERE keyspace_name = ? AND table_name = ?";
        Ok(!is_empty(session, known, (&self.options.keyspace, table)).await?)
    }
}

/// Whether a keyspace has the schema that this program knows.
pub(crate) async fn check(session: &Session, keyspace: &str) -> Result<(), PortError> {
    let newest = MIGRATIONS[MIGRATIONS.len() - 1].version;
    let known =
        "SELECT table_name FROM system_schema.tables WHERE keyspace_name = ? AND table_name = 'schema_versions'";
    let version = if is_empty(session, known, (keyspace,)).await? { 0 } else { last_version(session).await? };
    match version {
        version if version == newest => Ok(()),
        version if version > newest => Err(refused(format!(
            "keyspace {keyspace} was migrated by a newer version (schema {version}, this one knows {newest})"
        ))),
        version => Err(refused(format!("keyspace {keyspace} has schema {version} and needs {newest}: migrate it"))),
    }
}

async fn last_version(session: &Session) -> Result<i32, PortError> {
    Ok(versions(session).await?.into_iter().max().unwrap_or(0))
}

async fn versions(session: &Session) -> Result<Vec<i32>, PortError> {
    let mut statement = Statement::new("SELECT version FROM schema_versions WHERE part = 0");
    // Also what a migration that was killed had begun to record.
    statement.set_consistency(Consistency::LocalSerial);
    let answer = session.query_unpaged(statement, ()).await.map_err(failed)?;
    let rows = answer.into_rows_result().map_err(|_| damaged("version"))?;
    let rows = rows.rows::<(i32,)>().map_err(|_| damaged("version"))?;
    rows.map(|row| row.map(|(version,)| version).map_err(|_| damaged("version"))).collect()
}

async fn apply_missing(session: &Session, owner: i64) -> Result<Vec<&'static str>, PortError> {
    let there = versions(session).await?;
    let mut applied = Vec::new();
    for migration in MIGRATIONS.iter().filter(|migration| !there.contains(&migration.version)) {
        for statement in statements(migration.cql) {
            keep_lock(session, owner).await?;
            run(session, &statement, ()).await?;
        }
        let record = "INSERT INTO schema_versions (part, version, name, applied_at) \
             VALUES (0, ?, ?, toTimestamp(now())) IF NOT EXISTS";
        condition(session, record, (migration.version, migration.name)).await?;
        applied.push(migration.name);
    }
    Ok(applied)
}

async fn lock(session: &Session, owner: i64) -> Result<(), PortError> {
    let take = format!("UPDATE schema_lock USING TTL {LOCK_TTL_S} SET owner = ? WHERE name = 'schema' IF owner = null");
    let mut waited = Duration::ZERO;
    while !condition(session, &take, (owner,)).await? {
        if waited > LOCK_PATIENCE {
            return Err(unavailable("another migration holds the schema's lock"));
        }
        sleep(LOCK_POLL).await;
        waited += LOCK_POLL;
    }
    Ok(())
}

async fn keep_lock(session: &Session, owner: i64) -> Result<(), PortError> {
    let keep = format!("UPDATE schema_lock USING TTL {LOCK_TTL_S} SET owner = ? WHERE name = 'schema' IF owner = ?");
    if condition(session, &keep, (owner, owner)).await? {
        return Ok(());
    }
    Err(unavailable("the schema's lock was lost to another migration"))
}

async fn run(session: &Session, cql: &str, values: impl SerializeRow) -> Result<(), PortError> {
    session.query_unpaged(cql, values).await.map(drop).map_err(failed)
}

async fn condition(session: &Session, cql: &str, values: impl SerializeRow) -> Result<bool, PortError> {
    is_applied(session.query_unpaged(cql, values).await.map_err(failed)?)
}

async fn is_empty(session: &Session, cql: &str, values: impl SerializeRow) -> Result<bool, PortError> {
    let answer = session.query_unpaged(cql, values).await.map_err(failed)?;
    Ok(answer.into_rows_result().map_err(|_| damaged("row"))?.rows_num() == 0)
}

/// The statements of a file, without comments.
fn statements(cql: &str) -> Vec<String> {
    let lines = cql.lines().filter(|line| !line.trim_start().starts_with("--"));
    let text = lines.collect::<Vec<&str>>().join("\n");
    text.split(';').map(str::trim).filter(|statement| !statement.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_ascend_and_are_in_their_names() {
        for (index, migration) in MIGRATIONS.iter().enumerate() {
            assert_eq!(migration.version as usize, index + 1);
            assert!(migration.name.starts_with(&format!("{:04}_", migration.version)));
        }
    }

    #[test]
    fn every_statement_may_be_repeated_and_has_no_comment_left() {
        for migration in &MIGRATIONS {
            let statements = statements(migration.cql);
            assert!(!statements.is_empty());
            for statement in statements {
                assert!(statement.starts_with("CREATE TABLE IF NOT EXISTS"), "{statement}");
                assert!(!statement.contains("--"), "{statement}");
            }
        }
    }
}
