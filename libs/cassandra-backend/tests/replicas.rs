//! Three nodes with every row on each: what one of them missed does not come back from it. A binary of its own, so that
//! its nodes are not another's.

#![expect(clippy::unwrap_used, reason = "a test panics when something is wrong")]

use std::sync::Arc;
use std::time::Duration;

use cassandra_backend::{CassandraFriendships, CassandraOptions, CassandraSession, Migrator, Replication};
use model::UserId;
use ports::{Clock, Friendships};
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use scylla::statement::{Consistency, Statement};
use servers::cassandra::CassandraServer;
use tokio::time::{Instant, sleep};

/// Of tombstones, in this test: by default it is ten days.
const GC_GRACE_S: u64 = 1;

/// For a node to be known by the others, on a busy machine.
const KNOWN: Duration = Duration::from_secs(120);

type Servers = Arc<[CassandraServer; 3]>;

async fn blocking<R: Send + 'static>(servers: &Servers, act: impl FnOnce(&[CassandraServer; 3]) -> R + Send + 'static) {
    let servers = servers.clone();
    tokio::task::spawn_blocking(move || drop(act(&servers))).await.unwrap();
}

/// Patient, for a machine that compiles beside.
fn options(servers: &Servers) -> CassandraOptions {
    CassandraOptions {
        connect_timeout: Duration::from_secs(30),
        request_timeout: Duration::from_secs(20),
        ..CassandraOptions::new(servers.iter().map(CassandraServer::address).collect(), "nearby")
    }
}

async fn friendships(servers: &Servers) -> CassandraFriendships {
    let session = CassandraSession::connect(options(servers), Clock::System).await.unwrap();
    CassandraFriendships::new(session).await.unwrap()
}

/// A session that asks all three. Waits until they know each other.
async fn everywhere(servers: &Servers) -> Session {
    let start = Instant::now();
    loop {
        assert!(start.elapsed() < KNOWN, "the nodes do not find each other");
        if let Ok(session) = SessionBuilder::new().known_node(servers[0].address()).build().await
            && session.get_cluster_state().get_nodes_info().len() == 3
            && rows(&session, "SELECT key FROM nearby.everywhere").await != Err(())
        {
            return session;
        }
        sleep(Duration::from_millis(200)).await;
    }
}

/// How many rows all replicas together have; an error if one is missing.
async fn rows(session: &Session, cql: &str) -> Result<usize, ()> {
    let mut statement = Statement::new(cql);
    statement.set_consistency(Consistency::All);
    let answer = session.query_unpaged(statement, ()).await.map_err(drop)?;
    Ok(answer.into_rows_result().map_err(drop)?.rows_num())
}

async fn start() -> Servers {
    let servers: Servers = Arc::new(tokio::task::spawn_blocking(CassandraServer::start_three).await.unwrap());
    let start = Instant::now();
    loop {
        assert!(start.elapsed() < KNOWN, "the nodes do not find each other");
        if let Ok(session) = SessionBuilder::new().known_node(servers[0].address()).build().await
            && session.get_cluster_state().get_nodes_info().len() == 3
        {
            Migrator::new(options(&servers), Replication::Simple(3)).run().await.unwrap();
            for table in ["visible_to", "friendships"] {
                let alter = format!("ALTER TABLE nearby.{table} WITH gc_grace_seconds = {GC_GRACE_S}");
                session.query_unpaged(alter, ()).await.unwrap();
            }
            session.query_unpaged("CREATE TABLE nearby.everywhere (key int PRIMARY KEY)", ()).await.unwrap();
            return servers;
        }
        sleep(Duration::from_millis(200)).await;
    }
}

async fn sees(graph: &CassandraFriendships, viewer: UserId, friend: UserId) -> bool {
    let visible = graph.visible_to(viewer).await.unwrap();
    visible.iter().any(|friendship| friendship.friend == friend)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_missed_the_end_of_a_friendship_never_brings_it_back() {
    let servers = start().await;
    let [ada, grace, gone] = [1, 2, 3].map(UserId);
    let graph = friendships(&servers).await;
    for (user, friend) in [(ada, grace), (gone, ada)] {
        graph.add(user, friend).await.unwrap();
    }
    let all = everywhere(&servers).await;
    for viewer in [ada, grace, gone] {
        assert!(
            rows(&all, &format!("SELECT friend FROM nearby.visible_to WHERE viewer = {viewer}")).await.unwrap() > 0
        );
    }

    blocking(&servers, |servers| servers[2].kill()).await;
    let graph = friendships(&servers).await;
    graph.remove(ada, grace).await.unwrap();
    graph.forget(gone).await.unwrap();
    sleep(Duration::from_secs(GC_GRACE_S + 2)).await;
    blocking(&servers, |servers| servers[2].restart()).await;
    drop(everywhere(&servers).await);

    // A quorum of one that has the end and the one that missed it.
    blocking(&servers, |servers| servers[0].kill()).await;
    let graph = friendships(&servers).await;
    for (viewer, friend) in [(ada, grace), (grace, ada), (ada, gone), (gone, ada)] {
        assert!(!sees(&graph, viewer, friend).await, "{friend} came back for {viewer}");
    }
    blocking(&servers, |servers| servers[0].restart()).await;

    // With all replicas there, what really has to go goes.
    let all = everywhere(&servers).await;
    let graph = friendships(&servers).await;
    graph.forget(gone).await.unwrap();
    let left = format!("SELECT viewer FROM nearby.visible_to WHERE viewer = {gone}");
    assert_eq!(rows(&all, &left).await, Ok(0));
    let left = format!("SELECT low FROM nearby.friendships WHERE low = {ada} AND high = {gone}");
    assert_eq!(rows(&all, &left).await, Ok(0));
    assert!(!sees(&graph, ada, gone).await && !sees(&graph, ada, grace).await);
}
