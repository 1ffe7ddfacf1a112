//! The scenarios of `world` on three nodes in one process that have nothing in common but real servers: a cache, three
//! pub/sub nodes, etcd and Cassandra. The servers are shared by all tests; keys, documents and tables are each test's
//! own.

#![expect(clippy::unwrap_used, reason = "the helpers of tests are tests too")]

/// Makes a test of each scenario. How many nodes it has on the embedded backends does not matter here: three.
macro_rules! scenarios {
    ($($scenario:ident on $sizes:expr $(, with $settings:expr)?;)+) => {
        mod servers {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $scenario() {
                    #[allow(unused_variables, reason = "which of the two is used")]
                    let settings = crate::world::settings();
                    $(let settings = { use super::*; $settings };)?
                    crate::foundation::play(settings, super::$scenario).await;
                }
            )+
        }
    };
}

#[path = "../world/application.rs"]
mod application;
mod foundation;
mod keyspaces;
#[path = "../world/phone.rs"]
mod phone;
#[path = "../world/world.rs"]
mod world;

#[path = "../world/connecting.rs"]
mod connecting;
#[path = "../world/friendships.rs"]
mod friendships;
#[path = "../world/moving.rs"]
mod moving;
#[path = "../world/races.rs"]
mod races;
#[path = "../world/reports.rs"]
mod reports;
#[path = "../world/sharing.rs"]
mod sharing;
#[path = "../world/silence.rs"]
mod silence;
#[path = "../world/simulation.rs"]
mod simulation;
