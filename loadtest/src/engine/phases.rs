//! What each part of an update takes, by the CPU time of this thread: others on the machine do not count.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// A stopwatch of this thread's CPU time. Reading it takes a system call, so it is read a few times a batch.
pub(super) struct Cpu(Option<Duration>);

impl Cpu {
    /// Without a clock every lap takes nothing.
    pub(super) fn start(clock: bool) -> Cpu {
        Cpu(clock.then(now))
    }

    /// Since the last lap.
    pub(super) fn lap(&mut self) -> Duration {
        let Some(last) = &mut self.0 else { return Duration::ZERO };
        let now = now();
        now.saturating_sub(std::mem::replace(last, now))
    }
}

fn now() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}

/// CPU time of one core, by what it went into.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Phases {
    /// Taking in the position: the fix is made, its own viewer moves.
    pub moved: Duration,
    /// The fan-out: lookup, checks, marks, bells.
    pub heard: Duration,
    /// Taking out the news: permissions, distance, frame.
    pub drain: Duration,
    /// Writing the frames as JSON.
    pub encode: Duration,
    /// Looking for those who fell silent, once a second.
    pub expire: Duration,
}

/// The same for one update, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct NsPerUpdate {
    /// moved.
    pub moved: f64,
    /// heard.
    pub heard: f64,
    /// drain.
    pub drain: f64,
    /// encode.
    pub encode: f64,
    /// expire.
    pub expire: f64,
}

impl NsPerUpdate {
    /// Of so many updates.
    pub(super) fn of(phases: Phases, updates: u64) -> NsPerUpdate {
        let each = |spent: Duration| spent.as_secs_f64() * 1e9 / updates.max(1) as f64;
        NsPerUpdate {
            moved: each(phases.moved),
            heard: each(phases.heard),
            drain: each(phases.drain),
            encode: each(phases.encode),
            expire: each(phases.expire),
        }
    }

    /// All of it.
    pub fn total(&self) -> f64 {
        self.moved + self.heard + self.drain + self.encode + self.expire
    }

    /// What follows from friends being watched and told.
    pub fn fan_out(&self) -> f64 {
        self.heard + self.drain + self.encode
    }
}
