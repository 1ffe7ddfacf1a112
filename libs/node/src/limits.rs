//! Every bound of the engine, with its unit. What an operator may change is in [`crate::Settings`]; these may not be.

use std::time::Duration;

/// Shards of one node; bits of the mask that says which shards watch a user.
pub const SHARDS: usize = 32;
/// Connections one user may hold on one node; the oldest gives way.
pub const SESSIONS_PER_USER: usize = 8;
/// Edges of one viewer: friends, and the viewer's own other devices. An index into them is 16 bits.
pub const EDGES_PER_VIEWER: usize = ports::friendships::MAX_FRIENDS + 64;
/// Changes in the list of friends that wait for one viewer.
pub const NOTICES_PER_VIEWER: usize = 2 * ports::friendships::MAX_FRIENDS;

/// Connections that are told of news in one turn of a shard's courier.
pub const TOLD_PER_TURN: usize = 64;
/// Texts of `friend` frames that a courier remembers, of about 200 bytes each: those of one turn's positions, mostly.
pub const TEXTS: usize = 32;
/// Frames that are taken out of a shard for one viewer in one go.
pub const FRAMES_PER_DRAIN: usize = 64;
/// Bytes of one frame at the most: a friend with all fields is under 250.
pub const FRAME_BYTES: usize = 512;
/// Bytes of the kernel's send buffer of one connection.
pub const SEND_BUFFER_BYTES: usize = 16 * 1024;
/// Bytes held for a client that does not read, in the process and in the kernel.
pub const SLOW_READER_BYTES: usize = 64 * 1024;

/// Positions published in one go.
pub const PUMP_BATCH: usize = 1_024;
/// Positions that the location cache missed and is given in one go, between two batches of what is new.
pub const PUMP_PAYMENT: usize = PUMP_BATCH / 4;
/// Points that wait to be written to the history; above it they are dropped and counted.
pub const HISTORY_QUEUE: usize = 65_536;
/// Points written to the history in one go.
pub const HISTORY_BATCH: usize = 4_096;
/// How long points wait for company before they are written, when nobody waits for them.
pub const HISTORY_LINGER: Duration = Duration::from_millis(100);
/// Batches that wait in a node's inbox.
pub const INBOX_BATCHES: usize = 1_024;

/// Requests for subscriptions that wait.
pub const SUBSCRIPTION_QUEUE: usize = 4_096;
/// Channels in one subscribe call, and users in one cache read.
pub const SUBSCRIPTION_BATCH: usize = 512;
/// Subscribe calls, and unsubscribe calls, under way at once, so that a frozen owner of some channels does not hold up the others.
pub const SUBSCRIPTIONS_AT_ONCE: usize = 16;
/// How long a connect waits for its subscriptions and the cache; the rest is owed and comes as pushes.
pub const CONNECT_PATIENCE: Duration = Duration::from_millis(200);
/// How soon what failed (a subscription, a read, a publication) is tried again.
pub const RETRY: Duration = Duration::from_millis(250);
/// A channel that nobody watches any more is kept for this long, so that a reconnect finds it.
pub const LINGER: Duration = Duration::from_secs(60);
/// A friend who was heard of and then falls silent is read once from the cache after this time.
pub const SILENCE: Duration = Duration::from_secs(90);

/// Pairs of users whose friendship is read in one call.
pub const PAIRS_AT_ONCE: usize = 512;
/// How long such a call may take.
pub const PAIR_READ: Duration = Duration::from_secs(2);

/// How long one call of the location cache may take.
pub const CACHE_PATIENCE: Duration = Duration::from_millis(150);
/// Failures in a row after which the cache is left alone for a while.
pub const CACHE_FAILURES: u32 = 3;
/// How long it is left alone.
pub const CACHE_REST: Duration = Duration::from_secs(1);
/// How long the sharing devices may take to be looked up of users whose positions turned out to be old.
pub const LOCATE_TIMEOUT: Duration = Duration::from_millis(150);
/// How long one publish may take.
pub const PUBLISH_PATIENCE: Duration = Duration::from_secs(2);

/// How often the registry's entries of connections that share here are prolonged.
pub const RENEW: Duration = Duration::from_secs(40 * 60);
/// How old the knowledge may be who the members are.
pub const MEMBERS: Duration = Duration::from_secs(1);

/// How often deadlines and expiry are looked at.
pub const TICK: Duration = Duration::from_secs(1);
/// How often a node polls the control log when nothing calls.
pub const CONTROL_POLL: Duration = Duration::from_secs(2);
/// How often it prolongs its lease.
pub const KEEPALIVE: Duration = Duration::from_secs(3);
/// How long one call of control log or discovery may take.
pub const CONTROL_PATIENCE: Duration = Duration::from_secs(3);
/// A revoke waits this long for what was taken out before it to reach the kernel; then the connection is cut.
pub const FLUSH_PATIENCE: Duration = Duration::from_millis(500);

/// Users whose rate of calls is remembered; who is not has a full bucket.
pub const CALLERS: usize = 65_536;
/// No call over HTTP takes longer than this.
pub const CALL: Duration = Duration::from_secs(60);

/// How far ahead of this machine's clock a device's time may be.
pub const AHEAD: Duration = ports::history::AHEAD;

const _: () = assert!(EDGES_PER_VIEWER <= u16::MAX as usize, "an edge's index is 16 bits");
const _: () = assert!(SHARDS <= u32::BITS as usize, "one bit a shard");
const _: () = assert!(
    2 * FRAMES_PER_DRAIN * FRAME_BYTES <= SLOW_READER_BYTES,
    "one drain is held as frames and, at the worst, once more in the socket's buffer"
);
const _: () = assert!(
    ports::control::RIGHT_TO_SEND.as_millis() <= ports::discovery::LEASE.as_millis(),
    "a revoke waits T: no node may hold a lease for less and send for longer"
);
const _: () = assert!(
    CONTROL_POLL.as_millis() + 2 * CONTROL_PATIENCE.as_millis() < ports::control::RIGHT_TO_SEND.as_millis(),
    "one slow poll does not silence a node"
);
const _: () = assert!(KEEPALIVE.as_millis() + 2 * CONTROL_PATIENCE.as_millis() < ports::discovery::LEASE.as_millis());
const _: () = assert!(3 * RENEW.as_secs() <= ports::sessions::ENTRY.as_secs(), "one failed turn loses no entry");
const _: () = assert!(CACHE_PATIENCE.as_millis() < CONNECT_PATIENCE.as_millis());
const _: () = assert!(HISTORY_BATCH <= HISTORY_QUEUE);
