//! The disk fills up, and has room again.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::{Duration, Instant, sleep};

use crate::client::SOON;
use crate::http::{Answer, request, try_request};
use crate::process::Process;
use crate::site::{HERE, north, now, position};

const ALICE: u64 = 1;
const BOB: u64 = 2;

/// A disk that can be filled.
trait Disk {
    fn directory(&self) -> &Path;
    fn fill(&self, server: &Process, is_full: bool);
}

/// Any disk: no file may be written to, as long as it is full.
struct Limited(TempDir);

impl Disk for Limited {
    fn directory(&self) -> &Path {
        self.0.path()
    }

    fn fill(&self, server: &Process, is_full: bool) {
        server.fill_disk(is_full);
    }
}

/// A small file system in memory.
struct Small(TempDir);

/// The journal, and what is to be free when it has room again.
const SMALL_MIB: usize = 40;

impl Small {
    /// `None` where none can be mounted.
    fn mount() -> Option<Small> {
        let dir = tempfile::tempdir().unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={SMALL_MIB}m"), "tmpfs"]).arg(dir.path());
        let is_mounted = mount.stderr(Stdio::null()).status().is_ok_and(|status| status.success());
        is_mounted.then(|| Small(dir))
    }

    fn ballast(&self) -> std::path::PathBuf {
        self.0.path().join("ballast")
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

impl Disk for Small {
    fn directory(&self) -> &Path {
        self.0.path()
    }

    fn fill(&self, _server: &Process, is_full: bool) {
        if !is_full {
            return fs::remove_file(self.ballast()).unwrap();
        }
        let mut ballast = File::create(self.ballast()).unwrap();
        while ballast.write_all(&[1; 4_096]).is_ok() {}
    }
}

#[tokio::test]
async fn a_disk_that_takes_no_writes_for_a_while_loses_nothing_acknowledged() {
    a_full_disk_is_not_for_ever(&Limited(tempfile::tempdir().unwrap())).await;
}

#[tokio::test]
async fn a_disk_that_was_full_for_a_while_loses_nothing_acknowledged() {
    match Small::mount() {
        Some(disk) => a_full_disk_is_not_for_ever(&disk).await,
        None => eprintln!("skipped: no file system can be mounted here"),
    }
}

async fn a_full_disk_is_not_for_ever(disk: &impl Disk) {
    let data_dir = disk.directory().join("data");
    let mut server = Process::start_on_a_disk_that_fills(&data_dir, &[("NEARBY_SERVER__DRAIN_MS", "50")]).await;
    server.friends(ALICE, BOB).await;
    let mut alice = server.at(ALICE, HERE).await;
    let mut bob = server.at(BOB, north(10.0)).await;
    alice.reads_of("friend", BOB).await;
    server.comes_to_measure("nearby_history_points_total{kind=\"written\"}", 2).await;

    // Each at a place of its own, to be known again by.
    let began = Instant::now();
    let mut acknowledged = 0;
    loop {
        if acknowledged == 300 {
            disk.fill(&server, true);
        }
        let numbers = acknowledged + 1..=acknowledged + 100;
        let points = numbers.map(|number| position(place(number), now() - 3_600_000 + number));
        let answer = server.post(ALICE, &points.collect()).await;
        if acknowledged >= 300 && answer.status == 503 {
            break;
        }
        answer.ok();
        acknowledged += 100;
        assert!(began.elapsed() < 2 * SOON, "it is never full");
    }
    // Whatever writes is refused for now, and not for good; whoever is connected goes on.
    until("not ready", async || ready(&server).await.status == 503).await;
    let answer = ready(&server).await;
    assert!(answer.text.contains("disk"), "{answer:?}");
    let befriends = server.backend_asks("PUT", "/v1/users/3", Some(&json!({"name": "user 3"}))).await;
    assert!(befriends.status == 503 && befriends.header("retry-after").is_some(), "{befriends:?}");
    assert_eq!(server.get(ALICE, "/v1/me/friends").await.ok()["items"][0]["id"], "2");
    bob.moves(north(20.0)).await;
    alice.reads_of("friend", BOB).await;
    sleep(Duration::from_secs(2)).await;
    assert!(!server.has_ended(), "it would be full for the next process, too");
    assert_eq!(ready(&server).await.status, 503);

    disk.fill(&server, false);
    // What failed is not tried again as if nothing had happened.
    while !server.has_ended() && began.elapsed() < 4 * SOON {
        let body = json!({"name": "user 3"}).to_string();
        let token = server.backend();
        let put = try_request(server.address, "PUT", "/v1/users/3", Some(&token), Some(&body));
        if let Ok(Some(answer)) = put.await {
            assert_eq!(answer.status, 503, "{answer:?}");
        }
        sleep(Duration::from_millis(50)).await;
    }
    let (status, log) = server.ended().await;
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(!log.contains("nothing lost") && log.contains("start"), "{log}");

    let server = Process::start(&data_dir, &[]).await;
    assert_eq!(ready(&server).await.status, 200);
    assert_eq!(server.get(ALICE, "/v1/me/friends").await.ok()["items"][0]["id"], "2");
    let (mut found, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = server.get(ALICE, &format!("/v1/users/{ALICE}/history?limit=1000{cursor}")).await.ok();
        found.extend(page["items"].as_array().unwrap().iter().map(number));
        let Some(next) = page["next_cursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    // What was not acknowledged may be there or not.
    found.retain(|number| (1..=acknowledged).contains(number));
    assert_eq!(found, (1..=acknowledged).collect::<Vec<u64>>(), "all that was acknowledged, in order");
    server.know(&[3]).await;
    server.post(ALICE, &position(HERE, now())).await.ok();
}

/// Millionths of a degree north of [`HERE`].
fn place(number: u64) -> (f64, f64) {
    (HERE.0 + number as f64 / 1e6, HERE.1)
}

fn number(item: &Value) -> u64 {
    ((item["lat"].as_f64().unwrap() - HERE.0) * 1e6).round() as u64
}

async fn ready(server: &Process) -> Answer {
    request(server.address, "GET", "/readyz", None, None).await
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let began = Instant::now();
    while !holds().await {
        assert!(began.elapsed() < SOON, "not soon: {what}");
        sleep(Duration::from_millis(20)).await;
    }
}
