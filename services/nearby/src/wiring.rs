//! From a configuration to a running process, on one page.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use api::{ApiLimits, ApiState, Changes};
use axum::Router;
use gateway::{Admission, Gateway, GatewayLimits, GatewayState};
use model::NodeId;
use node::{Backends, Node};
use ports::{Clock, ControlLog, Users};
use prometheus_client::registry::Registry;
use protocol::close::CloseCode;
use tokio::net::TcpListener;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use web::{Authenticator, Readiness, ServerLimits};

use crate::backends::{Host, Live, Ports};
use crate::config::{Config, Role};
use crate::{backends, disk, keys};

/// How long a stop may take beyond the spread of the closes.
const STOP_PATIENCE: Duration = Duration::from_secs(10);

/// A running process.
pub struct App {
    /// Where it listens.
    pub address: SocketAddr,
    /// The engine, in a gateway.
    node: Option<Arc<Node>>,
    readiness: Readiness,
    connections: TaskTracker,
    changes: Changes,
    tasks: TaskTracker,
    stop_server: CancellationToken,
    stop_backends: CancellationToken,
    /// Cancelled when this process is to be started again.
    restart: CancellationToken,
    notice: Duration,
    drain: Duration,
}

impl App {
    /// Starts everything that its roles ask for. The port is bound last: who can connect is served.
    pub async fn start(config: &Config) -> anyhow::Result<App> {
        let clock = Clock::System;
        let keys = keys::load(config)?;
        let id = NodeId(rand::random());
        let (tasks, stop_server) = (TaskTracker::new(), CancellationToken::new());
        let stop_backends = CancellationToken::new();
        let (mut registry, readiness) = (Registry::default(), Readiness::new());
        let host = Host {
            id,
            clock,
            is_gateway: config.serves(Role::Gateway),
            tasks: &tasks,
            stop: &stop_backends,
            registry: &mut registry,
            readiness: &readiness,
        };
        let mut ports = backends::open(config, host).await?;
        let node = match ports.live.take() {
            Some(live) => Some(Arc::new(start_node(config, id, &ports, live, clock, &mut registry).await?)),
            None => None,
        };
        let authenticator = Arc::new(Authenticator::new(keys, ports.users.clone(), clock));
        let records = ApiState {
            users: ports.users.clone(),
            friendships: ports.friendships,
            history: ports.history,
            cache: ports.cache,
            control: ports.control.clone(),
            authenticator: authenticator.clone(),
            clock,
            registry: Arc::new(registry),
            readiness: readiness.clone(),
            changes: Changes::new(),
            limits: ApiLimits::default(),
        };
        let gateway = node.as_ref().map(|node| gateway_state(config, node, &authenticator, &ports.users, &readiness));
        let connections = gateway.as_ref().map_or_else(TaskTracker::new, |gateway| gateway.connections.clone());
        let changes = records.changes.clone();
        if config.serves(Role::Api) {
            tasks.spawn(resume_deletions(records.clone(), stop_server.clone()));
            tasks.spawn(announce_left_behind(records.clone(), stop_server.clone()));
        }
        let router = router(config, records, gateway);
        let listen = config.server.listen;
        let listener = TcpListener::bind(listen).await.with_context(|| format!("{listen} cannot be listened on"))?;
        let address = listener.local_addr()?;
        let limits = server_limits(config);
        tasks.spawn(serve(web::server::serve(listener, router, limits, tasks.clone(), stop_server.clone())));
        let check = readiness.check("control-log");
        match &node {
            Some(node) => tasks.spawn(watch_right_to_send(node.clone(), check, stop_server.clone())),
            None => tasks.spawn(watch_control_log(ports.control, check, stop_server.clone())),
        };
        let restart = CancellationToken::new();
        let check = readiness.check("disk");
        tasks.spawn(disk::watch(ports.stores, check, restart.clone(), stop_server.clone()));
        let notice = Duration::from_millis(config.server.notice_ms);
        let drain = Duration::from_millis(config.server.drain_ms);
        Ok(App {
            address,
            node,
            readiness,
            connections,
            changes,
            tasks,
            stop_server,
            stop_backends,
            restart,
            notice,
            drain,
        })
    }

    /// Returns when this process should be stopped and started again, because a write to its disk failed and the disk
    /// takes writes again. Else it waits for ever. Cancel safe.
    pub async fn must_restart(&self) {
        self.restart.cancelled().await;
    }

