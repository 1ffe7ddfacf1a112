//! One node's connections to the database.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::RwLock;
use ports::{Clock, PortError};
use scylla::client::execution_profile::ExecutionProfile;
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use scylla::deserialize::row::DeserializeRow;
use scylla::errors::{ExecutionError, RequestAttemptError};
use scylla::policies::load_balancing::DefaultPolicy;
use scylla::policies::speculative_execution::SimpleSpeculativeExecutionPolicy;
use scylla::response::PagingState;
use scylla::response::query_result::QueryResult;
use scylla::serialize::row::SerializeRow;
use scylla::statement::batch::Batch;
use scylla::statement::prepared::PreparedStatement;
use scylla::statement::{Consistency, SerialConsistency, Statement};
use scylla::value::{CqlValue, Row};
use tokio::time::timeout;

use crate::error::{cannot_connect, cannot_prepare, damaged, failed, unavailable};
use crate::migrate;
use crate::options::CassandraOptions;

/// A node that says nothing is asked, and given up after as long again: the driver's own 30 s and 30 s would leave a
/// stopped node in use for a minute.
const KEEPALIVE: Duration = Duration::from_secs(2);

/// After so long without a connection a new session is tried: the driver's pools wait up to 10 s between their own
/// attempts, a new session connects in a tenth of a second.
const STAYS_BROKEN_MS: u64 = 1_000;

/// At most one new session is tried in this time, and it has this time to connect.
const REBUILD_EVERY_MS: u64 = 1_000;

/// Rows to a page, where a partition's size is bounded.
const PAGE_ROWS: i32 = 10_000;

/// How a statement may be treated.
#[derive(Clone, Copy)]
pub(crate) enum Kind {
    /// Reads, and writes that bring their own timestamp: may be sent again, also to a second node.
    Repeatable,
    /// A lightweight transaction: sent once.
    Conditional,
    /// A read that first finishes what lightweight transactions have begun.
    Serial,
    /// As `Repeatable`; fails unless every replica of every datacenter has taken it. It may have been taken by some.
    RepeatableEverywhere,
    /// As `Conditional`; fails unless every replica of every datacenter has the outcome. It may have taken place.
    ConditionalEverywhere,
}

/// Connections to all nodes of the database. Statements prepared by it stay good when it connects anew.
pub struct CassandraSession {
    options: CassandraOptions,
    clock: Clock,
    current: RwLock<Arc<Session>>,
    /// By the steady clock; 0 while there are connections.
    broken_since_ms: AtomicU64,
    next_rebuild_ms: AtomicU64,
}

impl CassandraSession {
    /// Connects to a keyspace that [`crate::Migrator`] has made; refused if it has not, or a newer one has.
    pub async fn connect(options: CassandraOptions, clock: Clock) -> Result<Arc<CassandraSession>, PortError> {
        options.check()?;
        let session = open(&options, Some(&options.keyspace)).await?;
        migrate::check(&session, &options.keyspace).await?;
        Ok(Arc::new(CassandraSession {
            options,
            clock,
            current: RwLock::new(Arc::new(session)),
            broken_since_ms: AtomicU64::new(0),
            next_rebuild_ms: AtomicU64::new(0),
        }))
    }

    /// Whose times are the timestamps of writes.
    pub(crate) fn clock(&self) -> Clock {
        self.clock
    }

    pub(crate) async fn prepare(&self, cql: &str, kind: Kind) -> Result<PreparedStatement, PortError> {
        let mut statement = Statement::new(cql).with_page_size(PAGE_ROWS);
        statement.set_is_idempotent(!matches!(kind, Kind::Conditional | Kind::ConditionalEverywhere));
        match kind {
            Kind::Serial => statement.set_consistency(Consistency::LocalSerial),
            Kind::RepeatableEverywhere | Kind::ConditionalEverywhere => statement.set_consistency(Consistency::All),
            Kind::Repeatable | Kind::Conditional => {}
        }
        let session = self.current.read().clone();
        let prepared = timeout(self.options.connect_timeout, session.prepare(statement)).await;
        prepared.map_err(|_| unavailable("no answer to a prepare"))?.map_err(cannot_prepare)
    }

    /// For what returns nothing.
    pub(crate) async fn run(&self, statement: &PreparedStatement, values: impl SerializeRow) -> Result<(), PortError> {
        self.execute(statement, values).await.map(drop)
    }

    /// All rows of a read whose size is bounded.
    pub(crate) async fn rows<R>(
        &self,
        statement: &PreparedStatement,
        values: impl SerializeRow,
    ) -> Result<Vec<R>, PortError>
    where
        R: for<'row> DeserializeRow<'row, 'row>,
    {
        let rows = self.execute(statement, values).await?.into_rows_result().map_err(|_| damaged("row"))?;
        let rows = rows.rows::<R>().map_err(|_| damaged("row"))?;
        rows.map(|row| row.map_err(|_| damaged("row"))).collect()
    }

