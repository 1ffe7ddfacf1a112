//! Hearing of a change of one key.
//!
//! A watch is only ever a hint to read earlier, and it is built to be nothing more: it begins with a read, follows from
//! there, and is given up and begun anew when it ends, fails, or says nothing for [`SILENCE`]. So compaction, a restart,
//! a change of leader and a connection that is dead without saying so all end the same way, with a read.

use std::time::Duration;

use serde::Deserialize;
use serde_json::json;
use tokio::time::{sleep, timeout};

use crate::Etcd;
use crate::client::{Failure, Lines, Repeat};
use crate::kv::{KeyValue, Txn, coded, get};

/// How long a watch may be silent before it is asked anew. etcd's own signs of life come only every 10 minutes.
const SILENCE: Duration = Duration::from_secs(5);
/// How long to wait after a failure; twice as long after each further one, up to the longest.
const PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Tells the value of a key, now and whenever it changes; of changes that come together perhaps only the last. Until
/// it is dropped.
pub(crate) async fn follow(etcd: &Etcd, key: &str, mut tell: impl FnMut(&str)) {
    let mut pause = PAUSE;
    loop {
        let failure = match listen(etcd, key, &mut tell).await {
            Ok(quiet) => {
                pause = PAUSE;
                match quiet {
                    Ended::Silent => continue,
                    Ended::Failed(failure) => failure,
                }
            }
            Err(failure) => failure,
        };
        tracing::debug!(?failure, key, "a watch is begun anew");
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// How a watch ended that had begun.
enum Ended {
    Silent,
    Failed(Failure),
}

async fn listen(etcd: &Etcd, key: &str, tell: &mut impl FnMut(&str)) -> Result<Ended, Failure> {
    let mut read = Txn::default().then(get(key)).commit(&etcd.client, Repeat::Always).await?;
    if let Some(kv) = read.found(0).kvs.first() {
        tell(&kv.value);
    }
    let next = (read.revision() + 1).to_string();
    let question = json!({"create_request": {"key": coded(key), "start_revision": next}});
    let mut lines = etcd.client.stream("/v3/watch", &question).await?;
    loop {
        match timeout(SILENCE, hear(&mut lines, tell)).await {
            Ok(Ok(())) => {}
            Ok(Err(failure)) => return Ok(Ended::Failed(failure)),
            Err(_) => return Ok(Ended::Silent),
        }
    }
}

/// One line of the stream.
async fn hear(lines: &mut Lines, tell: &mut impl FnMut(&str)) -> Result<(), Failure> {
    let line: Line = lines.next().await?;
    let Some(result) = line.result else {
        return Err(Failure::NoAnswer("the watch failed".to_owned()));
    };
    if result.canceled {
        return Err(Failure::NoAnswer("the watch was cancelled: compacted, or no leader".to_owned()));
    }
    if let Some(value) = result.events.iter().rev().find_map(|event| event.kv.as_ref()) {
        tell(&value.value);
    }
    Ok(())
}

#[derive(Deserialize)]
struct Line {
    result: Option<Told>,
}

#[derive(Deserialize)]
struct Told {
    #[serde(default)]
    canceled: bool,
    #[serde(default)]
    events: Vec<Event>,
}

#[derive(Deserialize)]
struct Event {
    kv: Option<KeyValue>,
}
