//! Leaving a backend alone that does not answer, so that its timeouts are not everybody's delay.

use model::MonotonicMs;
use parking_lot::Mutex;

use crate::limits;

/// Opens after [`limits::CACHE_FAILURES`] failures in a row, for [`limits::CACHE_REST`]; then one call tries again.
#[derive(Debug, Default)]
pub(crate) struct Breaker(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    failures: u32,
    open_until: MonotonicMs,
}

impl Breaker {
    /// Whether a call may be made now.
    pub(crate) fn closed(&self, now: MonotonicMs) -> bool {
        let mut state = self.0.lock();
        if now < state.open_until {
            return false;
        }
        if state.failures >= limits::CACHE_FAILURES {
            // The one that tries; the others wait for what it finds.
            state.open_until = now.after(limits::CACHE_REST);
        }
        true
    }

    /// What became of a call.
    pub(crate) fn report(&self, ok: bool, now: MonotonicMs) {
        let mut state = self.0.lock();
        if ok {
            *state = State::default();
        } else {
            state.failures += 1;
            if state.failures >= limits::CACHE_FAILURES {
                state.open_until = now.after(limits::CACHE_REST);
            }
        }
    }
}
