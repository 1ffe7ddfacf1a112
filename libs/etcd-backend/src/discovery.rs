//! Membership by etcd's leases, documents as keys.
//!
//! A node's lease has the node's own number, so that any process can prolong or end it, and joining twice is joining
//! once. etcd counts a lease from when it hears of it or later, never from before the call began: it never forgets a
//! node that still believes to be a sender.

use async_trait::async_trait;
use model::NodeId;
use ports::discovery::{Document, LEASE};
use ports::{Discovery, PortError};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::client::{FAILED_PRECONDITION, Failure, NOT_FOUND, Repeat};
use crate::kv::{Found, Txn, get, list, put, put_leased, quoted};
use crate::{Etcd, in_time, keys, refused, unavailable};

/// How often a lease may end while its node joins by it, before joining fails.
const JOIN_TRIES: usize = 3;

/// [`Discovery`] on etcd.
pub struct EtcdDiscovery {
    etcd: Etcd,
}

impl EtcdDiscovery {
    /// The members and documents of this cluster.
    pub fn new(etcd: Etcd) -> EtcdDiscovery {
        EtcdDiscovery { etcd }
    }

    async fn try_join(&self, node: NodeId) -> Result<(), PortError> {
        let lease = lease_of(node)?;
        for _ in 0..JOIN_TRIES {
            // Granting also finds what an earlier join, whose answer was lost, has left.
            if !self.grant(lease).await? && !self.prolong(lease).await? {
                continue;
            }
            let (node_key, sender_key) = (self.etcd.keys.node(node), self.etcd.keys.sender(node));
            let txn = Txn::default().then(put_leased(&node_key, "", lease)).then(put_leased(&sender_key, "", lease));
            match txn.commit(&self.etcd.client, Repeat::Always).await {
                Ok(_) => return Ok(()),
                Err(Failure::Said { code: NOT_FOUND, .. }) => {}
                Err(failure) => return Err(failure.into()),
            }
        }
        Err(unavailable(format!("the lease of {node} ended {JOIN_TRIES} times while it joined")))
    }

    /// Makes a lease; false if it is there already.
    async fn grant(&self, lease: i64) -> Result<bool, PortError> {
        let question = json!({"ID": lease.to_string(), "TTL": LEASE.as_secs().to_string()});
        match self.etcd.client.call::<Value>("/v3/lease/grant", &question, Repeat::Always).await {
            Ok(_) => Ok(true),
            Err(Failure::Said { code: FAILED_PRECONDITION, .. }) => Ok(false),
            Err(failure) => Err(failure.into()),
        }
    }

    /// Makes a lease last as long as if it were new; false if it has ended.
    async fn prolong(&self, lease: i64) -> Result<bool, PortError> {
        let question = json!({"ID": lease.to_string()});
        let answer: Prolonged = self.etcd.client.call("/v3/lease/keepalive", &question, Repeat::Always).await?;
        Ok(answer.result.ttl > 0)
    }

    async fn try_keepalive(&self, node: NodeId) -> Result<(), PortError> {
        let lease = lease_of(node)?;
        if !self.prolong(lease).await? {
            return Err(refused(format!("{node} is no member")));
        }
        // A lease alone makes no sender: a join may have ended halfway. And whoever prolonged the lease might be a
        // leader that has been replaced, which this read, as it asks a majority, finds out.
        let txn = Txn::default()
            .when_leased(&self.etcd.keys.node(node), lease)
            .when_leased(&self.etcd.keys.sender(node), lease);
        if txn.commit(&self.etcd.client, Repeat::Always).await?.succeeded {
            return Ok(());
        }
        Err(refused(format!("{node} has a lease and is no member")))
    }

    async fn try_leave(&self, node: NodeId) -> Result<(), PortError> {
        let question = json!({"ID": lease_of(node)?.to_string()});
        match self.etcd.client.call::<Value>("/v3/lease/revoke", &question, Repeat::Always).await {
            Ok(_) | Err(Failure::Said { code: NOT_FOUND, .. }) => Ok(()),
            Err(failure) => Err(failure.into()),
        }
    }

    async fn read(&self, operation: Value) -> Result<Found, PortError> {
        Ok(Txn::default().then(operation).commit(&self.etcd.client, Repeat::Always).await?.found(0))
    }
}

#[async_trait]
impl Discovery for EtcdDiscovery {
    async fn join(&self, node: NodeId) -> Result<(), PortError> {
        in_time(self.try_join(node)).await
    }

    async fn keepalive(&self, node: NodeId) -> Result<(), PortError> {
        in_time(self.try_keepalive(node)).await
    }

    async fn leave(&self, node: NodeId) -> Result<(), PortError> {
        in_time(self.try_leave(node)).await
    }

    async fn members(&self) -> Result<Vec<NodeId>, PortError> {
        let found = in_time(self.read(list(&self.etcd.keys.nodes()))).await?;
        Ok(found.kvs.iter().filter_map(|kv| keys::number(&kv.key)).map(NodeId).collect())
    }

    async fn document(&self, name: &str) -> Result<Document, PortError> {
        let found = in_time(self.read(get(&self.etcd.keys.document(name)))).await?;
        let document = found.kvs.into_iter().next();
        Ok(document.map_or(Document { version: 0, text: String::new() }, |kv| Document {
            version: kv.mod_revision,
            text: kv.value,
        }))
    }

    async fn swap(&self, name: &str, version: u64, text: &str) -> Result<bool, PortError> {
        let key = self.etcd.keys.document(name);
        let txn = Txn::default().when_unchanged_since(&key, version).then(put(&key, text));
        // Swapped twice, it would say "not swapped" of its own text.
        in_time(async { Ok(txn.commit(&self.etcd.client, Repeat::IfUnsent).await?.succeeded) }).await
    }
}

/// The number of a node's lease: its own, as etcd's numbers are signed.
pub(crate) fn lease_of(node: NodeId) -> Result<i64, PortError> {
    match node.0.cast_signed() {
        0 => Err(refused("0 is no node: etcd would choose a lease of its own")),
        lease => Ok(lease),
    }
}

#[derive(Deserialize)]
struct Prolonged {
    result: Lease,
}

#[derive(Deserialize)]
struct Lease {
    /// Seconds; left out when there is no such lease.
    #[serde(rename = "TTL", default, deserialize_with = "quoted")]
    ttl: i64,
}
