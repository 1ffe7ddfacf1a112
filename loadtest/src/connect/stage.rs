//! The play: everybody connects, and the storms.

use std::time::Duration;

use anyhow::{Result, ensure};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

use super::Options;
use super::arrivals::Arrivals;
use super::findings::{Ages, Wave};
use crate::clock::{At, Clock, wall_ms};
use crate::crowd::push::Push;
use crate::crowd::{Crowd, End, GLANCE, Stage, Watcher, Way};
use crate::process::{Role, Used};
use crate::report::rounded;
use crate::saturate::{Memory, Quantiles, Schedule, kernel_socket_bytes};
use crate::scene::Scene;
use crate::tally::Times;

/// Whoever is not back by then will not be.
const PATIENCE: Duration = Duration::from_secs(120);

/// Listens to all links.
struct Ear {
    epoch_us: u64,
    live: u32,
    /// From the beginning of an attempt that was answered until the list.
    whole: Times,
    /// From `init` to the list.
    init: Times,
    /// From the instant of the cut until the list.
    back: Times,
    cut_at: Option<At>,
    refused: u64,
    closed: u64,
    broken: u64,
    /// Links that are never cut.
    stays: Vec<bool>,
    /// Older positions do not count.
    ages_from: At,
    /// Of what those who stay are told of others.
    ages: Times,
    /// Who has to come again, and when they were told to.
    again: Vec<(u32, Option<u64>)>,
}

impl Watcher for Ear {
    fn live(&mut self, _link: u32, began: At, said: At, now: At) {
        self.live += 1;
        self.whole.record(now.since(began));
        self.init.record(now.since(said));
        if let Some(cut_at) = self.cut_at {
            self.back.record(now.since(cut_at));
        }
    }

    fn pushed(&mut self, link: u32, push: Push, now: At) {
        let intended = At(push.intended_us.saturating_sub(self.epoch_us));
        if self.stays[link as usize] && intended >= self.ages_from {
            self.ages.record(now.since(intended));
        }
    }

    fn ended(&mut self, link: u32, stage: Stage, end: End, _now: At) {
        let told = match end {
            End::Refused { retry_after_s, .. } => {
                self.refused += 1;
                retry_after_s
            }
            End::Closed(_) => {
                self.closed += 1;
                None
            }
            End::Broken | End::Nonsense => {
                self.broken += 1;
                None
            }
        };
        self.live -= u32::from(stage == Stage::Live);
        self.again.push((link, told));
    }
}

/// Everybody's links, through all waves.
pub(super) struct Play<'a> {
    crowd: Crowd<'a>,
    ear: Ear,
    arrivals: Arrivals,
    clock: Clock,
    roles: &'a [Role],
    /// Links that stay through the storms, in the order of their sending.
    staying: Vec<u32>,
    schedule: Option<Schedule>,
    rate: f64,
}

/// What a stretch of the play took.
struct Stretch {
    wall: Duration,
    cpu: Duration,
}

