//! What is looked at in every scenario, beside the judge.

use servers::fleet::Fleet;

use crate::history::Poster;
use crate::pairs::Pairs;
use crate::shared_fleet::spooled;
use crate::times::{pass, until, wall_ms};

/// Pairs that send and see, and somebody who posts.
pub(crate) struct Watch {
    pub(crate) pairs: Pairs,
    pub(crate) poster: Poster,
    begun: u64,
}

impl Watch {
    /// Begins, and looks for a while at how it is when all is well.
    pub(crate) fn start(fleet: &Fleet) -> Watch {
        let poster = Poster::start(fleet);
        let watch = Watch { pairs: Pairs::start(fleet), poster, begun: wall_ms() };
        pass(3.0);
        watch
    }

    /// Prints how it was before the fault, and since.
    pub(crate) fn tell(&self, what: &str, since: u64) {
        let now = wall_ms();
        println!("{what}: before {}", self.pairs.window(self.begun, since));
        println!("{what}: since  {}", self.pairs.window(since, now));
    }

    /// No last value is lost, and everything acknowledged is in the history.
    pub(crate) fn rest(self, fleet: &Fleet) {
        self.rest_but_for(0, fleet);
    }

    /// The same after a gateway was killed: what comes over sockets is told before it is written, so that so many of a
    /// person's positions may be gone with it.
    pub(crate) fn rest_but_for(mut self, unwritten: usize, fleet: &Fleet) {
        self.pairs.rest();
        until("the spools empty", 60.0, || spooled(fleet) == 0);
        // A page holds a thousand: 100 s.
        let kept = self.pairs.seen_and_kept(fleet);
        assert!(
            kept.iter().all(|(seen, kept)| *kept + unwritten >= (*seen).min(1_000)),
            "seen by friends and in the history: {kept:?}"
        );
        println!("all {} acknowledged points are in the history", self.poster.rest());
    }
}
