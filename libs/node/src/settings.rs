//! What an operator may set.

use std::time::Duration;

use model::Meters;

use crate::planted::{Break, Freezer};

/// The engine's settings; `nearby`'s configuration fills them.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Shards: one a core, at most [`crate::limits::SHARDS`].
    pub shards: usize,
    /// How long a silent friend stays visible.
    pub ttl: Duration,
    /// The radius of a viewer that names none.
    pub radius: Meters,
    /// The largest radius a viewer may ask for.
    pub max_radius: Meters,
    /// Frames a second that one connection may send in the long run, positions mostly.
    pub updates_per_second: f64,
    /// Frames it may send at once.
    pub update_burst: u32,
    /// How far back a position's own time may lie: how long the history is kept.
    pub retention: Duration,
    /// Tests only: what this node does wrong.
    pub planted: Option<Break>,
    /// Tests only: what stops this node for a while.
    pub freezer: Option<&'static Freezer>,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            shards: 1,
            ttl: Duration::from_secs(600),
            radius: Meters::FIVE_MILES,
            max_radius: Meters(50_000.0),
            updates_per_second: 2.0,
            update_burst: 20,
            retention: Duration::from_secs(30 * 86_400),
            planted: None,
            freezer: None,
        }
    }
}
