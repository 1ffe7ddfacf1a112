//! A keyspace that one test has to itself, and what it looks like from behind the backends.

use std::sync::Arc;
use std::time::Duration;

use cassandra_backend::{CassandraFriendships, CassandraSession, FriendshipLimits, Migrator, Replication};
use model::UserId;
use ports::friendships::Friendship;
use ports::{Clock, Friendships};
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use scylla::deserialize::row::DeserializeRow;
use scylla::value::Row;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

use super::{options, server};

/// Empty at first. One test at a time: a keyspace for each would be more tables than a small node bears.
pub(crate) struct Keyspace {
    behind: Session,
    _alone: SemaphorePermit<'static>,
}

const NAME: &str = "alone";

const TABLES: [&str; 5] =
    ["friendships", "visible_to", "friendship_changes", "friendship_sweeps", "users_being_deleted"];

impl Keyspace {
    pub(crate) async fn new() -> Keyspace {
        static ALONE: Semaphore = Semaphore::const_new(1);
        let alone = ALONE.acquire().await.unwrap();
        Migrator::new(options(NAME), Replication::Simple(1)).run().await.unwrap();
        let behind = SessionBuilder::new().known_node(server().address()).use_keyspace(NAME, false).build().await;
        let keyspace = Keyspace { behind: behind.unwrap(), _alone: alone };
        for table in TABLES {
            keyspace.run(&format!("TRUNCATE {table}")).await;
        }
        keyspace
    }

    /// A process whose clock is right.
    pub(crate) async fn session(&self) -> Arc<CassandraSession> {
        self.session_at(Clock::System).await
    }

    async fn session_at(&self, clock: Clock) -> Arc<CassandraSession> {
        CassandraSession::connect(options(NAME), clock).await.unwrap()
    }

    pub(crate) async fn friendships(&self) -> CassandraFriendships {
        CassandraFriendships::new(self.session().await).await.unwrap()
    }

    pub(crate) async fn friendships_with(&self, limits: FriendshipLimits) -> CassandraFriendships {
        CassandraFriendships::with_limits(self.session().await, limits).await.unwrap()
    }

    /// What a process wrote so long ago: its clock says that it is then.
    pub(crate) async fn friendships_before(&self, age: Duration) -> CassandraFriendships {
        let clock = Clock::Virtual { start: Instant::now(), epoch: Clock::System.wall().before(age) };
        CassandraFriendships::new(self.session_at(clock).await).await.unwrap()
    }

    /// Runs one statement.
    pub(crate) async fn run(&self, statement: &str) {
        self.behind.query_unpaged(statement, ()).await.unwrap();
    }

    /// What one statement reads.
    pub(crate) async fn rows<R>(&self, statement: &str) -> Vec<R>
    where
        R: for<'row> DeserializeRow<'row, 'row>,
    {
        let rows = self.behind.query_unpaged(statement, ()).await.unwrap().into_rows_result().unwrap();
        rows.rows::<R>().unwrap().map(Result::unwrap).collect()
    }

    /// Whether a lightweight transaction took place.
    pub(crate) async fn applies(&self, statement: &str) -> bool {
        let rows = self.behind.query_unpaged(statement, ()).await.unwrap().into_rows_result().unwrap();
        rows.first_row::<Row>().unwrap().columns[0].as_ref().unwrap().as_boolean().unwrap()
    }

    /// Rows of a table on which a lightweight transaction was made.
    pub(crate) async fn transactions(&self, table: &str) -> i64 {
        let table =
            format!("SELECT id FROM system_schema.tables WHERE keyspace_name = '{NAME}' AND table_name = '{table}'");
        let id = self.rows::<Row>(&table).await[0].columns[0].as_ref().unwrap().as_uuid().unwrap();
        self.rows::<(i64,)>(&format!("SELECT COUNT(*) FROM system.paxos WHERE cf_id = {id} ALLOW FILTERING")).await[0].0
    }

    /// Partitions of a table that the node has read so far.
    pub(crate) async fn partitions_read(&self, table: &str) -> i64 {
        let statement = format!(
            "SELECT count FROM system_views.local_read_latency \
             WHERE keyspace_name = '{NAME}' AND table_name = '{table}' ALLOW FILTERING"
        );
        self.rows::<(i64,)>(&statement).await[0].0
    }
}

pub(crate) async fn sees(graph: &impl Friendships, viewer: UserId, friend: UserId) -> bool {
    let visible = graph.visible_to(viewer).await.unwrap();
    visible.iter().any(|&Friendship { friend: seen, .. }| seen == friend)
}
