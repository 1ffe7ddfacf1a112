//! One real shard with people in it, driven as a node drives it, without sockets. The only file of the load tester that
//! names the engine: what judges a server from outside knows nothing of it.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use model::{
    Fix, Generation, Level, Meters, MonotonicMs, Motion, MotionField, Order, Place, PolicyVersion, Position, Radius,
    TimestampMs, UserId,
};
use node::Signal;
use node::limits::{FRAMES_PER_DRAIN, TEXTS};
use node::shard::{Interests, News, Shard, Tally, ViewerId};
use parking_lot::Mutex;
use ports::Friendship;
use protocol::client::{Friend, FriendTexts, Limit, ServerFrame};
use rustc_hash::FxHashMap;

use super::phases::{Cpu, Phases};
use super::towns::{Shape, Towns};
use crate::process::Used;

/// Between two positions of one person, by the engine's clock.
pub(super) const STEP: Duration = Duration::from_secs(30);
const TTL: Duration = Duration::from_secs(600);
const SECOND: u64 = 1_000;
/// What devices say the time is at step 0.
const DEVICE_TIME: u64 = 1_700_000_000_000;
const GENERATION: Generation = Generation(1);

/// A shard and those in it. Each part of an update is a function of its own also in the executable, so that tools which
/// count by functions (callgrind) find it.
pub(super) struct Populated {
    shard: Mutex<Shard>,
    towns: Towns,
    order: Vec<u32>,
    /// The bell says who is to be drained: in a node the connection's task hears it.
    bells: FxHashMap<usize, ViewerId>,
    /// Positions taken in so far: everybody in turn.
    turns: u64,
    ticked: u64,
    /// Whether to take the time.
    clock: bool,
    scratch: Scratch,
    /// Resident memory that the people took.
    pub(super) bytes: u64,
}

/// Lists that keep their memory from batch to batch.
#[derive(Default)]
struct Scratch {
    batch: Vec<(UserId, Position, TimestampMs)>,
    fixes: Vec<Fix>,
    woken: Vec<Arc<Signal>>,
    frames: Vec<ServerFrame>,
    texts: FriendTexts,
    bytes: Vec<u8>,
}

/// What a run did.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Done {
    /// Positions taken in, and heard.
    pub(super) updates: u64,
    /// What that took.
    pub(super) cpu: Phases,
    /// Distances compared by hearing of friends.
    pub(super) checks: u64,
    /// Distances compared by viewers that looked around, having moved near a border.
    pub(super) own_checks: u64,
    /// Frames made.
    pub(super) told: u64,
    /// News that came before the last was told, and took its place.
    pub(super) replaced: u64,
    /// Of the frames' text.
    pub(super) bytes: u64,
}

impl Populated {
    /// Connects everybody and lets everybody be heard of once.
    pub(super) fn connect(towns: Towns, clock: bool) -> Result<Populated> {
        let people = towns.shape().people as usize;
        let order = towns.by_id();
        // Filled, so that it is resident: what is counted is what comes after.
        let mut viewers: Vec<(usize, Option<ViewerId>)> = vec![(usize::MAX, None); people];
        let before = Used::by(std::process::id())?.rss_bytes;
        let mut shard = Shard::default().with_ttl(TTL);
        let mut interests = Interests::default();
        for (id, &rank) in order.iter().enumerate() {
            let (bell, viewer) = admit(&mut shard, &towns, rank, &mut interests);
            viewers[id] = (bell, Some(viewer));
            // A node hands them to its subscriptions; here they would only take room.
            interests = Interests::default();
        }
        let mut populated = Populated {
            shard: Mutex::new(shard),
            towns,
            order,
            bells: FxHashMap::default(),
            turns: 0,
            ticked: 0,
            clock,
            scratch: Scratch { texts: FriendTexts::new(TEXTS), ..Scratch::default() },
            bytes: 0,
        };
        populated.all_appear(&viewers)?;
        let after = Used::by(std::process::id())?.rss_bytes;
        populated.bytes = after.saturating_sub(before);
        populated.bells = viewers.into_iter().filter_map(|(bell, viewer)| Some((bell, viewer?))).collect();
        Ok(populated)
    }

