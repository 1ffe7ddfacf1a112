//! Location cache, session registry and broker on Redis: the only crate that knows it is Redis.
//!
//! [`RedisCache`] and [`RedisSessions`] speak through a driver to one server, a cluster or a server behind sentinels,
//! as the URL says. [`RedisBroker`] speaks to plain pub/sub servers that do not know of each other; which channel lives
//! where says the ring ([`protocol::ring`]).

mod broker;
mod cache;
mod client;
mod sessions;

pub use broker::{
    Break, BrokerCounters, BrokerSettings, Connection, Dial, PubSubAnswer, PubSubStatus, RedisBroker, Stream,
    Unreachable, announce_ring, pubsub_status,
};
pub use cache::RedisCache;
pub use sessions::RedisSessions;
