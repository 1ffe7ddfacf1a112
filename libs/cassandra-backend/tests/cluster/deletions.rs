//! Users whose deletion has begun are found again, in partitions that stay small.

use cassandra_backend::CassandraUsers;
use model::UserId;
use ports::Users;
use ports::conformance::fresh_user;

use super::keyspace::Keyspace;

#[tokio::test]
async fn deletions_are_listed_in_many_partitions_and_without_transactions() {
    let keyspace = Keyspace::new().await;
    let users = CassandraUsers::new(keyspace.session().await).await.unwrap();
    let ids: Vec<UserId> = (0..40).map(|_| fresh_user()).collect();
    for id in &ids {
        users.put(*id, "somebody").await.unwrap();
        assert!(users.begin_delete(*id).await.unwrap() && users.begin_delete(*id).await.unwrap(), "twice");
    }
    let buckets = keyspace.rows::<(i16,)>("SELECT DISTINCT bucket FROM users_being_deleted").await.len();
    assert!(buckets > 10, "40 users in {buckets} partitions");
    let mut deleting = users.deleting().await.unwrap();
    deleting.retain(|id| ids.contains(id));
    assert_eq!(deleting, ids);
    assert_eq!(keyspace.transactions("users_being_deleted").await, 0);
    assert!(keyspace.transactions("users").await >= 40, "of which there are some for what needs them");
    for id in &ids {
        users.finish_delete(*id).await.unwrap();
    }
    assert_eq!(keyspace.rows::<(i16,)>("SELECT bucket FROM users_being_deleted").await, [], "nothing stays listed");
}
