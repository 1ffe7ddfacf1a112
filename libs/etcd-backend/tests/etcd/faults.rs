//! What etcd and the wire to it can do to their callers.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use etcd_backend::{DEADLINE, Etcd, EtcdControlLog, EtcdDiscovery, Kept};
use model::{NodeId, PolicyVersion};
use ports::conformance::{fresh_node, fresh_user, soon};
use ports::control::{LogRead, RIGHT_TO_SEND};
use ports::{Clock, ControlEntry, ControlLog, Discovery, PortError};
use servers::etcd::{EtcdCluster, EtcdServer};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::proxy::{Proxy, Wire};
use crate::{Cluster, SHARED};

fn entry() -> ControlEntry {
    ControlEntry::Unfriended(fresh_user(), fresh_user())
}

async fn end(log: &EtcdControlLog) -> PolicyVersion {
    log.end().await.unwrap()
}

/// Every call of both ports fails, as something that may succeed later, within its deadline.
async fn all_calls_fail(log: &Arc<EtcdControlLog>, discovery: &Arc<EtcdDiscovery>, node: NodeId) {
    type Call = std::pin::Pin<Box<dyn Future<Output = Result<(), PortError>> + Send>>;
    let (log, discovery) = (|| log.clone(), || discovery.clone());
    let calls: [(&str, Call); 9] = [
        (
            "append",
            Box::pin({
                let log = log();
                async move { log.append(entry()).await.map(drop) }
            }),
        ),
        (
            "read_after",
            Box::pin({
                let log = log();
                async move { log.read_after(PolicyVersion(0)).await.map(drop) }
            }),
        ),
        (
            "confirm",
            Box::pin({
                let log = log();
                async move { log.confirm(node, PolicyVersion(1)).await }
            }),
        ),
        (
            "join",
            Box::pin({
                let discovery = discovery();
                async move { discovery.join(node).await }
            }),
        ),
        (
            "keepalive",
            Box::pin({
                let discovery = discovery();
                async move { discovery.keepalive(node).await }
            }),
        ),
        (
            "leave",
            Box::pin({
                let discovery = discovery();
                async move { discovery.leave(fresh_node()).await }
            }),
        ),
        (
            "members",
            Box::pin({
                let discovery = discovery();
                async move { discovery.members().await.map(drop) }
            }),
        ),
        (
            "document",
            Box::pin({
                let discovery = discovery();
                async move { discovery.document("ring").await.map(drop) }
            }),
        ),
        (
            "swap",
            Box::pin({
                let discovery = discovery();
                async move { discovery.swap("ring", 0, "").await.map(drop) }
            }),
        ),
    ];
    let mut asked = JoinSet::new();
    for (name, call) in calls {
        asked.spawn(async move {
            let answer = timeout(DEADLINE + Duration::from_millis(300), call).await;
            let answer = answer.unwrap_or_else(|_| panic!("{name} hangs"));
            assert!(answer.as_ref().is_err_and(PortError::is_transient), "{name}: {answer:?}");
        });
    }
    asked.join_all().await;
}

#[tokio::test]
async fn killed_and_started_again_it_goes_on_where_it_was() {
    let server = EtcdServer::start();
    let cluster = Cluster::at(vec![server.endpoint()]);
    let (log, discovery) = (Arc::new(cluster.log()), Arc::new(cluster.discovery()));
    let node = fresh_node();
    discovery.join(node).await.unwrap();
    let first = log.append(entry()).await.unwrap();
    assert!(discovery.swap("ring", 0, "one").await.unwrap());
    server.kill();
    let hears = log.clone();
    let mut heard = JoinSet::new();
    heard.spawn(async move { hears.changed(first).await });
    all_calls_fail(&log, &discovery, node).await;
    server.restart();
    assert_eq!(discovery.members().await.unwrap(), [node], "a lease outlives a restart");
    discovery.keepalive(node).await.unwrap();
    assert_eq!(discovery.document("ring").await.unwrap().text, "one");
    let other = cluster.log();
    let second = other.append(entry()).await.unwrap();
    assert!(second > first);
    soon("changed", heard.join_all()).await;
    let LogRead::Entries { records, end } = log.read_after(first).await.unwrap() else { panic!("compacted") };
    assert_eq!((records.len(), end), (1, second));
}

