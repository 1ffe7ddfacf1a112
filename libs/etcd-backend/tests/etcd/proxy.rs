//! A wire to etcd that can be cut, or left hanging without a word.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// What the wire does to connections.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Wire {
    /// Carries.
    Whole,
    /// Ends them, and every new one at once.
    Cut,
}

pub(crate) struct Proxy {
    address: SocketAddr,
    wire: watch::Sender<Wire>,
    /// Counts up to let the connections of this moment hang.
    hang: Arc<watch::Sender<u64>>,
    _tasks: JoinSet<()>,
}

impl Proxy {
    pub(crate) async fn to(endpoint: &str) -> Proxy {
        let target: SocketAddr = endpoint.strip_prefix("http://").unwrap().parse().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (wire, hang) = (watch::Sender::new(Wire::Whole), Arc::new(watch::Sender::new(0)));
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, target, wire.subscribe(), hang.clone()));
        Proxy { address, wire, hang, _tasks: tasks }
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn set(&self, wire: Wire) {
        self.wire.send_replace(wire);
    }

    /// From now on nothing passes on the connections that there are; new ones are well.
    pub(crate) fn hang(&self) {
        self.hang.send_modify(|times| *times += 1);
    }
}

async fn accept(listener: TcpListener, target: SocketAddr, wire: watch::Receiver<Wire>, hang: Arc<watch::Sender<u64>>) {
    let mut connections = JoinSet::new();
    loop {
        let (client, _) = listener.accept().await.unwrap();
        connections.spawn(carry(client, target, wire.clone(), hang.subscribe()));
    }
}

async fn carry(
    mut client: TcpStream,
    target: SocketAddr,
    mut wire: watch::Receiver<Wire>,
    mut hang: watch::Receiver<u64>,
) {
    if *wire.borrow() == Wire::Cut {
        return;
    }
    let mut server = TcpStream::connect(target).await.unwrap();
    tokio::select! {
        _ = copy_bidirectional(&mut client, &mut server) => return,
        _ = wire.wait_for(|wire| *wire == Wire::Cut) => return,
        _ = hang.changed() => {}
    }
    std::future::pending::<()>().await;
}