    /// Everybody's first position, and the first page, from which on they are told what changes.
    fn all_appear(&mut self, viewers: &[(usize, Option<ViewerId>)]) -> Result<()> {
        for _ in 0..self.order.len() {
            let (user, position, ts) = self.next()?;
            let fix = fix(user, position, ts, self.now());
            self.shard.lock().moved(&fix, Duration::ZERO, self.now());
            self.shard.lock().heard(&fix, self.now());
            self.turns += 1;
        }
        for viewer in viewers.iter().filter_map(|(_, viewer)| *viewer) {
            self.shard.lock().first_page(viewer, Limit::default(), self.now());
        }
        self.shard.lock().take_tally();
        Ok(())
    }

    /// How many people there are, and how befriended.
    pub(super) fn shape(&self) -> Shape {
        self.towns.shape()
    }

    /// Takes in `updates` positions, in batches of so many, and tells everybody who has to be told.
    pub(super) fn run(&mut self, updates: u64, batch: usize) -> Result<Done> {
        let mut done = Done::default();
        while done.updates < updates {
            let size = (updates - done.updates).min(batch as u64) as usize;
            self.pass(size, &mut done)?;
        }
        Ok(done)
    }

    /// Who is next, where they are and when. Made outside of what is measured.
    fn next(&self) -> Result<(UserId, Position, TimestampMs)> {
        let people = self.order.len() as u64;
        let (step, rank) = (self.turns / people, self.order[(self.turns % people) as usize]);
        let position = self.towns.position(rank, step, STEP.as_secs_f64())?;
        Ok((self.towns.user(rank), position, TimestampMs(DEVICE_TIME + step * STEP.as_millis() as u64)))
    }

    /// Everybody's turn comes once in a step.
    fn now(&self) -> MonotonicMs {
        MonotonicMs(SECOND + self.turns * STEP.as_millis() as u64 / self.order.len() as u64)
    }

    fn pass(&mut self, size: usize, done: &mut Done) -> Result<()> {
        let mut scratch = std::mem::take(&mut self.scratch);
        let now = self.now();
        scratch.batch.clear();
        for _ in 0..size {
            scratch.batch.push(self.next()?);
            self.turns += 1;
        }
        let mut cpu = Cpu::start(self.clock);
        self.take_in(&mut scratch, now, done);
        done.cpu.moved += cpu.lap();
        self.fan_out(&mut scratch, now, done);
        done.cpu.heard += cpu.lap();
        let viewers: Vec<ViewerId> = self.whose(&scratch.woken)?;
        cpu.lap();
        self.drain(&viewers, &mut scratch, now, done);
        done.cpu.drain += cpu.lap();
        done.bytes += encode(&mut scratch);
        done.cpu.encode += cpu.lap();
        if now.0 / SECOND > self.ticked {
            self.ticked = now.0 / SECOND;
            self.shard.lock().expire(now, &mut Vec::new());
        }
        done.cpu.expire += cpu.lap();
        done.updates += size as u64;
        self.scratch = scratch;
        Ok(())
    }

    /// The sender's half, one position at a time as sessions bring them.
    #[inline(never)]
    fn take_in(&self, scratch: &mut Scratch, now: MonotonicMs, done: &mut Done) {
        scratch.fixes.clear();
        let mut rung = Vec::new();
        for (user, position, ts) in &scratch.batch {
            let fix = fix(*user, *position, *ts, now);
            let tally = {
                let mut shard = self.shard.lock();
                shard.moved(&fix, Duration::ZERO, now);
                shard.take_woken(usize::MAX, &mut rung);
                shard.take_tally()
            };
            done.own_checks += tally.checks;
            done.replaced += tally.replaced;
            scratch.fixes.push(fix);
        }
        // Who walked across somebody's border: nobody, as the towns are made, but a node would ring.
        rung.drain(..).for_each(|signal| signal.ring());
    }

    /// The viewers' half: one lock for all of a batch, bells after unlocking.
    #[inline(never)]
    fn fan_out(&self, scratch: &mut Scratch, now: MonotonicMs, done: &mut Done) {
        scratch.woken.clear();
        let tally: Tally = {
            let mut shard = self.shard.lock();
            shard.heard_all(&scratch.fixes, now);
            shard.take_woken(usize::MAX, &mut scratch.woken);
            shard.take_tally()
        };
        done.checks += tally.checks;
        done.replaced += tally.replaced;
        scratch.woken.iter().for_each(|signal| signal.ring());
    }

