//! The engine as its users meet it: N nodes in one process, on the embedded backends and virtual time.
//!
//! What `scenarios!` names runs on real servers as well, in `world_on_servers`. Everything else here needs what only
//! the embedded backends have: faults at command, and hours that pass at once.

#![expect(clippy::unwrap_used, reason = "the helpers of tests are tests too")]

/// Makes a test of each scenario, which sees a [`world::World`] of each of these sizes.
macro_rules! scenarios {
    ($($scenario:ident on $sizes:expr $(, with $settings:expr)?;)+) => {
        mod embedded {
            $(
                #[tokio::test(start_paused = true)]
                async fn $scenario() {
                    #[allow(unused_variables, reason = "which of the two is used")]
                    let settings = crate::world::settings();
                    $(let settings = { use super::*; $settings };)?
                    crate::foundation::play(&$sizes, settings, super::$scenario).await;
                }
            )+
        }
    };
}

mod application;
mod foundation;
mod phone;
mod world;

mod connecting;
mod friendships;
mod moving;
mod races;
mod reports;
mod sharing;
mod silence;
mod simulation;

mod faults;
mod hours;
mod outages;