#[tokio::test]
async fn frozen_it_makes_nobody_hang_and_a_revoke_ends_by_itself() {
    let server = EtcdServer::start();
    let cluster = Cluster::at(vec![server.endpoint()]);
    let (log, discovery) = (Arc::new(cluster.log()), Arc::new(cluster.discovery()));
    let node = fresh_node();
    discovery.join(node).await.unwrap();
    let index = log.append(entry()).await.unwrap();
    server.freeze();
    let began = Instant::now();
    let (settled, ()) = tokio::join!(log.settled(index), all_calls_fail(&log, &discovery, node));
    settled.unwrap();
    let took = began.elapsed();
    assert!(took >= RIGHT_TO_SEND, "{node:?} may still send after {took:?}");
    assert!(took < RIGHT_TO_SEND + Duration::from_secs(1), "took {took:?}");
    server.thaw();
    soon("an append", async { while log.append(entry()).await.is_err() {} }).await;
    soon("a join", async { while discovery.join(node).await.is_err() {} }).await;
}

#[tokio::test]
async fn compaction_while_nobody_could_watch_changes_nothing() {
    let server = EtcdServer::start();
    let proxy = Proxy::to(&server.endpoint()).await;
    let mut cluster = Cluster::at(vec![proxy.endpoint()]);
    let reader = cluster.log();
    cluster.endpoints = vec![server.endpoint()];
    let writer = cluster.log();
    let first = writer.append(entry()).await.unwrap();
    soon("changed", reader.changed(PolicyVersion(0))).await;
    proxy.set(Wire::Cut);
    for _ in 0..20 {
        writer.append(entry()).await.unwrap();
    }
    let status = server.ask("/v3/kv/range", r#"{"key":"YQ=="}"#);
    let revision = status.split_once("\"revision\":\"").unwrap().1.split('"').next().unwrap().to_owned();
    server.ask("/v3/kv/compaction", &format!(r#"{{"revision":"{revision}"}}"#));
    assert!(timeout(Duration::from_millis(500), reader.changed(first)).await.is_err(), "it cannot know");
    proxy.set(Wire::Whole);
    soon("changed", reader.changed(first)).await;
    let LogRead::Entries { records, .. } = reader.read_after(first).await.unwrap() else { panic!("compacted") };
    assert_eq!(records.len(), 20);
}

#[tokio::test]
async fn connections_that_hang_are_replaced() {
    let proxy = Proxy::to(&SHARED.endpoint()).await;
    let mut cluster = Cluster::at(vec![proxy.endpoint()]);
    let reader = cluster.log();
    cluster.endpoints = vec![SHARED.endpoint()];
    let writer = cluster.log();
    let first = writer.append(entry()).await.unwrap();
    soon("changed", reader.changed(PolicyVersion(0))).await;
    // The watch that follows the read has begun by then, and the connection of this read waits for the next.
    sleep(Duration::from_millis(200)).await;
    reader.read_after(first).await.unwrap();
    proxy.hang();
    reader.read_after(first).await.unwrap();
    writer.append(entry()).await.unwrap();
    soon("changed", reader.changed(first)).await;
}

#[tokio::test]
async fn a_lease_alone_makes_no_sender() {
    let discovery = Cluster::in_shared().discovery();
    let node = fresh_node();
    SHARED.ask("/v3/lease/grant", &format!(r#"{{"ID":"{}","TTL":"12"}}"#, node.0));
    discovery.keepalive(node).await.unwrap_err();
    assert_eq!(discovery.members().await.unwrap(), []);
    discovery.join(node).await.unwrap();
    discovery.keepalive(node).await.unwrap();
    assert_eq!(discovery.members().await.unwrap(), [node]);
}

#[tokio::test]
async fn who_is_no_member_cannot_confirm() {
    let cluster = Cluster::in_shared();
    let log = cluster.log();
    let index = log.append(entry()).await.unwrap();
    let refused = log.confirm(fresh_node(), index).await.unwrap_err();
    assert!(!refused.is_transient(), "{refused}");
}

#[tokio::test]
async fn the_log_is_bounded_and_says_so_to_who_is_behind() {
    const KEPT: usize = 50;
    let cluster = Cluster::in_shared();
    let log = EtcdControlLog::keeping(Kept { least: 4, most: KEPT, ..Kept::default() }, cluster.etcd(), Clock::System);
    let mut indexes = Vec::new();
    for _ in 0..300 {
        indexes.push(log.append(entry()).await.unwrap());
    }
    let last = *indexes.last().unwrap();
    for behind in [PolicyVersion(0), indexes[0], indexes[100]] {
        assert_eq!(log.read_after(behind).await.unwrap(), LogRead::Compacted { end: last });
    }
    let kept = indexes.iter().rev().take(KEPT);
    for (after, index) in kept.enumerate() {
        let LogRead::Entries { records, end } = log.read_after(*index).await.unwrap() else { panic!("compacted") };
        assert_eq!((records.len(), end), (after, last));
    }
}

/// What is older than it is kept goes, but for the newest; what is younger stays, however much it is.
#[tokio::test]
async fn entries_are_kept_for_a_time_and_not_by_their_number() {
    let cluster = Cluster::in_shared();
    let append_all = async |log: &EtcdControlLog, entries: usize| {
        let mut indexes = Vec::new();
        for _ in 0..entries {
            indexes.push(log.append(entry()).await.unwrap());
        }
        indexes
    };
    let readable =
        async |log: &EtcdControlLog, after| matches!(log.read_after(after).await, Ok(LogRead::Entries { .. }));
    let kept_long = EtcdControlLog::keeping(Kept { least: 4, ..Kept::default() }, cluster.etcd(), Clock::System);
    let indexes = append_all(&kept_long, 300).await;
    assert!(readable(&kept_long, indexes[0]).await, "all of them are young");
    let short = Kept { time: Duration::ZERO, least: 4, ..Kept::default() };
    let kept_short = EtcdControlLog::keeping(short, cluster.etcd(), Clock::System);
    append_all(&kept_short, 70).await;
    assert!(!readable(&kept_short, indexes[0]).await && !readable(&kept_short, indexes[200]).await);
    let last = append_all(&kept_short, 6).await;
    assert!(readable(&kept_short, last[2]).await, "the newest stay, whatever their age");
}

/// A reader that cannot read all within one call would begin from the same place for ever.
#[tokio::test]
async fn who_is_further_behind_than_a_call_can_read_is_told_so() {
    let cluster = Cluster::in_shared();
    let log = EtcdControlLog::keeping(Kept { catch_up: 4, ..Kept::default() }, cluster.etcd(), Clock::System);
    let start = end(&log).await;
    let mut indexes = Vec::new();
    for _ in 0..5 {
        indexes.push(log.append(entry()).await.unwrap());
    }
    assert_eq!(log.read_after(start).await.unwrap(), LogRead::Compacted { end: indexes[4] });
    let LogRead::Entries { records, .. } = log.read_after(indexes[0]).await.unwrap() else { panic!("4 can be read") };
    assert_eq!(records.len(), 4);
}

/// About as many as a reader may be behind are read within the deadline of a call.
#[tokio::test]
#[ignore = "takes a minute; ./test long"]
async fn a_reader_that_is_as_far_behind_as_it_may_be_catches_up() {
    let cluster = Cluster::in_shared();
    let log = Arc::new(cluster.log());
    let start = end(&log).await;
    let mut writers = JoinSet::new();
    for _ in 0..200 {
        let log = log.clone();
        writers.spawn(async move {
            // Some are appended twice.
            for _ in 0..Kept::default().catch_up / 220 {
                while log.append(entry()).await.is_err() {}
            }
        });
    }
    writers.join_all().await;
    let begun = Clock::System.monotonic();
    let LogRead::Entries { records, .. } = log.read_after(start).await.unwrap() else { panic!("compacted") };
    eprintln!("{} entries read in {:?}", records.len(), Clock::System.monotonic().since(begun));
    assert!(records.len() >= Kept::default().catch_up * 9 / 10);
}

/// More at once than fit into one transaction, from two processes.
#[tokio::test]
async fn callers_at_once_are_each_told_their_own_entry() {
    let cluster = Cluster::in_shared();
    let logs = [Arc::new(cluster.log()), Arc::new(cluster.log())];
    let mut callers = JoinSet::new();
    for caller in 0..600 {
        let log = logs[caller % 2].clone();
        callers.spawn(async move {
            let entry = entry();
            (log.append(entry).await.unwrap(), entry)
        });
    }
    let mut told = callers.join_all().await;
    told.sort_unstable_by_key(|(index, _)| *index);
    let LogRead::Entries { records, .. } = logs[0].read_after(PolicyVersion(0)).await.unwrap() else {
        panic!("compacted")
    };
    let read: Vec<_> = records.into_iter().map(|record| (record.index, record.entry)).collect();
    assert_eq!(read, told);
}

#[tokio::test]
async fn lost_data_is_noticed_and_indexes_never_go_back() {
    let cluster = Cluster::in_shared();
    let log = cluster.log();
    for _ in 0..3 {
        log.append(entry()).await.unwrap();
    }
    let before = end(&log).await;
    let range = [cluster.prefix.clone() + "/", cluster.prefix.clone() + "0"].map(|key| STANDARD.encode(key));
    SHARED.ask("/v3/kv/deleterange", &format!(r#"{{"key":"{}","range_end":"{}"}}"#, range[0], range[1]));
    let emptied = PolicyVersion(0);
    assert_eq!(log.read_after(before).await.unwrap(), LogRead::Compacted { end: emptied });
    let nothing = LogRead::Entries { records: vec![], end: emptied };
    assert_eq!(log.read_after(emptied).await.unwrap(), nothing);
    assert!(timeout(Duration::from_millis(300), log.changed(emptied)).await.is_err(), "nothing to read");
    let after = cluster.log().append(entry()).await.unwrap();
    assert!(after > before, "an old confirmation would count for a new entry");
    assert_eq!(log.read_after(before).await.unwrap(), LogRead::Compacted { end: after });
    soon("changed", log.changed(emptied)).await;
}

#[tokio::test]
async fn an_endpoint_where_nobody_listens_is_passed_over() {
    let dead = format!("http://127.0.0.1:{}", servers::free_port());
    let cluster = Cluster::at(vec![dead, SHARED.endpoint()]);
    let node = fresh_node();
    cluster.discovery().join(node).await.unwrap();
    assert_eq!(cluster.discovery().members().await.unwrap(), [node]);
    assert!(cluster.discovery().swap("ring", 0, "one").await.unwrap(), "nothing had been sent");
    let log = cluster.log();
    cluster.log().append(entry()).await.unwrap();
    soon("changed", log.changed(PolicyVersion(0))).await;
}

#[test]
fn endpoints_that_cannot_be_are_refused_at_once() {
    for endpoints in [vec![], vec!["etcd:2379".to_owned()], vec!["https://etcd:2379".to_owned()]] {
        assert!(Etcd::new(&endpoints, "/nearby").is_err_and(|error| !error.is_transient()));
    }
}

/// Every fault that one of three members can have, each time of the one that is asked and leads.
#[tokio::test]
async fn one_of_three_members_is_enough_to_lose() {
    let etcd = EtcdCluster::start();
    let cluster = Cluster::at(etcd.endpoints());
    let (log, discovery) = (cluster.log(), cluster.discovery());
    let node = fresh_node();
    discovery.join(node).await.unwrap();
    for fault in ["frozen", "killed"] {
        let leader = &etcd.members[etcd.leader().unwrap()];
        let before = end(&log).await;
        match fault {
            "frozen" => leader.freeze(),
            _ => leader.kill(),
        }
        let lost = Instant::now();
        // Electing mostly takes less than a call's deadline, and nearly always less than two.
        let appended = soon(fault, async {
            loop {
                if let Ok(index) = log.append(entry()).await {
                    return index;
                }
            }
        })
        .await;
        soon("a keepalive", async { while discovery.keepalive(node).await.is_err() {} }).await;
        assert!(lost.elapsed() < RIGHT_TO_SEND / 2, "{fault}: {:?}", lost.elapsed());
        soon("changed", log.changed(before)).await;
        let LogRead::Entries { records, .. } = log.read_after(before).await.unwrap() else { panic!("compacted") };
        assert!(records.iter().any(|record| record.index == appended));
        match fault {
            "frozen" => leader.thaw(),
            _ => leader.restart(),
        }
        soon("health", async {
            while etcd.leader().is_none() {
                sleep(Duration::from_millis(50)).await
            }
        })
        .await;
    }
}
