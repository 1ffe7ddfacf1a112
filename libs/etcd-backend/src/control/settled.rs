//! Waiting until no node sends by what was before an entry.
//!
//! It asks again and again instead of watching: the answer is small, comes from one revision, and no stream can hang.

use std::time::Duration;

use model::{NodeId, PolicyVersion};
use ports::PortError;
use ports::control::RIGHT_TO_SEND;
use rustc_hash::FxHashMap;
use tokio::time::{Instant, sleep, timeout_at};

use super::indexes;
use crate::client::Repeat;
use crate::kv::{Found, Txn, list};
use crate::{Etcd, in_time, keys};

/// How far two machines' clocks may drift apart while a right to send lasts: 2 parts in a thousand, ten times what a
/// working clock does.
const DRIFT: Duration = Duration::from_millis(20);
/// The first pause between two looks; each is half as long again as the one before, up to the longest.
const PAUSE: Duration = Duration::from_millis(4);
const LONGEST_PAUSE: Duration = Duration::from_millis(250);

/// Returns once every sender of now has confirmed the index or is none any more, and at the latest when the right to
/// send has ended which a node may have had at the call. That also holds when etcd does not answer: then it is only
/// not known who need not be waited for.
pub(super) async fn wait(etcd: &Etcd, index: PolicyVersion) {
    // Tokio's clock stands while the machine sleeps: late is safe.
    let deadline = Instant::now() + RIGHT_TO_SEND + DRIFT;
    let _ = timeout_at(deadline, async {
        let mut awaited: Option<Vec<NodeId>> = None;
        let mut pause = PAUSE;
        loop {
            match in_time(look(etcd)).await {
                Ok((senders, confirmed)) => {
                    let unconfirmed = |node: &NodeId| confirmed.get(node).is_none_or(|applied| *applied < index);
                    // Who joined since the first look has read the log to its end before sending anything.
                    let mut left = awaited.take().unwrap_or_else(|| senders.clone());
                    left.retain(|node| senders.contains(node) && unconfirmed(node));
                    if left.is_empty() {
                        return;
                    }
                    awaited = Some(left);
                }
                Err(error) => tracing::debug!(%error, "cannot see who has confirmed"),
            }
            sleep(pause).await;
            pause = (pause * 3 / 2).min(LONGEST_PAUSE);
        }
    })
    .await;
}

/// The senders and how far each node has come, at one revision.
async fn look(etcd: &Etcd) -> Result<(Vec<NodeId>, FxHashMap<NodeId, PolicyVersion>), PortError> {
    let txn = Txn::default().then(list(&etcd.keys.senders())).then(list(&etcd.keys.all_confirmed()));
    let mut committed = txn.commit(&etcd.client, Repeat::Always).await?;
    Ok((nodes(&committed.found(0)), indexes(&committed.found(1)).collect()))
}

fn nodes(found: &Found) -> Vec<NodeId> {
    found.kvs.iter().filter_map(|kv| keys::number(&kv.key)).map(NodeId).collect()
}