    /// Gives the rows of a read to `each`, a page at a time, until it breaks.
    pub(crate) async fn scan<R>(
        &self,
        statement: &PreparedStatement,
        values: impl SerializeRow,
        mut each: impl FnMut(R) -> Result<ControlFlow<()>, PortError>,
    ) -> Result<(), PortError>
    where
        R: for<'row> DeserializeRow<'row, 'row>,
    {
        let mut page = PagingState::start();
        loop {
            let session = self.current.read().clone();
            let (rows, next) = self.judge(session.execute_single_page(statement, &values, page).await).await?;
            let rows = rows.into_rows_result().map_err(|_| damaged("row"))?;
            for row in rows.rows::<R>().map_err(|_| damaged("row"))? {
                if each(row.map_err(|_| damaged("row"))?)?.is_break() {
                    return Ok(());
                }
            }
            match next.into_paging_control_flow() {
                ControlFlow::Break(()) => return Ok(()),
                ControlFlow::Continue(next) => page = next,
            }
        }
    }

    /// Whether a lightweight transaction took place. After an error it may have.
    pub(crate) async fn applied(
        &self,
        statement: &PreparedStatement,
        values: impl SerializeRow,
    ) -> Result<bool, PortError> {
        is_applied(self.execute(statement, values).await?)
    }

    /// A batch; all of it must be of one partition.
    pub(crate) async fn batch<Values: SerializeRow>(
        &self,
        batch: &Batch,
        values: Vec<Values>,
    ) -> Result<(), PortError> {
        let session = self.current.read().clone();
        self.judge(session.batch(batch, values).await).await.map(drop)
    }

    async fn execute(
        &self,
        statement: &PreparedStatement,
        values: impl SerializeRow,
    ) -> Result<QueryResult, PortError> {
        let session = self.current.read().clone();
        self.judge(session.execute_unpaged(statement, values).await).await
    }

    async fn judge<Answer>(&self, answer: Result<Answer, ExecutionError>) -> Result<Answer, PortError> {
        match &answer {
            Err(error) if is_without_connection(error) => self.reconnect_if_it_stays_so().await,
            // A timeout says nothing about connections.
            Err(ExecutionError::RequestTimeout(_)) => {}
            _ => self.broken_since_ms.store(0, Ordering::Relaxed),
        }
        answer.map_err(failed)
    }

    /// The caller who finds the pool broken for too long pays for the new session; its own call has failed already.
    async fn reconnect_if_it_stays_so(&self) {
        let now = self.clock.monotonic().0.max(1);
        let since = self.broken_since_ms.compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed);
        let broken_for = now.saturating_sub(since.err().unwrap_or(now));
        let next = self.next_rebuild_ms.load(Ordering::Relaxed);
        if broken_for < STAYS_BROKEN_MS || now < next {
            return;
        }
        let then = now + REBUILD_EVERY_MS;
        if self.next_rebuild_ms.compare_exchange(next, then, Ordering::Relaxed, Ordering::Relaxed).is_err() {
            return;
        }
        let patience = Duration::from_millis(REBUILD_EVERY_MS);
        if let Ok(Ok(session)) = timeout(patience, open(&self.options, Some(&self.options.keyspace))).await {
            tracing::info!("connected to cassandra anew");
            *self.current.write() = Arc::new(session);
            self.broken_since_ms.store(0, Ordering::Relaxed);
        }
    }
}

/// Connects; in the keyspace, if it is there already. Building a session waits for a stopped node without end, so it is
/// given a deadline.
pub(crate) async fn open(options: &CassandraOptions, keyspace: Option<&str>) -> Result<Session, PortError> {
    let mut balancing = DefaultPolicy::builder().token_aware(true).permit_dc_failover(false);
    if let Some(datacenter) = &options.datacenter {
        balancing = balancing.prefer_datacenter(datacenter.clone());
    }
    let speculation = SimpleSpeculativeExecutionPolicy { max_retry_count: 1, retry_interval: options.speculate_after };
    let profile = ExecutionProfile::builder()
        .consistency(Consistency::LocalQuorum)
        .serial_consistency(Some(SerialConsistency::LocalSerial))
        .request_timeout(Some(options.request_timeout))
        .speculative_execution_policy(Some(Arc::new(speculation)))
        .load_balancing_policy(balancing.build())
        .build();
    let mut builder = SessionBuilder::new()
        .known_nodes(&options.contact_points)
        .default_execution_profile_handle(profile.into_handle())
        .connection_timeout(options.connect_timeout)
        .keepalive_interval(KEEPALIVE)
        .keepalive_timeout(KEEPALIVE)
        .schema_agreement_timeout(options.schema_timeout);
    if let Some((user, password)) = &options.credentials {
        builder = builder.user(user, password);
    }
    if let Some(keyspace) = keyspace {
        builder = builder.use_keyspace(keyspace, false);
    }
    let built = timeout(options.connect_timeout, builder.build()).await;
    built.map_err(|_| unavailable("no answer while connecting"))?.map_err(cannot_connect)
}

/// The first column of what a lightweight transaction answers.
pub(crate) fn is_applied(answer: QueryResult) -> Result<bool, PortError> {
    let rows = answer.into_rows_result().map_err(|_| damaged("row"))?;
    let row = rows.first_row::<Row>().map_err(|_| damaged("row"))?;
    match row.columns.first() {
        Some(Some(CqlValue::Boolean(applied))) => Ok(*applied),
        _ => Err(damaged("answer")),
    }
}

fn is_without_connection(error: &ExecutionError) -> bool {
    matches!(
        error,
        ExecutionError::ConnectionPoolError(_)
            | ExecutionError::EmptyPlan
            | ExecutionError::LastAttemptError(RequestAttemptError::BrokenConnectionError(_))
    )
}
