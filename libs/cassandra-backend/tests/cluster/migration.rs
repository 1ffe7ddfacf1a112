//! The schema is made once, whoever asks and however many at a time.

use cassandra_backend::{CassandraSession, Migrator, Replication};
use ports::conformance::fresh_user;
use ports::{Clock, PortError};
use tokio::task::JoinSet;

use super::options;

#[tokio::test]
async fn runs_at_the_same_time_apply_each_migration_once_and_later_ones_nothing() {
    let keyspace = format!("k{}", fresh_user().0);
    let refusal = match CassandraSession::connect(options(&keyspace), Clock::System).await {
        Err(refusal) => refusal,
        Ok(_) => panic!("connected to nothing"),
    };
    assert!(matches!(refusal, PortError::Refused { .. }), "{refusal}");

    let mut runs = JoinSet::new();
    for _ in 0..4 {
        let migrator = Migrator::new(options(&keyspace), Replication::Simple(1));
        runs.spawn(async move { migrator.run().await.unwrap() });
    }
    let mut applied: Vec<&str> = runs.join_all().await.into_iter().flat_map(|run| run.applied).collect();
    applied.sort();
    assert_eq!(applied, ["0001_history", "0002_users", "0003_friendships"]);

    let again = Migrator::new(options(&keyspace), Replication::Simple(1)).run().await.unwrap();
    assert_eq!((again.created_keyspace, again.applied.len(), again.present), (false, 0, 3));
    CassandraSession::connect(options(&keyspace), Clock::System).await.unwrap();
}
