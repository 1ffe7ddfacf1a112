//! Discovery as one gateway sees it: somewhat late, and sometimes not at all.

use std::sync::Arc;

use async_trait::async_trait;
use model::NodeId;
use ports::discovery::Document;
use ports::embedded::EmbeddedDiscovery;
use ports::{Discovery, PortError};
use tokio::time::sleep;

use crate::gate::Gate;
use crate::network::{Network, Way};

pub(crate) struct Directory {
    inner: Arc<EmbeddedDiscovery>,
    network: Arc<Network>,
    way: Gate<Way>,
}

impl Directory {
    pub(crate) fn new(inner: Arc<EmbeddedDiscovery>, network: Arc<Network>) -> Directory {
        Directory { inner, network, way: Gate::new(Way::Open) }
    }

    pub(crate) fn set(&self, way: Way) {
        self.way.set(way);
    }

    async fn pass(&self) -> Result<(), PortError> {
        sleep(self.network.delay()).await;
        self.way.until(|way| way != Way::Stalled).await;
        match self.way.get() {
            Way::Cut => Err(PortError::Unavailable { backend: "directory", reason: "cut off".to_owned() }),
            _ => Ok(()),
        }
    }
}

#[async_trait]
impl Discovery for Directory {
    async fn join(&self, node: NodeId) -> Result<(), PortError> {
        self.pass().await?;
        self.inner.join(node).await
    }

    async fn keepalive(&self, node: NodeId) -> Result<(), PortError> {
        self.pass().await?;
        self.inner.keepalive(node).await
    }

    async fn leave(&self, node: NodeId) -> Result<(), PortError> {
        self.pass().await?;
        self.inner.leave(node).await
    }

    async fn members(&self) -> Result<Vec<NodeId>, PortError> {
        self.pass().await?;
        self.inner.members().await
    }

    async fn document(&self, name: &str) -> Result<Document, PortError> {
        self.pass().await?;
        let document = self.inner.document(name).await;
        sleep(self.network.delay()).await;
        document
    }

    async fn swap(&self, name: &str, version: u64, text: &str) -> Result<bool, PortError> {
        self.pass().await?;
        self.inner.swap(name, version, text).await
    }
}
