//! One thread of load: its people connect, send, and count what comes.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Result, bail};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

use super::pace::{Outstanding, Schedule};
use crate::clock::{At, Clock};
use crate::crowd::push::Push;
use crate::crowd::{Crowd, End, GLANCE, Stage, Traffic, Watcher, Way};
use crate::rest::advice;
use crate::scene::Scene;
use crate::tally::Times;

/// Whoever is not connected by then will not be.
const CONNECT: Duration = Duration::from_secs(120);
/// What was sent in time may come so much later and is still counted.
const AFTERMATH: Duration = Duration::from_millis(500);

/// How fast positions are sent.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Pace {
    /// Open loop: so many in a second.
    Every(f64),
    /// Closed loop: so many under way.
    Outstanding(u32),
}

/// What is known of the load from outside its thread.
#[derive(Debug, Default)]
pub(crate) struct Shown {
    pub(crate) updates: AtomicU64,
    pub(crate) pushes: AtomicU64,
    pub(crate) age_p99_us: AtomicU64,
}

/// The moments of a run, the same for all threads.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    /// From here on positions are sent.
    pub(crate) start: At,
    /// From here on they count.
    pub(crate) begin: At,
    /// Until here.
    pub(crate) end: At,
}

/// What a thread found in the window.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) traffic: Traffic,
    /// Of pushes whose position was to be sent in the window.
    pub(crate) ages: Times,
    /// How much later than due positions were sent.
    pub(crate) lateness: Times,
    /// Pushes that the positions of the window should have caused.
    pub(crate) expected: u64,
    pub(crate) unanswered: u64,
    pub(crate) lost: u64,
}

/// Listens while the load runs.
struct Meter {
    user_base: u64,
    epoch_us: u64,
    window: Option<Window>,
    live: u32,
    failed: Option<(Stage, End)>,
    lost: u64,
    ages: Times,
    recent: Times,
    open: Option<Outstanding>,
}

impl Watcher for Meter {
    fn live(&mut self, _link: u32, _began: At, _said: At, _now: At) {
        self.live += 1;
    }

    fn pushed(&mut self, _link: u32, push: Push, now: At) {
        let intended = At(push.intended_us.saturating_sub(self.epoch_us));
        let Some(window) = self.window else { return };
        let age = now.since(intended);
        self.recent.record(age);
        if intended >= window.begin && intended < window.end {
            self.ages.record(age);
        }
        if let Some(open) = &mut self.open {
            open.came((push.user - self.user_base) as u32, intended);
        }
    }

    fn ended(&mut self, _link: u32, stage: Stage, end: End, _now: At) {
        if stage == Stage::Live {
            self.lost += 1;
        }
        self.failed.get_or_insert((stage, end));
    }
}

/// The load of one thread.
pub(crate) struct Generator<'a> {
    crowd: Crowd<'a>,
    meter: Meter,
    clock: Clock,
    /// Links in the order of their sending.
    order: Vec<u32>,
    /// By link: how many are told of each position.
    watchers: Vec<u32>,
    next: usize,
    /// When the recent ages are no longer recent.
    forget_at: At,
}