impl<'a> Play<'a> {
    pub(super) fn new(options: &Options, roles: &'a [Role], scene: &Scene, way: &'a dyn Way) -> Result<Play<'a>> {
        let (clock, epoch_us) = (Clock::start(), wall_ms() * 1_000);
        let crowd = Crowd::new(way, &scene.online, clock, epoch_us)?;
        let mut links: Vec<u32> = (0..crowd.len()).collect();
        links.shuffle(&mut StdRng::seed_from_u64(2));
        links.truncate((f64::from(crowd.len()) * options.stay_share) as usize);
        let mut stays = vec![false; crowd.len() as usize];
        links.iter().for_each(|&link| stays[link as usize] = true);
        let ear = Ear {
            epoch_us,
            stays,
            live: 0,
            whole: Times::default(),
            init: Times::default(),
            back: Times::default(),
            cut_at: None,
            ages_from: At::default(),
            ages: Times::default(),
            refused: 0,
            closed: 0,
            broken: 0,
            again: Vec::new(),
        };
        let (arrivals, rate) = (Arrivals::new(), options.rate);
        Ok(Play { crowd, ear, arrivals, clock, roles, staying: links, schedule: None, rate })
    }

    /// All connect, so many at once.
    pub(super) fn everybody_connects(&mut self, at_once: u32) -> Result<Wave> {
        let (rss_before, kernel_before) = (self.used()?.1, kernel_socket_bytes());
        let all = self.crowd.len();
        let mut next = 0;
        let stretch = self.until_all_live(|play| {
            while next < all && next - play.ear.live < at_once {
                play.crowd.connect(next, &mut play.ear);
                next += 1;
            }
        })?;
        let mut wave = self.wave(all, &stretch, Duration::ZERO);
        // What connecting has left behind comes to rest.
        std::thread::sleep(Duration::from_secs(1));
        let per = |after: u64, before: u64| rounded((after as f64 - before as f64) / f64::from(all));
        wave.memory_per_connection = (!self.roles.is_empty()).then_some(Memory {
            user_bytes: per(self.used()?.1, rss_before),
            kernel_bytes: kernel_before.zip(kernel_socket_bytes()).map(|(before, after)| per(after, before)),
        });
        Ok(wave)
    }

    /// All but those who stay are cut, and come back within `over`.
    pub(super) fn storm(&mut self, over: Duration, quiet: Duration) -> Result<Wave> {
        let began = self.clock.now();
        self.schedule = (!self.staying.is_empty()).then(|| Schedule::new(began, self.rate));
        let (before, end) = (self.used()?.0, began.after(quiet));
        self.listen_from(began);
        while self.clock.now() < end {
            self.turn(end)?;
        }
        let quiet_ages = Quantiles::from(&self.ear.ages);
        let idle = self.used()?.0.saturating_sub(before).div_f64(quiet.as_secs_f64().max(0.001));
        let cut: Vec<u32> = (0..self.crowd.len()).filter(|&link| !self.ear.stays[link as usize]).collect();
        self.listen_from(self.clock.now());
        self.ear.cut_at = Some(self.clock.now());
        for &link in &cut {
            self.crowd.cut(link);
        }
        self.ear.live -= cut.len() as u32;
        self.arrivals.spread(cut.iter().copied(), self.clock.now(), over);
        let stretch = self.until_all_live(|_| {})?;
        let mut wave = self.wave(cut.len() as u32, &stretch, idle.mul_f64(stretch.wall.as_secs_f64()));
        wave.over_s = Some(over.as_secs_f64());
        wave.back_ms = (&self.ear.back).into();
        wave.ages = Some(Ages { quiet_ms: quiet_ages, storm_ms: (&self.ear.ages).into() });
        (self.schedule, self.ear.cut_at) = (None, None);
        Ok(wave)
    }

    fn listen_from(&mut self, now: At) {
        let ear = &mut self.ear;
        ear.ages_from = now;
        [&mut ear.ages, &mut ear.whole, &mut ear.init, &mut ear.back].into_iter().for_each(Times::clear);
        (ear.refused, ear.closed, ear.broken) = (0, 0, 0);
    }

    fn until_all_live(&mut self, mut each_turn: impl FnMut(&mut Self)) -> Result<Stretch> {
        let (began, before) = (self.clock.now(), self.used()?.0);
        while self.ear.live < self.crowd.len() {
            each_turn(self);
            self.turn(self.clock.now().after(GLANCE))?;
            let waited = self.clock.now().since(began);
            ensure!(waited < PATIENCE, "{} of {} connections after {waited:?}", self.ear.live, self.crowd.len());
        }
        Ok(Stretch { wall: self.clock.now().since(began), cpu: self.used()?.0.saturating_sub(before) })
    }

    /// Sends what is due, connects who is due, and listens.
    fn turn(&mut self, until: At) -> Result<()> {
        let now = self.clock.now();
        for (link, told) in std::mem::take(&mut self.ear.again) {
            self.arrivals.again(link, now, told);
        }
        while let Some(link) = self.arrivals.take(now) {
            self.crowd.connect(link, &mut self.ear);
        }
        let mut wake = self.arrivals.next().map_or(until, |next| next.min(until));
        if let Some(schedule) = &mut self.schedule {
            while let Some((nth, due)) = schedule.take(now) {
                let link = self.staying[(nth % self.staying.len() as u64) as usize];
                self.crowd.say(link, due, &mut self.ear);
            }
            wake = wake.min(schedule.due());
        }
        self.crowd.turn(wake, &mut self.ear)
    }

    /// CPU and memory of all roles.
    fn used(&self) -> Result<(Duration, u64)> {
        let mut all = (Duration::ZERO, 0);
        for role in self.roles {
            let Used { cpu, rss_bytes } = role.used()?;
            all = (all.0 + cpu, all.1 + rss_bytes);
        }
        Ok(all)
    }

    fn wave(&self, connections: u32, stretch: &Stretch, others: Duration) -> Wave {
        let (ear, seconds) = (&self.ear, stretch.wall.as_secs_f64());
        let own = stretch.cpu.saturating_sub(others).as_secs_f64();
        Wave {
            connections,
            over_s: None,
            all_s: rounded(seconds),
            per_s: rounded(f64::from(connections) / seconds.max(0.001)),
            connect_ms: (&ear.whole).into(),
            init_ms: (&ear.init).into(),
            back_ms: Quantiles::default(),
            refused: ear.refused,
            closed: ear.closed,
            broken: ear.broken,
            us_per_connect: (!self.roles.is_empty()).then(|| rounded(own * 1e6 / f64::from(connections.max(1)))),
            memory_per_connection: None,
            ages: None,
        }
    }
}
