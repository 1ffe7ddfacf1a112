//! Whether what is published comes back to us: a connection can look healthy and deliver nothing.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// How often one is published.
pub(crate) const EVERY: Duration = Duration::from_secs(1);
/// How long one may take to come back.
const PATIENCE: Duration = Duration::from_millis(1_250);
/// How often that is looked at. A connection goes deaf just after a probe came back, at worst, and is found out after
/// all three of these: 2.5 s.
pub(crate) const LOOK: Duration = Duration::from_millis(250);

/// The probes of one pub/sub node.
pub(crate) struct Probe(Mutex<State>);

struct State {
    /// Since when the connection of the moment is subscribed to them.
    listening: Option<Instant>,
    /// The newest that came back.
    heard: u64,
    /// When that was, or the beginning.
    well: Instant,
    /// The one that was published first of those that have not come back.
    waiting: Option<(u64, Instant)>,
    /// One was overdue, and none has come back since.
    deaf: bool,
}

impl Probe {
    pub(crate) fn new() -> Probe {
        let well = Instant::now();
        Probe(Mutex::new(State { listening: None, heard: 0, well, waiting: None, deaf: false }))
    }

    /// A new connection: none is owed on it.
    pub(crate) fn begin(&self) {
        let mut state = self.0.lock();
        (state.listening, state.waiting) = (None, None);
    }

    /// What is published from now on has to arrive.
    pub(crate) fn listens(&self) {
        self.0.lock().listening = Some(Instant::now());
    }

    /// One whose publication began then was taken. It may have come back before that was known.
    pub(crate) fn published(&self, number: u64, begun: Instant) {
        let mut state = self.0.lock();
        if number > state.heard && state.listening.is_some_and(|since| since <= begun) {
            state.waiting.get_or_insert((number, begun));
        }
    }

    pub(crate) fn came_back(&self, number: u64) {
        let mut state = self.0.lock();
        (state.heard, state.well, state.deaf) = (state.heard.max(number), Instant::now(), false);
        state.waiting.take_if(|(expected, _)| *expected <= number);
    }

    /// Whether one has not come back in time.
    pub(crate) fn is_overdue(&self) -> bool {
        let mut state = self.0.lock();
        let is_overdue = state.waiting.is_some_and(|(_, begun)| begun.elapsed() > PATIENCE);
        state.deaf |= is_overdue;
        is_overdue
    }

    /// One was overdue and none has come back since, whatever else the connection says of itself.
    pub(crate) fn is_deaf(&self) -> bool {
        self.0.lock().deaf
    }

    /// For how long none has come back, if that is longer than it may be.
    pub(crate) fn silent_for(&self) -> Option<Duration> {
        Some(self.0.lock().well.elapsed()).filter(|silence| *silence > EVERY + PATIENCE)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_that_does_not_come_back_is_overdue_until_another_does() {
        let probe = Probe::new();
        probe.listens();
        probe.published(1, Instant::now());
        probe.came_back(1);
        probe.published(2, Instant::now());
        advance(PATIENCE).await;
        probe.published(3, Instant::now());
        assert!(!probe.is_overdue());
        advance(Duration::from_millis(1)).await;
        assert!(probe.is_overdue() && probe.is_deaf());
        probe.begin();
        assert!(!probe.is_overdue(), "a new connection owes nothing");
        assert!(probe.is_deaf(), "but has shown nothing yet");
        probe.came_back(4);
        assert!(!probe.is_deaf());
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_came_back_before_its_publication_was_confirmed_is_not_waited_for() {
        let probe = Probe::new();
        probe.listens();
        let begun = Instant::now();
        probe.came_back(1);
        probe.published(1, begun);
        advance(2 * PATIENCE).await;
        assert!(!probe.is_overdue());
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_was_published_before_the_subscription_held_is_not_waited_for() {
        let probe = Probe::new();
        let begun = Instant::now();
        advance(Duration::from_millis(1)).await;
        probe.published(1, begun);
        probe.listens();
        probe.published(1, begun);
        advance(2 * PATIENCE).await;
        assert!(!probe.is_overdue());
        assert_eq!(probe.silent_for(), Some(2 * PATIENCE + Duration::from_millis(1)));
    }
}
