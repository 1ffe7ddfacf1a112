//! From a configuration to a running process, on one page. Only here are backends chosen.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use api::{ApiLimits, ApiState, Changes};
use gateway::{Admission, GatewayLimits, GatewayState};
use model::NodeId;
use node::Node;
use ports::{Clock, Users};
use prometheus_client::registry::Registry;
use protocol::close::CloseCode;
use tokio::net::TcpListener;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use web::{Authenticator, Readiness, ServerLimits, TokenKeys};

use crate::config::Config;
use crate::{backends, secret};

/// How long a stop may take beyond the spread of the closes.
const STOP_PATIENCE: Duration = Duration::from_secs(10);

/// A running process.
pub struct App {
    /// Where it listens.
    pub address: SocketAddr,
    node: Arc<Node>,
    readiness: Readiness,
    connections: TaskTracker,
    changes: Changes,
    tasks: TaskTracker,
    stop_server: CancellationToken,
    stop_backends: CancellationToken,
    drain: Duration,
}

impl App {
    /// Starts everything. The port is bound last: who can connect is served.
    pub async fn start(config: &Config) -> anyhow::Result<App> {
        let clock = Clock::System;
        let keys = keys(config)?;
        let id = NodeId(rand::random());
        let (tasks, stop_server) = (TaskTracker::new(), CancellationToken::new());
        let stop_backends = CancellationToken::new();
        let ports = backends::open(config, id, clock, &tasks, &stop_backends).await?;
        let mut registry = Registry::default();
        let shards = std::thread::available_parallelism().map_or(1, |cores| cores.get().min(node::limits::SHARDS));
        let settings = config.node_settings(shards);
        let node = Node::start(id, settings, ports.node.clone(), ports.inbox, clock, &mut registry).await?;
        let node = Arc::new(node);
        let readiness = Readiness::new();
        let authenticator = Arc::new(Authenticator::new(keys, ports.users.clone(), clock));
        let gateway = gateway_state(config, &node, &authenticator, &ports.users, &readiness);
        let records = ApiState {
            users: ports.users,
            friendships: ports.node.friendships,
            history: ports.node.history,
            cache: ports.node.cache,
            control: ports.node.control,
            authenticator,
            clock,
            registry: Arc::new(registry),
            readiness: readiness.clone(),
            changes: Changes::new(),
            limits: ApiLimits::default(),
        };
        let resumed = api::resume_deletions(&records).await?;
        if resumed > 0 {
            tracing::info!(users = resumed, "finished deletions that were interrupted");
        }
        let (connections, changes) = (gateway.connections.clone(), records.changes.clone());
        let router = api::router(records, Some(gateway::openapi())).merge(gateway::router(gateway));
        let router = web::with_problem_fallbacks(router);
        let listen = config.server.listen;
        let listener = TcpListener::bind(listen).await.with_context(|| format!("{listen} cannot be listened on"))?;
        let address = listener.local_addr()?;
        let limits = server_limits(config);
        tasks.spawn(serve(web::server::serve(listener, router, limits, tasks.clone(), stop_server.clone())));
        tasks.spawn(watch_right_to_send(node.clone(), readiness.check("control-log"), stop_server.clone()));
        let drain = Duration::from_millis(config.server.drain_ms);
        Ok(App { address, node, readiness, connections, changes, tasks, stop_server, stop_backends, drain })
    }

    /// Stops as the load balancer and the clients like it: not ready any more, closes spread over the drain time, what
    /// was taken in written, and gone. An error if something could not be written in time.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.readiness.drain();
        self.node.close_all(CloseCode::Restart);
        self.connections.close();
        if timeout(self.drain + STOP_PATIENCE, self.connections.wait()).await.is_err() {
            tracing::warn!(connections = self.connections.len(), "connections that did not close in time are cut");
        }
        self.stop_server.cancel();
        let _ = timeout(STOP_PATIENCE, self.changes.finished()).await;
        let stopped = self.node.stop(STOP_PATIENCE).await;
        // After the engine, which wrote through them to the last.
        self.stop_backends.cancel();
        self.tasks.close();
        let _ = timeout(STOP_PATIENCE, self.tasks.wait()).await;
        Ok(stopped?)
    }
}

async fn serve(server: impl Future<Output = std::io::Result<()>>) {
    if let Err(error) = server.await {
        tracing::error!(%error, "the server ended");
    }
}

fn keys(config: &Config) -> anyhow::Result<TokenKeys> {
    let auth = &config.auth;
    let read = |key: &str, file: &Path| {
        fs::read(file).with_context(|| format!("auth.{key}: {} cannot be read", file.display()))
    };
    let given = |file: &Path| !file.as_os_str().is_empty();
    let mut keys = TokenKeys::new();
    if given(&auth.hs256_secret_file) {
        let secret = read("hs256_secret_file", &auth.hs256_secret_file)?;
        keys = keys.with_hs256(&secret).context("auth.hs256_secret_file")?;
    }
    if given(&auth.eddsa_pem_file) {
        let pem = read("eddsa_pem_file", &auth.eddsa_pem_file)?;
        keys = keys.with_eddsa_pem(&pem).context("auth.eddsa_pem_file")?;
    }
    if given(&auth.rs256_pem_file) {
        let pem = read("rs256_pem_file", &auth.rs256_pem_file)?;
        keys = keys.with_rs256_pem(&pem).context("auth.rs256_pem_file")?;
    }
    if given(&auth.jwks_file) {
        let jwks = read("jwks_file", &auth.jwks_file)?;
        keys = keys.with_jwks(&jwks).context("auth.jwks_file")?;
    }
    if keys.is_empty() {
        let data_dir = config.data_dir().context("auth: configure the keys that tokens are verified with")?;
        keys = keys.with_hs256(&secret::load_or_make(data_dir)?)?;
    }
    if !auth.issuer.is_empty() {
        keys = keys.with_issuer(auth.issuer.clone());
    }
    if !auth.audience.is_empty() {
        keys = keys.with_audience(auth.audience.clone());
    }
    Ok(keys)
}

fn gateway_state(
    config: &Config,
    node: &Arc<Node>,
    authenticator: &Arc<Authenticator>,
    users: &Arc<dyn Users>,
    readiness: &Readiness,
) -> GatewayState {
    let limits = GatewayLimits {
        connecting: config.limits.connecting,
        drain: Duration::from_millis(config.server.drain_ms),
        ..GatewayLimits::default()
    };
    GatewayState {
        node: node.clone(),
        authenticator: authenticator.clone(),
        users: users.clone(),
        origins: config.server.origins.clone().into(),
        readiness: readiness.clone(),
        admission: Admission::new(limits.connecting),
        connections: TaskTracker::new(),
        limits,
    }
}

fn server_limits(config: &Config) -> ServerLimits {
    ServerLimits {
        connections_per_address: config.server.connections_per_address,
        connections: config.server.connections,
        send_buffer_bytes: node::limits::SEND_BUFFER_BYTES,
        ..ServerLimits::default()
    }
}

/// A node that may not send positions is not sent new connections.
async fn watch_right_to_send(node: Arc<Node>, check: web::Check, stop: CancellationToken) {
    loop {
        if node.may_send() {
            check.ready();
        } else {
            check.missing("out of reach: positions are not sent");
        }
        if timeout(Duration::from_millis(500), stop.cancelled()).await.is_ok() {
            return;
        }
    }
}