    fn whose(&self, woken: &[Arc<Signal>]) -> Result<Vec<ViewerId>> {
        let viewer = |signal: &Arc<Signal>| self.bells.get(&bell(signal)).copied();
        woken.iter().map(viewer).collect::<Option<_>>().context("a bell was rung that is nobody's")
    }

    /// What each session that was rung does, up to the frames.
    #[inline(never)]
    fn drain(&self, viewers: &[ViewerId], scratch: &mut Scratch, now: MonotonicMs, done: &mut Done) {
        for (viewer, signal) in viewers.iter().zip(&scratch.woken) {
            loop {
                let mut news = Vec::new();
                let (drained, tally) = {
                    let mut shard = self.shard.lock();
                    (shard.drain(*viewer, now, FRAMES_PER_DRAIN, &mut news), shard.take_tally())
                };
                done.told += tally.delivered;
                scratch.frames.extend(news.into_iter().filter_map(frame));
                signal.flushed();
                if !drained.more {
                    break;
                }
            }
        }
    }
}

fn admit(shard: &mut Shard, towns: &Towns, rank: u32, interests: &mut Interests) -> (usize, ViewerId) {
    let signal = Arc::new(Signal::default());
    let bell = bell(&signal);
    let viewer = shard.register(towns.user(rank), signal, Radius::new(Meters::FIVE_MILES));
    let here = towns.friends(rank).map(|friend| towns.user(friend));
    let friends = here.chain(towns.absent_friends(rank));
    let mut friends: Vec<Friendship> = friends.map(|friend| Friendship { friend, level: Level::Exact }).collect();
    friends.sort_unstable_by_key(|friendship| friendship.friend);
    shard.admit(viewer, &friends, interests);
    shard.share(viewer, GENERATION);
    (bell, viewer)
}

/// As the gateway does: a text of its own for each, in space that is used again when the socket has taken it.
#[inline(never)]
fn encode(scratch: &mut Scratch) -> u64 {
    let Scratch { frames, texts, bytes, .. } = scratch;
    let text = |frame: ServerFrame| {
        bytes.clear();
        texts.encode_into(&frame, bytes);
        std::hint::black_box(&*bytes).len() as u64
    };
    frames.drain(..).map(text).sum()
}

fn bell(signal: &Arc<Signal>) -> usize {
    Arc::as_ptr(signal) as usize
}

/// A phone that walks says how exactly, how fast and where to.
fn fix(user: UserId, position: Position, ts: TimestampMs, now: MonotonicMs) -> Fix {
    let said = [(MotionField::AccuracyM, 8.5), (MotionField::SpeedMps, 1.4), (MotionField::HeadingDeg, 182.5)];
    let motion =
        said.iter().fold(Motion::UNKNOWN, |motion, (field, value)| motion.with(*field, *value).unwrap_or(motion));
    Fix {
        user,
        place: Place::new(position),
        order: Order { generation: GENERATION, ts, ..Order::default() },
        expires: now.after(TTL),
        policy: PolicyVersion(0),
        motion,
    }
}

fn frame(news: News) -> Option<ServerFrame> {
    match news {
        News::Friend { shared, distance, .. } => Some(ServerFrame::Friend(Friend::new(&shared, distance))),
        News::Gone(id, reason) => Some(ServerFrame::Gone { id, reason }),
        News::Added(_) | News::Removed(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_friend_is_checked_and_every_near_one_told() {
        let shape = Shape { people: 2_000, friends: 20, near: 4, absent: 10, absent_people: 1 };
        let mut populated = Populated::connect(Towns::settle(shape, 3).unwrap(), true).unwrap();
        // Batches so small that nobody has two pieces of news about one friend in one of them.
        let done = populated.run(6_000, 16).unwrap();
        assert_eq!((done.updates, done.checks), (6_000, 6_000 * 20));
        assert_eq!(done.told + done.replaced, 6_000 * 4, "{done:?}");
        assert!(done.replaced < 240, "{done:?}");
        // A frame is JSON of a friend with three fields of motion.
        assert!((120..300).contains(&(done.bytes / done.told)), "{done:?}");
    }
}
