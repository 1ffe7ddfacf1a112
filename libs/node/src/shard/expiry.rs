//! Friends who fall silent: a wheel of seconds, re-armed lazily, so that hearing a friend again costs nothing here.

use std::time::Duration;

use model::{MonotonicMs, UserId};

use super::Shard;
use super::sources::TOLD;
use crate::limits;

/// Slots of the wheel, one a second. What is due later than one turn is looked at once a turn.
const SLOTS: u64 = 1_024;

#[derive(Debug)]
pub(super) struct Wheel {
    slots: Vec<Vec<u32>>,
    /// The last second that was looked at.
    turned: u64,
    /// How long a fix lives: tells when it was heard from when it expires.
    pub(super) ttl: Duration,
}

impl Default for Wheel {
    fn default() -> Wheel {
        Wheel { slots: (0..SLOTS).map(|_| Vec::new()).collect(), turned: 0, ttl: Duration::from_secs(600) }
    }
}

impl Shard {
    /// Sets how long positions live, for the detection of silence.
    pub fn with_ttl(mut self, ttl: Duration) -> Shard {
        self.wheel.ttl = ttl;
        self
    }

    /// Puts a source on the wheel, if it is not there.
    pub(super) fn arm(&mut self, source: u32, now: MonotonicMs) {
        if self.sources.get(source).is_none_or(|entry| entry.armed) {
            return;
        }
        let Some(due) = self.due(source) else { return };
        let Some(entry) = self.sources.get_mut(source) else { return };
        entry.armed = true;
        let second = due.0.div_ceil(1_000).clamp(now.0 / 1_000 + 1, now.0 / 1_000 + SLOTS - 1);
        self.wheel.slots[(second % SLOTS) as usize].push(source);
    }

    fn due(&self, source: u32) -> Option<MonotonicMs> {
        let expires = self.sources.fix(source)?.expires;
        let silent = self.sources.get(source)?.silent;
        Some(if silent { expires } else { self.silence(expires).min(expires) })
    }

    fn silence(&self, expires: MonotonicMs) -> MonotonicMs {
        MonotonicMs((expires.0 + limits::SILENCE.as_millis() as u64).saturating_sub(self.wheel.ttl.as_millis() as u64))
    }

    /// Turns the wheel up to `now`: whose time is over is gone; who fell silent is added to `silent`, to be read once
    /// from the cache, in case a message was lost in a way that nobody noticed.
    pub fn expire(&mut self, now: MonotonicMs, silent: &mut Vec<UserId>) {
        self.members.expire(now);
        let second = now.0 / 1_000;
        // After a sleep of more than a turn every slot is looked at once.
        let from = self.wheel.turned.max(second.saturating_sub(SLOTS)) + 1;
        self.wheel.turned = second;
        for turn in from..=second {
            let slot = (turn % SLOTS) as usize;
            let mut due = std::mem::take(&mut self.wheel.slots[slot]);
            for source in due.drain(..) {
                self.expire_source(source, now, silent);
            }
            // The slot keeps its memory. What was armed into it meanwhile is due a whole turn later.
            due.append(&mut self.wheel.slots[slot]);
            self.wheel.slots[slot] = due;
        }
    }

    fn expire_source(&mut self, source: u32, now: MonotonicMs, silent: &mut Vec<UserId>) {
        let expires = self.sources.fix(source).map(|fix| fix.expires);
        let silence = expires.map(|expires| self.silence(expires));
        let Some(entry) = self.sources.get_mut(source) else { return };
        entry.armed = false;
        match (expires, silence) {
            (Some(expires), _) if expires <= now => {
                self.sources.drop_fix(source);
                self.tell_gone(source);
            }
            (Some(_), Some(silence)) => {
                if silence <= now && !entry.silent {
                    entry.silent = true;
                    silent.push(entry.user);
                }
                self.arm(source, now);
            }
            _ => {}
        }
    }

    fn tell_gone(&mut self, source: u32) {
        for at in 0..self.sources.get(source).map_or(0, |source| source.watches.len()) {
            let Some(watch) = self.sources.get(source).and_then(|source| source.watches.get(at)).copied() else {
                return;
            };
            if watch.state & TOLD != 0 {
                self.mark(watch.viewer, watch.edge);
            }
        }
    }
}
