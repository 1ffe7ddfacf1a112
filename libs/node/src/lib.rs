//! The engine of one node, between the sockets and the ports.
//!
//! The way of one update, in reading order: [`session`](Session) takes it in, `shard` moves its owner, `recorder` takes
//! it to the history, and `pump` to cache and broker; then, perhaps on another machine, `fanout` takes it from the inbox to the shards
//! that watch its owner, `shard` marks who has news, `courier` goes to their connections, and those take it from their
//! `feed`.
//!
//! `control` applies changes of permissions and keeps the right to send; `pairs` reads again what changed; `erasure` drops
//! what is held of deleted users; `subscriptions` keeps the broker in step with
//! `interest`; `limits` has every bound. No backend is named here.

pub mod limits;
mod patience;
mod planted;
mod settings;
mod rate;
mod watermark;
mod signal;
mod session;
mod feed;
mod calls;
pub mod shard;
mod pump;
mod recorder;
mod bell;
mod breaker;
mod fanout;
mod courier;
mod interest;
mod subscriptions;
mod control;
mod pairs;
mod erasure;
mod registry;
mod metrics;
mod shared;
mod node;

pub use calls::{Answer, NearbyCall};
pub use courier::{Outlet, Space};
pub use feed::Feed;
pub use metrics::{Metrics, Outcome};
pub use node::Node;
pub use planted::{Break, Freezer};
pub use session::{Refused, Session};
pub use settings::Settings;
pub use shared::Backends;
pub use signal::Signal;