    /// Stops as the load balancer and the clients like it: not ready any more, closes spread over the drain time, what
    /// was taken in written, and gone. An error if something could not be written in time.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.readiness.drain();
        // Who is sent here until the balancer looks again is served, and not turned away.
        sleep(self.notice).await;
        self.node.iter().for_each(|node| node.close_all(CloseCode::Restart));
        self.connections.close();
        if timeout(self.drain + STOP_PATIENCE, self.connections.wait()).await.is_err() {
            tracing::warn!(connections = self.connections.len(), "connections that did not close in time are cut");
        }
        self.stop_server.cancel();
        if timeout(STOP_PATIENCE, self.changes.finished()).await.is_err() {
            tracing::warn!(
                "changes that did not end in time were not acknowledged, and are finished after the next start"
            );
        }
        let stopped = match self.node {
            Some(node) => node.stop(STOP_PATIENCE).await,
            None => Ok(()),
        };
        // After the engine, which wrote through them to the last.
        self.stop_backends.cancel();
        self.tasks.close();
        let _ = timeout(STOP_PATIENCE, self.tasks.wait()).await;
        Ok(stopped?)
    }
}

async fn start_node(
    config: &Config,
    id: NodeId,
    ports: &Ports,
    live: Live,
    clock: Clock,
    registry: &mut Registry,
) -> anyhow::Result<Node> {
    let shards = std::thread::available_parallelism().map_or(1, |cores| cores.get().min(node::limits::SHARDS));
    let backends = Backends {
        broker: live.broker,
        cache: ports.cache.clone(),
        history: ports.history.clone(),
        friendships: ports.friendships.clone(),
        sessions: live.sessions,
        control: ports.control.clone(),
        discovery: ports.discovery.clone(),
    };
    Ok(Node::start(id, config.node_settings(shards), backends, live.inbox, clock, registry).await?)
}

/// What the roles serve; every process has health, metrics and a document of what it serves.
fn router(config: &Config, records: ApiState, gateway: Option<GatewayState>) -> Router {
    let live = gateway.as_ref().map(|_| gateway::openapi());
    let router = match (config.serves(Role::Api), live) {
        (true, live) => api::router(records, live),
        (false, live) => api::operations_router(records.readiness, records.registry, live.unwrap_or_default()),
    };
    let router = match gateway {
        Some(gateway) => router.merge(gateway::router(gateway)),
        None => router,
    };
    web::with_problem_fallbacks(router)
}

/// How soon deletions that could not be taken up are tried again.
const RESUME: Duration = Duration::from_secs(5);

/// Ends what a crash interrupted, as soon as all that it needs is within reach.
async fn resume_deletions(records: ApiState, stop: CancellationToken) {
    loop {
        match api::resume_deletions(&records).await {
            Ok(0) => return,
            Ok(users) => return tracing::info!(users, "finished deletions that were interrupted"),
            Err(error) => tracing::warn!(%error, "interrupted deletions could not be finished and will be tried again"),
        }
        if timeout(RESUME, stop.cancelled()).await.is_ok() {
            return;
        }
    }
}

/// How often writes of friendships are looked for whose process crashed or hung before it announced them.
const LEFT_BEHIND: Duration = Duration::from_secs(60);

async fn announce_left_behind(records: ApiState, stop: CancellationToken) {
    while timeout(LEFT_BEHIND, stop.cancelled()).await.is_err() {
        match api::announce_left_behind(&records, api::SETTLED).await {
            Ok(0) => {}
            Ok(changes) => tracing::info!(changes, "announced changes of friends that had been left behind"),
            Err(error) => tracing::warn!(%error, "changes of friends that were left behind could not be announced"),
        }
    }
}

async fn serve(server: impl Future<Output = std::io::Result<()>>) {
    if let Err(error) = server.await {
        tracing::error!(%error, "the server ended");
    }
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
        push_interval: Duration::from_millis(config.location.push_interval_ms),
        ..GatewayLimits::default()
    };
    GatewayState::from(Gateway {
        node: node.clone(),
        authenticator: authenticator.clone(),
        users: users.clone(),
        origins: config.server.origins.clone().into(),
        readiness: readiness.clone(),
        admission: Admission::new(limits.connecting),
        connections: TaskTracker::new(),
        limits,
    })
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

/// How often a process without an engine looks whether its changes could be told.
const LOOK: Duration = Duration::from_secs(2);

/// A process that cannot append to the control log can answer no change of friends.
async fn watch_control_log(control: Arc<dyn ControlLog>, check: web::Check, stop: CancellationToken) {
    loop {
        match timeout(LOOK, control.end()).await {
            Ok(Ok(_)) => check.ready(),
            _ => check.missing("out of reach: changes of friends are refused"),
        }
        if timeout(LOOK, stop.cancelled()).await.is_ok() {
            return;
        }
    }
}
