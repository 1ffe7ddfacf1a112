//! The backends on a real node, which all tests of this binary share.

#![expect(clippy::unwrap_used, reason = "a test panics when something is wrong")]

mod deletions;
mod ended;
mod keyspace;
mod migration;
mod notes;
mod replay;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use cassandra_backend::{
    CassandraFriendships, CassandraHistory, CassandraOptions, CassandraSession, CassandraUsers, Migrator, Replication,
};
use ports::conformance::Harness;
use ports::{Clock, Friendships, LocationHistory, Users};
use servers::cassandra::CassandraServer;
use tokio::sync::OnceCell;

/// Of the history under test.
const RETENTION: Duration = Duration::from_secs(30 * 86_400);

fn server() -> &'static CassandraServer {
    static SERVER: OnceLock<CassandraServer> = OnceLock::new();
    SERVER.get_or_init(CassandraServer::start)
}

/// Patient, for a machine that compiles beside.
fn options(keyspace: &str) -> CassandraOptions {
    CassandraOptions {
        connect_timeout: Duration::from_secs(30),
        request_timeout: Duration::from_secs(20),
        ..CassandraOptions::new(vec![server().address()], keyspace)
    }
}

/// A connection to the migrated keyspace. It lives on the runtime of the test that asks.
async fn session() -> Arc<CassandraSession> {
    static MIGRATED: OnceCell<()> = OnceCell::const_new();
    let migrate = || async {
        let migrated = Migrator::new(options("nearby"), Replication::Simple(1)).run().await;
        assert!(migrated.unwrap().created_keyspace);
    };
    MIGRATED.get_or_init(migrate).await;
    CassandraSession::connect(options("nearby"), Clock::System).await.unwrap()
}

async fn history() -> CassandraHistory {
    CassandraHistory::new(session().await, RETENTION).await.unwrap()
}

async fn friendships() -> CassandraFriendships {
    CassandraFriendships::new(session().await).await.unwrap()
}

mod history_contract {
    use super::*;

    struct Past;

    #[async_trait]
    impl Harness for Past {
        type Node = Arc<dyn LocationHistory>;

        async fn node(&self) -> Arc<dyn LocationHistory> {
            Arc::new(history().await)
        }
    }

    ports::history_conformance!([tokio::test] Past);
}

mod users_contract {
    use super::*;

    struct Directory;

    #[async_trait]
    impl Harness for Directory {
        type Node = Arc<dyn Users>;

        async fn node(&self) -> Arc<dyn Users> {
            Arc::new(CassandraUsers::new(session().await).await.unwrap())
        }
    }

    ports::users_conformance!([tokio::test] Directory);
}

mod friendships_contract {
    use super::*;

    struct Graph;

    #[async_trait]
    impl Harness for Graph {
        type Node = Arc<dyn Friendships>;

        async fn node(&self) -> Arc<dyn Friendships> {
            Arc::new(friendships().await)
        }
    }

    ports::friendships_conformance!([tokio::test] Graph);
}
