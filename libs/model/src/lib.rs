//! The vocabulary of Nearby: who, where, when, and what a friend may see of it.
//!
//! Everything here is pure: no async, no I/O, no clock, no logging. An exact [`Fix`] has no way towards a client;
//! [`Edge::reveal`] is the one door, and [`SharedFix`] is what comes out of it.

mod ids;
mod units;
mod position;
mod distance;
mod motion;
mod fix;
mod edge;

pub use distance::{Place, Radius, haversine};
pub use edge::{Edge, Level, SharedFix};
pub use fix::{Fix, Order};
pub use ids::{Generation, NodeId, PolicyVersion, Sequence, SessionId, UserId};
pub use motion::{BadMotion, Motion, MotionField};
pub use position::{BadPosition, Position};
pub use units::{Meters, MonotonicMs, TimestampMs};
