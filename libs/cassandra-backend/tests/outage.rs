//! A node that is killed or stopped: calls end within their deadlines, and all is well again when it is back. A binary
//! of its own, so that its node is not another's.

#![expect(clippy::unwrap_used, reason = "a test panics when something is wrong")]

use std::sync::Arc;
use std::time::Duration;

use cassandra_backend::{CassandraHistory, CassandraOptions, CassandraSession, Migrator, Replication};
use model::{Motion, Position, TimestampMs, UserId};
use ports::{Clock, HistoryPoint, LocationHistory, PortError};
use servers::cassandra::CassandraServer;
use tokio::time::{Instant, sleep, timeout};

/// A request, and the new session that it may try to make.
const DEADLINE: Duration = Duration::from_secs(4);

/// From the node's first answer until ours.
const RECOVERY: Duration = Duration::from_secs(10);

fn point(number: u64) -> HistoryPoint {
    let ts = TimestampMs(Clock::System.wall().0 / 1_000 * 1_000 + number);
    HistoryPoint { user: UserId(7), ts, position: Position::new(40.0, 116.0).unwrap(), motion: Motion::UNKNOWN }
}

/// Appends until it works again, and what it took.
async fn recovers(history: &CassandraHistory, number: u64) -> Duration {
    let start = Instant::now();
    while history.append(&[point(number)]).await.is_err() {
        assert!(start.elapsed() < RECOVERY, "not back after {RECOVERY:?}");
        sleep(Duration::from_millis(50)).await;
    }
    start.elapsed()
}

/// Every call fails, and in time.
async fn fails_in_time(history: &CassandraHistory, calls: u64) {
    for number in 0..calls {
        let outcome = timeout(DEADLINE, history.append(&[point(number)])).await.expect("within the deadline");
        assert!(matches!(outcome, Err(PortError::Unavailable { .. })), "{outcome:?}");
        sleep(Duration::from_millis(300)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_fail_in_time_while_a_node_is_away_and_work_again_when_it_is_back() {
    let server = Arc::new(CassandraServer::start());
    let options = CassandraOptions::new(vec![server.address()], "nearby");
    Migrator::new(options.clone(), Replication::Simple(1)).run().await.unwrap();
    let session = CassandraSession::connect(options.clone(), Clock::System).await.unwrap();
    let history = CassandraHistory::new(session, Duration::from_secs(30 * 86_400)).await.unwrap();
    let acknowledged: Vec<HistoryPoint> = (0..100).map(point).collect();
    history.append(&acknowledged).await.unwrap();

    server.freeze();
    fails_in_time(&history, 3).await;
    let refused = timeout(2 * options.connect_timeout, CassandraSession::connect(options, Clock::System)).await;
    assert!(refused.expect("connecting ends too").is_err());
    server.thaw();
    println!("back {:?} after a stop", recovers(&history, 200).await);

    server.kill();
    // Long enough for the driver's own attempts to become rare.
    fails_in_time(&history, 30).await;
    let restarted = server.clone();
    tokio::task::spawn_blocking(move || restarted.restart()).await.unwrap();
    println!("back {:?} after a restart", recovers(&history, 201).await);

    let kept = history.range(UserId(7), TimestampMs(0), acknowledged[99].ts.after(Duration::from_millis(1)), 1_000);
    let kept = kept.await.unwrap();
    assert!(acknowledged.iter().all(|point| kept.contains(point)), "acknowledged and lost");
}
