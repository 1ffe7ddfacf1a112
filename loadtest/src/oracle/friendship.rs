//! What two people are to each other, while changes are on their way.

use std::time::Duration;

use crate::clock::At;

/// The last change of a friendship and how far it has come.
#[derive(Clone, Copy, Debug)]
pub(super) struct Friendship {
    state: State,
    since: At,
    /// When an end was last under way or acknowledged: notices of it may come a little later.
    ended: Option<At>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Beginning,
    Friends,
    Ending,
    Apart,
    /// A request failed: it may have been done or not.
    Unknown,
}

/// A notice of a change (`gone hidden`, `friend_removed`, `friend_added`) reaches a viewer within this.
const NOTICE: Duration = Duration::from_secs(5);

impl Friendship {
    pub(super) fn asked(now: At) -> Friendship {
        Friendship { state: State::Beginning, since: now, ended: None }
    }

    pub(super) fn begin(&mut self, now: At) {
        (self.state, self.since) = (State::Beginning, now);
    }

    pub(super) fn begin_end(&mut self, now: At) {
        (self.state, self.since, self.ended) = (State::Ending, now, Some(now));
    }

    pub(super) fn settle(&mut self, acknowledged: bool, now: At) {
        self.since = now;
        self.state = match self.state {
            _ if !acknowledged => State::Unknown,
            State::Beginning => State::Friends,
            State::Ending => {
                self.ended = Some(now);
                State::Apart
            }
            settled => settled,
        };
    }

    /// Friends, and nothing under way.
    pub(super) fn stands(&self) -> bool {
        self.state == State::Friends
    }

    /// Friends for at least so long.
    pub(super) fn has_stood(&self, now: At, patience: Duration) -> bool {
        self.state == State::Friends && now.since(self.since) >= patience
    }

    /// Apart for at least so long.
    pub(super) fn is_over(&self, now: At, patience: Duration) -> bool {
        self.state == State::Apart && now.since(self.since) >= patience
    }

    /// Whether a notice of an end may arrive now.
    pub(super) fn may_notice_end(&self, now: At) -> bool {
        self.state != State::Friends || self.ended.is_some_and(|ended| now.since(ended) < NOTICE)
    }

    /// Whether a notice of a beginning may arrive now.
    pub(super) fn may_notice_beginning(&self, now: At) -> bool {
        !self.is_over(now, NOTICE)
    }
}
