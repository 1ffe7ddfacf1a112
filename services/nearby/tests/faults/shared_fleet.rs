//! The one fleet of this binary.

use std::sync::atomic::{AtomicU64, Ordering};

use loadtest::token::Tokens;
use parking_lot::Mutex;
use servers::fleet::{Fleet, FleetOptions};
use servers::nearby::NearbyServer;
use servers::proxy::Way;

use crate::http::ask;
use crate::times::{pass, until};

/// How long a silent friend is shown.
pub(crate) const TTL_S: u64 = 20;

/// Never dropped: the kernel ends its processes with this one.
static FLEET: Mutex<Option<Fleet>> = Mutex::new(None);

/// Lets something happen to the fleet, which is well before and after.
pub(crate) fn with_fleet(scenario: impl FnOnce(&Fleet)) {
    let mut shared = FLEET.lock();
    let fleet = shared.get_or_insert_with(start);
    // Another scenario may have failed half way.
    heal(fleet);
    scenario(fleet);
    heal(fleet);
}

fn start() -> Fleet {
    let mut options = FleetOptions::new(env!("CARGO_BIN_EXE_nearby"))
        .with("NEARBY_LOCATION__TTL_S", &TTL_S.to_string())
        .with("NEARBY_LIMITS__UPDATES_PER_SECOND", "100");
    options.etcd_proxy = true;
    Fleet::start(options).unwrap_or_else(|failure| panic!("{failure}"))
}

/// Ids that no other scenario has: the first of ten thousand.
pub(crate) fn fresh_users() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed) * 10_000
}

/// Who signs what the fleet believes.
pub(crate) fn tokens(fleet: &Fleet) -> Tokens {
    Tokens::open(None, Some(fleet.secret_dir())).unwrap()
}

/// Gateways and API.
pub(crate) fn processes(fleet: &Fleet) -> impl Iterator<Item = &NearbyServer> {
    fleet.gateways.iter().chain(&fleet.apis)
}

/// The value of a metric without labels, of one process.
pub(crate) fn metric(server: &NearbyServer, name: &str) -> u64 {
    let metrics = server.metrics().unwrap_or_default();
    let value = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.and_then(|value| value.parse::<f64>().ok()).unwrap_or_else(|| panic!("no {name}:\n{metrics}")) as u64
}

/// Points that wait on the gateways' disks.
pub(crate) fn spooled(fleet: &Fleet) -> u64 {
    fleet.gateways.iter().map(|gateway| metric(gateway, "nearby_spool_points")).sum()
}

fn heal(fleet: &Fleet) {
    if let Some(proxy) = &fleet.etcd_proxy {
        proxy.set(Way::Open);
    }
    revive_servers(fleet);
    for server in processes(fleet) {
        server.thaw();
        if !server.status().is_running {
            server.restart();
        }
    }
    until("all ready", 60.0, || processes(fleet).all(NearbyServer::is_ready));
    until("all behind HAProxy", 10.0, || processes(fleet).all(|server| fleet.haproxy.sends_to(server.name())));
    until("the ring whole", 60.0, || ring_is_whole(fleet));
    until("the spools empty", 60.0, || spooled(fleet) == 0);
    until("the records answered", 60.0, || records_answer(fleet));
    until("everybody gone", 60.0, || connected(fleet) == 0);
}

/// Whether the API and every gateway reach the database.
fn records_answer(fleet: &Fleet) -> bool {
    let user = model::UserId(1);
    let (own, backend) = (tokens(fleet).user(user).unwrap(), tokens(fleet).backend().unwrap());
    let made = |api: &NearbyServer| ask(&api.address(), "PUT", "/v1/users/1", &backend, r#"{"name":"One"}"#);
    let asked = |gateway: &NearbyServer| ask(&gateway.address(), "GET", "/v1/nearby?lat=1&lon=1", &own, "");
    let mut answers = fleet.apis.iter().map(made).chain(fleet.gateways.iter().map(asked));
    answers.all(|answer| answer.is_ok_and(|answer| answer.status < 300))
}

/// Connections that watch, on all gateways.
pub(crate) fn connected(fleet: &Fleet) -> u64 {
    fleet.gateways.iter().map(|gateway| metric(gateway, "nearby_viewers")).sum()
}

fn revive_servers(fleet: &Fleet) {
    for redis in fleet.pubsub.iter().chain([&fleet.cache, &fleet.standby]) {
        redis.thaw();
        if !redis.status().is_running {
            redis.restart();
        }
    }
    fleet.etcd.thaw();
    if !fleet.etcd.status().is_running {
        fleet.etcd.restart();
    }
    fleet.cassandra.thaw();
    if !fleet.cassandra.status().is_running {
        fleet.cassandra.restart();
    }
}

/// Whether every pub/sub server serves, and every gateway goes by the newest ring.
pub(crate) fn ring_is_whole(fleet: &Fleet) -> bool {
    let status = fleet.run(&["ring", "status"]).unwrap_or_default();
    let unwell = ["out of service", "out of reach", "behind", "tells epoch", "lost its epoch"];
    let is_whole = status.matches("has learned epoch").count() >= fleet.gateways.len()
        && !unwell.iter().any(|word| status.contains(word));
    if !is_whole {
        pass(0.2);
    }
    is_whole
}
