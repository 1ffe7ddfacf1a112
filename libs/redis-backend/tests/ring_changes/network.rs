//! What lies between gateways and servers: it delays, breaks and loses, by a seed.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use rand::prelude::*;
use redis_backend::{Connection, Dial};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, ReadHalf, WriteHalf};
use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_util::task::TaskTracker;

use crate::gate::Gate;
use crate::server::{Accepted, Server};

/// How it is between one gateway and one server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Open,
    /// Everything takes long.
    Slow,
    /// Nothing arrives until it is open again, and then everything does.
    Stalled,
    /// Connections are broken, and refused.
    Cut,
}

pub(crate) struct Network {
    pub(crate) servers: Vec<Server>,
    /// By gateway, then by server.
    ways: Vec<Vec<Gate<Way>>>,
    rng: Mutex<StdRng>,
    tasks: TaskTracker,
}

impl Network {
    pub(crate) fn new(gateways: usize, servers: usize, seed: u64) -> Arc<Network> {
        Arc::new(Network {
            servers: (0..servers).map(|_| Server::new()).collect(),
            ways: (0..gateways).map(|_| (0..servers).map(|_| Gate::new(Way::Open)).collect()).collect(),
            rng: Mutex::new(StdRng::seed_from_u64(seed)),
            tasks: TaskTracker::new(),
        })
    }

    pub(crate) fn address(server: usize) -> String {
        format!("server-{server}:6379")
    }

    pub(crate) fn server_at(address: &str) -> usize {
        let number = address.strip_prefix("server-").and_then(|rest| rest.strip_suffix(":6379"));
        number.and_then(|number| number.parse().ok()).expect("an address of the network")
    }

    pub(crate) fn set(&self, gateway: usize, server: usize, way: Way) {
        self.ways[gateway][server].set(way);
    }

    pub(crate) fn heal(&self) {
        self.ways.iter().flatten().for_each(|way| way.set(Way::Open));
    }

    /// Mostly short, now and then long.
    pub(crate) fn delay(&self) -> Duration {
        let mut rng = self.rng.lock();
        let most = if rng.random_bool(0.04) { 150 } else { 8 };
        Duration::from_millis(rng.random_range(0..=most))
    }

    /// On the way between these two.
    fn delay_between(&self, gateway: usize, server: usize) -> Duration {
        let usual = self.delay();
        match self.ways[gateway][server].get() {
            Way::Slow => usual + Duration::from_millis(self.rng.lock().random_range(0..=200)),
            _ => usual,
        }
    }

    fn up_to(&self, most: usize) -> usize {
        self.rng.lock().random_range(1..=most)
    }

    /// What one gateway dials through.
    pub(crate) fn of(self: &Arc<Self>, gateway: usize) -> Arc<dyn Dial> {
        Arc::new(Dialler { network: self.clone(), gateway })
    }
}

struct Dialler {
    network: Arc<Network>,
    gateway: usize,
}

#[async_trait]
impl Dial for Dialler {
    async fn dial(&self, address: &str) -> io::Result<Connection> {
        let server = Network::server_at(address);
        sleep(self.network.delay()).await;
        let way = &self.network.ways[self.gateway][server];
        way.until(|way| way != Way::Stalled).await;
        let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
        if way.get() == Way::Cut {
            return Err(refused());
        }
        let accepted = self.network.servers[server].accept(self.gateway).ok_or_else(refused)?;
        let (near, far) = tokio::io::duplex(64 * 1024);
        let wire = Wire { network: self.network.clone(), gateway: self.gateway, server };
        self.network.tasks.spawn(wire.carry(far, accepted));
        Ok(Box::new(near))
    }
}

/// One connection.
struct Wire {
    network: Arc<Network>,
    gateway: usize,
    server: usize,
}

impl Wire {
    async fn carry(self, far: DuplexStream, accepted: Accepted) {
        let Accepted { id, run, output } = accepted;
        let server = &self.network.servers[self.server];
        let (reader, writer) = tokio::io::split(far);
        tokio::select! {
            biased;
            () = self.way().until(|way| way == Way::Cut) => {
                // The server does not notice at once.
                sleep(4 * self.network.delay()).await;
            }
            () = self.up(reader, id, run) => {}
            () = self.down(writer, output) => {}
        }
        server.close(id);
    }

    fn way(&self) -> &Gate<Way> {
        &self.network.ways[self.gateway][self.server]
    }

    /// What was written before the client closed arrives all the same.
    async fn up(&self, mut reader: ReadHalf<DuplexStream>, id: u64, run: u64) {
        let server = &self.network.servers[self.server];
        let mut input = BytesMut::new();
        let mut chunk = vec![0; 2_048];
        loop {
            let most = self.network.up_to(chunk.len());
            let Ok(read @ 1..) = reader.read(&mut chunk[..most]).await else { return };
            sleep(self.network.delay_between(self.gateway, self.server)).await;
            self.way().until(|way| way != Way::Stalled).await;
            server.thawed().await;
            input.extend_from_slice(&chunk[..read]);
            if !server.execute(id, run, &mut input) {
                return;
            }
        }
    }

    async fn down(&self, mut writer: WriteHalf<DuplexStream>, mut output: mpsc::Receiver<Bytes>) {
        let mut ready = Vec::new();
        while output.recv_many(&mut ready, 64).await > 0 {
            sleep(self.network.delay_between(self.gateway, self.server)).await;
            self.way().until(|way| way != Way::Stalled).await;
            for bytes in ready.drain(..) {
                if writer.write_all(&bytes).await.is_err() {
                    // Closed by the client: what it sent before is still carried.
                    return std::future::pending().await;
                }
            }
        }
    }
}