impl<'a> Generator<'a> {
    pub(crate) fn new(
        way: &'a dyn Way,
        scene: &Scene,
        people: &[u32],
        user_base: u64,
        clock: Clock,
        epoch_us: u64,
    ) -> Result<Generator<'a>> {
        let crowd = Crowd::new(way, people, clock, epoch_us)?;
        let mut order: Vec<u32> = (0..crowd.len()).collect();
        // Whoever sends one after the other should not be each other's friends.
        order.shuffle(&mut StdRng::seed_from_u64(1));
        let watchers = people.iter().map(|&person| scene.watchers(person).count() as u32).collect();
        let meter = Meter {
            user_base,
            epoch_us,
            window: None,
            live: 0,
            failed: None,
            lost: 0,
            ages: Times::default(),
            recent: Times::default(),
            open: None,
        };
        Ok(Generator { crowd, meter, clock, order, watchers, next: 0, forget_at: At::default() })
    }

    /// Connects everybody, so many at once.
    pub(crate) fn connect_all(&mut self, at_once: u32) -> Result<()> {
        let deadline = self.clock.now().after(CONNECT);
        let mut begun = 0;
        while self.meter.live < self.crowd.len() {
            while begun < self.crowd.len() && begun - self.meter.live < at_once {
                self.crowd.connect(begun, &mut self.meter);
                begun += 1;
            }
            self.crowd.turn(self.clock.now().after(GLANCE), &mut self.meter)?;
            if let Some((stage, end)) = self.meter.failed {
                let hint = if let End::Refused { status, .. } = end {
                    http::StatusCode::from_u16(status).map_or("", advice)
                } else {
                    ""
                };
                bail!("a person could not connect: {end:?} while {stage:?}{hint}");
            }
            if self.clock.now() > deadline {
                bail!("{} of {} connections after {CONNECT:?}", self.meter.live, self.crowd.len());
            }
        }
        Ok(())
    }

    /// Sends through the window, and reads what that causes.
    pub(crate) fn run(&mut self, pace: Pace, window: Window, shown: &Shown) -> Result<Found> {
        self.meter.window = Some(window);
        let people = self.order.iter().map(|&link| self.crowd.person(link)).max().unwrap_or(0) as usize + 1;
        let mut schedule = match pace {
            Pace::Every(rate) => Some(Schedule::new(window.start, rate)),
            Pace::Outstanding(most) => {
                self.meter.open = Some(Outstanding::new(most, people));
                None
            }
        };
        while self.clock.now() < window.start {
            self.crowd.turn(window.start, &mut self.meter)?;
        }
        let mut found = Found::default();
        let mut before = None;
        let mut glance = window.start;
        let last = At(window.end.0.saturating_sub(1));
        loop {
            let now = self.clock.now();
            if before.is_none() && now >= window.begin {
                before = Some(self.crowd.traffic);
                self.set_unanswered(0);
            }
            if now >= glance {
                self.show(shown);
                glance = now.after(GLANCE);
            }
            let wake = match &mut schedule {
                Some(schedule) => {
                    // Also what was due at the very end, however late it is.
                    while let Some((nth, due)) = schedule.take(now.min(last)) {
                        let link = self.order[(nth % self.order.len() as u64) as usize];
                        found.lateness.record(now.since(due));
                        if self.crowd.say(link, due, &mut self.meter).is_some() && due >= window.begin {
                            found.expected += u64::from(self.watchers[link as usize]);
                        }
                    }
                    schedule.due()
                }
                None => {
                    let expected = self.fill(now);
                    found.expected += if now >= window.begin && now < window.end { expected } else { 0 };
                    now.after(GLANCE)
                }
            };
            if now >= window.end {
                break;
            }
            self.crowd.turn(wake.min(window.end).min(glance), &mut self.meter)?;
        }
        found.traffic = self.crowd.traffic.since(before.unwrap_or_default());
        found.unanswered = self.meter.open.as_ref().map_or(0, |open| open.unanswered);
        let over = self.clock.now().after(AFTERMATH);
        while self.clock.now() < over {
            self.crowd.turn(over, &mut self.meter)?;
        }
        found.ages = std::mem::take(&mut self.meter.ages);
        found.lost = self.meter.lost;
        Ok(found)
    }

    /// Sends as many as may be under way. Returns the pushes to be expected of them.
    fn fill(&mut self, now: At) -> u64 {
        let mut expected = 0;
        if let Some(open) = &mut self.meter.open {
            open.give_up(now);
        }
        for _ in 0..self.order.len() {
            if !self.meter.open.as_ref().is_some_and(Outstanding::has_room) {
                break;
            }
            let link = self.order[self.next % self.order.len()];
            self.next += 1;
            let (person, watchers) = (self.crowd.person(link), self.watchers[link as usize]);
            let is_free = self.meter.open.as_ref().is_some_and(|open| open.is_free(person));
            // Of a position that nobody is told of, nobody could say when it is done.
            if watchers == 0 || !is_free {
                continue;
            }
            if let Some(shown) = self.crowd.say(link, now, &mut self.meter)
                && let Some(open) = &mut self.meter.open
            {
                open.sent(person, shown, watchers);
                expected += u64::from(watchers);
            }
        }
        expected
    }

    fn set_unanswered(&mut self, count: u64) {
        if let Some(open) = &mut self.meter.open {
            open.unanswered = count;
        }
    }

    fn show(&mut self, shown: &Shown) {
        shown.updates.store(self.crowd.traffic.updates, Ordering::Relaxed);
        shown.pushes.store(self.crowd.traffic.pushes(), Ordering::Relaxed);
        let p99 = self.meter.recent.quantile(0.99).as_micros() as u64;
        shown.age_p99_us.store(p99, Ordering::Relaxed);
        if self.clock.now() >= self.forget_at {
            self.forget_at = self.clock.now().after(Duration::from_secs(1));
            self.meter.recent.clear();
        }
    }
}
