//! What breaks during a run.

use std::sync::Arc;
use std::time::Duration;

use ports::control::RIGHT_TO_SEND;
use rand::RngExt;
use tokio::time::sleep;

use crate::chaos::{Port, Sickness, Trap};
use crate::play::World;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A node does not reach the control log for a while.
    NoControl,
    /// A node does not reach discovery for a while.
    NoDiscovery,
    /// A node reaches neither.
    NoEtcd,
    /// A node's process is stopped for a while.
    Frozen,
    /// The same, while it waits for what it read of the control log.
    FrozenInPoll,
    /// A node's calls of cache or broker go astray for a moment.
    NoWaist,
    /// A node's connection to the broker is lost and comes back.
    BrokerLost,
    /// Some messages to a node do not fit into its inbox.
    InboxFull,
    /// All channels move to another server.
    Moved,
    /// The cache restarts empty.
    CacheRestart,
}

/// One fault after the other, until the storm is over; several may overlap.
pub(crate) async fn run(world: Arc<World>, faults: &'static [Fault]) {
    let any = || faults[world.chaos.pick(|rng| rng.random_range(0..faults.len()))];
    // Many runs have one kind of fault and nothing else.
    let only = Some(any()).filter(|_| world.chaos.chance(60));
    while !world.chaos.is_calm() {
        sleep(world.chaos.millis(50..2_500)).await;
        if world.chaos.is_calm() {
            return;
        }
        let fault = only.unwrap_or_else(any);
        let node = world.chaos.pick(|rng| rng.random_range(0..world.fleet.nodes.len()));
        world.chaos.note(("fault", fault as u8, node));
        strike(&world, fault, node);
    }
}

fn strike(world: &Arc<World>, fault: Fault, node: usize) {
    match fault {
        Fault::NoControl => cut_off(world, node, &[Port::Control, Port::Poll]),
        Fault::NoDiscovery => cut_off(world, node, &[Port::Discovery]),
        Fault::NoEtcd => cut_off(world, node, &[Port::Control, Port::Poll, Port::Discovery]),
        Fault::Frozen => world.chaos.freeze(node, how_long(world)),
        Fault::FrozenInPoll => {
            // With a lease that has ended when it wakes, and what was read still counts; or the other way round.
            let (lease_age, how_long) = match world.chaos.chance(50) {
                true => (world.chaos.millis(2_100..2_900), RIGHT_TO_SEND - world.chaos.millis(20..600)),
                false => (Duration::ZERO, RIGHT_TO_SEND + world.chaos.millis(0..1_900)),
            };
            world.chaos.set_trap(Trap { node, lease_age, how_long });
        }
        Fault::NoWaist => {
            let port = if world.chaos.chance(50) { Port::Broker } else { Port::Cache };
            world.chaos.cut_off(node, port, sickness(world), world.chaos.millis(5..2_500));
        }
        Fault::BrokerLost => {
            let broker = world.fleet.brokers[node].clone();
            let lost_for = world.chaos.millis(0..1_500);
            broker.lose_connection();
            world.chaos.spawn(async move {
                sleep(lost_for).await;
                broker.restore_connection();
            });
        }
        Fault::InboxFull => world.fleet.brokers[node].lose_next(world.chaos.pick(|rng| rng.random_range(1..4))),
        Fault::Moved => world.fleet.bus.change_routing(),
        // Who does not move any more after it cannot be found by who connects later: so everybody does, sooner or later.
        Fault::CacheRestart if world.progress() < 50 => {
            world.fleet.cache.lose_data();
            world.everybody_moves();
        }
        Fault::CacheRestart => {}
    }
}

fn sickness(world: &World) -> Sickness {
    [Sickness::Refuses, Sickness::Hangs, Sickness::IsMute][world.chaos.pick(|rng| rng.random_range(0..3))]
}

/// Short, or about as long as a right to send or a lease.
fn how_long(world: &World) -> Duration {
    match world.chaos.pick(|rng| rng.random_range(0..10)) {
        0..3 => world.chaos.millis(50..3_000),
        3..6 => world.chaos.millis(7_500..11_000),
        6..9 => world.chaos.millis(10_500..14_000),
        _ => world.chaos.millis(14_000..20_000),
    }
}

fn cut_off(world: &World, node: usize, ports: &[Port]) {
    let (sickness, how_long) = (sickness(world), how_long(world));
    ports.iter().for_each(|port| world.chaos.cut_off(node, *port, sickness, how_long));
    world.chaos.remember_edges(node, how_long);
}
