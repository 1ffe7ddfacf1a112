//! A node that is killed or stopped: calls end within their deadlines, and all is well again when it is back. A binary
//! of its own, so that its node is not another's.

#![expect(clippy::unwrap_used, reason = "a test panics when something is wrong")]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cassandra_backend::{
    CassandraHistory, CassandraOptions, CassandraSession, Migrator, Replication, SpoolSettings, SpooledHistory,
};
use model::{Motion, Position, TimestampMs, UserId};
use ports::embedded::{FjallHistory, Store};
use ports::{Clock, HistoryPoint, LocationHistory, PortError};
use servers::cassandra::CassandraServer;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

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

async fn open_spool(behind: &Arc<CassandraHistory>, directory: &Path, most: usize) -> SpooledHistory {
    let settings = SpoolSettings { directory: directory.to_owned(), max_points: most, replay_per_second: 20_000 };
    let open = |directory: &Path| {
        let history: Arc<dyn LocationHistory> = Arc::new(FjallHistory::new(Store::open(directory)?));
        Ok(history)
    };
    SpooledHistory::open(behind.clone(), settings, Arc::new(open)).await.unwrap()
}

/// Points of a user that only the spool was given.
const SPOOLED: UserId = UserId(8);

async fn spools_while_it_is_away(behind: &Arc<CassandraHistory>, directory: &Path) -> Vec<HistoryPoint> {
    let spooled: Vec<HistoryPoint> = (0..2_000).map(|n| HistoryPoint { user: SPOOLED, ..point(n) }).collect();
    let history = open_spool(behind, directory, spooled.len()).await;
    for points in spooled.chunks(100) {
        timeout(DEADLINE, history.append(points)).await.expect("in time").unwrap();
    }
    assert_eq!(history.backlog(), spooled.len());
    let full = history.append(&spooled[..1]).await.unwrap_err();
    assert!(full.is_transient(), "bounded: {full}");
    spooled
}

/// By another process than the one that spooled.
async fn replays(behind: &Arc<CassandraHistory>, directory: &Path, spooled: Vec<HistoryPoint>) -> Duration {
    let history = Arc::new(open_spool(behind, directory, 10_000).await);
    assert_eq!(history.backlog(), spooled.len(), "all that was acknowledged is on disk");
    let everything = async |history: &dyn LocationHistory| {
        history.range(SPOOLED, TimestampMs(0), TimestampMs(u64::MAX), 10_000).await.unwrap()
    };
    assert_eq!(everything(&*history).await, spooled, "read through its own node");
    assert_eq!(everything(&**behind).await, []);

    let (stop, start, runner) = (CancellationToken::new(), Instant::now(), history.clone());
    let mut running = JoinSet::new();
    let stopped = stop.clone();
    running.spawn(async move { runner.run(stopped).await });
    while history.backlog() > 0 {
        assert!(start.elapsed() < RECOVERY, "not replayed after {RECOVERY:?}");
        sleep(Duration::from_millis(50)).await;
    }
    let took = start.elapsed();
    assert_eq!(everything(&**behind).await, spooled);
    stop.cancel();
    running.join_all().await;
    assert_eq!(std::fs::read_dir(directory).unwrap().count(), 1, "nothing but an empty segment is left");
    took
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

    let spool = tempfile::tempdir().unwrap();
    let history = Arc::new(history);
    server.kill();
    let spooled = spools_while_it_is_away(&history, spool.path()).await;
    // Long enough for the driver's own attempts to become rare.
    fails_in_time(&history, 30).await;
    let restarted = server.clone();
    tokio::task::spawn_blocking(move || restarted.restart()).await.unwrap();
    println!("back {:?} after a restart", recovers(&history, 201).await);

    println!("2,000 points replayed in {:?}", replays(&history, spool.path(), spooled).await);

    let kept = history.range(UserId(7), TimestampMs(0), acknowledged[99].ts.after(Duration::from_millis(1)), 1_000);
    let kept = kept.await.unwrap();
    assert!(acknowledged.iter().all(|point| kept.contains(point)), "acknowledged and lost");
}
