//! Friendships that begin and end, and people who lose their connection, while everybody moves.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use anyhow::Result;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::clock::At;
use crate::faults::Fault;
use crate::person::{Goodbye, Leave, Phase, Stage};
use crate::rest::Rest;

/// How long two stay apart at least: long enough that a position sent after the end would be seen.
const APART: Duration = Duration::from_millis(1_500);
/// Requests under way at once; above this a tick does nothing.
const CHANGES_AT_ONCE: usize = 16;

/// Two whom churn has set apart, and when that was acknowledged.
struct Parted {
    pair: (usize, usize),
    at: At,
}

/// Restless people.
pub struct Churn {
    stage: Rc<Stage>,
    rest: Rc<Rest>,
    phones: Vec<mpsc::Sender<Leave>>,
    rng: StdRng,
    /// Set apart by churn: friends again later.
    apart: Rc<RefCell<VecDeque<Parted>>>,
}

impl Churn {
    /// The same seed makes the same choices, as far as the server answers in the same order.
    pub fn new(stage: Rc<Stage>, rest: Rc<Rest>, phones: Vec<mpsc::Sender<Leave>>, seed: u64) -> Churn {
        Churn { stage, rest, phones, rng: StdRng::seed_from_u64(seed), apart: Rc::default() }
    }

    /// Makes `per_s` changes a second until nobody moves any more, and waits for those under way.
    pub async fn run(mut self, per_s: f64, mut phase: watch::Receiver<Phase>) -> Result<()> {
        let Ok(moving) = phase.wait_for(|phase| matches!(phase, Phase::Moving(_))).await.map(|phase| *phase) else {
            return Ok(());
        };
        let Phase::Moving(start) = moving else { return Ok(()) };
        let mut ticks = interval(Duration::from_secs_f64(1.0 / per_s));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut changes = JoinSet::new();
        loop {
            tokio::select! {
                _ = ticks.tick() => self.change(start, &mut changes),
                Some(done) = changes.join_next() => done?,
                _ = phase.changed() => break,
            }
        }
        while let Some(done) = changes.join_next().await {
            done?;
        }
        Ok(())
    }

    /// One change: half of them end a friendship, mostly one in which somebody is just being shown; most of these
    /// begin again later. The others are connections, and a few new friendships.
    fn change(&mut self, start: Instant, changes: &mut JoinSet<()>) {
        match self.rng.random_range(0..20) {
            0..8 if changes.len() < CHANGES_AT_ONCE => {
                if let Some((person, friend)) = self.standing_friendship() {
                    changes.spawn_local(unfriend(
                        self.stage.clone(),
                        self.rest.clone(),
                        self.apart.clone(),
                        person,
                        friend,
                    ));
                }
            }
            8..14 if changes.len() < CHANGES_AT_ONCE => {
                let pair = self.somebody_apart();
                if let Some((person, friend)) = pair {
                    changes.spawn_local(befriend(self.stage.clone(), self.rest.clone(), person, friend));
                }
            }
            14 if changes.len() < CHANGES_AT_ONCE => {
                let (person, friend) = (self.anybody(), self.anybody());
                let strangers = !self.stage.oracle.borrow().acquainted(person).contains(&friend);
                if person != friend && strangers {
                    changes.spawn_local(befriend(self.stage.clone(), self.rest.clone(), person, friend));
                }
            }
            15.. => self.disconnect(start),
            _ => {}
        }
    }

    fn anybody(&mut self) -> usize {
        self.rng.random_range(0..self.stage.people.count)
    }

    /// Two who are friends and have no change under way; of two tries the first that is being shown.
    fn standing_friendship(&mut self) -> Option<(usize, usize)> {
        let mut found = None;
        for _ in 0..8 {
            let person = self.anybody();
            let oracle = self.stage.oracle.borrow();
            let acquainted = oracle.acquainted(person);
            if acquainted.is_empty() {
                continue;
            }
            let friend = acquainted[self.rng.random_range(0..acquainted.len())];
            if oracle.are_friends(person, friend) {
                found = Some((person, friend));
                if oracle.shows(person, friend) {
                    break;
                }
            }
        }
        found
    }

    /// Two whom churn has set apart for long enough. Every fifth pair stays apart for good, so that the end of the run
    /// sees some.
    fn somebody_apart(&mut self) -> Option<(usize, usize)> {
        let now = self.stage.clock.now();
        let parted = self.apart.borrow_mut().pop_front_if(|parted| now.since(parted.at) > APART)?;
        (!self.rng.random_bool(0.2)).then_some(parted.pair)
    }

    /// Only people who still move: those whose track has ended are to be silent.
    fn disconnect(&mut self, start: Instant) {
        let person = self.anybody();
        let track = &self.stage.tracks[person];
        let end = self.stage.schedule.end(track);
        if start + self.stage.schedule.due(person, &track[end - 1]) <= Instant::now() {
            return;
        }
        let how = [Goodbye::Close, Goodbye::Drop, Goodbye::Reset][self.rng.random_range(0..3)];
        let away = Duration::from_millis(self.rng.random_range(50..3_000));
        // Full if one waits already: then they are left alone.
        let _ = self.phones[person].try_send(Leave { how, away });
    }
}

async fn unfriend(
    stage: Rc<Stage>,
    rest: Rc<Rest>,
    apart: Rc<RefCell<VecDeque<Parted>>>,
    person: usize,
    friend: usize,
) {
    let asked = stage.clock.now();
    stage.oracle.borrow_mut().unfriending(person, friend, asked);
    let done = rest.unfriend(stage.people.user(person), stage.people.user(friend)).await;
    settle(&stage, person, friend, &done);
    stage.tally.borrow_mut().removals.record(stage.clock.now().since(asked));
    apart.borrow_mut().push_back(Parted { pair: (person, friend), at: stage.clock.now() });
}

async fn befriend(stage: Rc<Stage>, rest: Rc<Rest>, person: usize, friend: usize) {
    stage.oracle.borrow_mut().befriending(person, friend, stage.clock.now());
    let done = rest.befriend(stage.people.user(person), stage.people.user(friend)).await;
    settle(&stage, person, friend, &done);
}

fn settle(stage: &Stage, person: usize, friend: usize, done: &Result<()>) {
    let now = stage.clock.now();
    let mut oracle = stage.oracle.borrow_mut();
    oracle.changed(person, friend, done.is_ok(), now);
    if let Err(error) = done {
        oracle.fault(person, Fault::RestFailed, &format!("{error:#}"), now);
    }
    stage.tally.borrow_mut().friendship_changes += 1;
}
