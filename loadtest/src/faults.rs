//! What a server can do wrong, by name, and a count of it.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use crate::clock::At;

/// A broken promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// A message that is no frame of the protocol.
    Unreadable,
    /// An `error` frame, though everything sent was right.
    ErrorFrame,
    /// The server ended the connection.
    ConnectionLost,
    /// The server said to try later (close code 1013).
    TurnedAway,
    /// A request over REST was not done.
    RestFailed,
    /// A position that the friend never sent.
    NeverSent,
    /// The time of a position sent, with other coordinates.
    OtherCoordinates,
    /// A distance right from no place where the viewer may have been.
    Distance,
    /// A position outside the radius.
    OutsideRadius,
    /// A position older than one shown before.
    WentBack,
    /// A position older than the time to live.
    Expired,
    /// A page that is not nearest first.
    PageOrder,
    /// A page about another radius than asked for.
    PageRadius,
    /// A page that names another time to live than the server is said to have.
    PageTtl,
    /// `gone out_of_range` about a friend who never left.
    GoneInRange,
    /// `gone inactive` about a friend who has not been silent.
    GoneActive,
    /// `gone hidden` about somebody who is a friend.
    GoneFriend,
    /// `friend_added` or `friend_removed` that is not so.
    ListChange,
    /// Something about a person who never was a friend.
    Stranger,
    /// A position after the end of the friendship had been acknowledged.
    AfterRemoval,
    /// A friend within the radius is not shown.
    NotShown,
    /// A friend is shown at a place left since.
    Stale,
    /// A friend outside the radius is still shown.
    ShownOutside,
    /// A friend silent for longer than the time to live is still shown.
    ShownInactive,
    /// Somebody is still shown who is a friend no longer.
    ShownRemoved,
    /// Nobody could connect again before the end.
    NotConnected,
}

/// What a report counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// A frame with wrong content.
    Wrong,
    /// A frame that must not have been sent at all.
    Extra,
    /// A view that is not what it must be when all is quiet.
    Missing,
    /// The same while people still move: it may have come right later.
    Late,
}

impl Fault {
    /// What it counts as. The faults of a view are `Missing` here; found on the way they count as [`Class::Late`].
    pub fn class(self) -> Class {
        use Fault::*;
        match self {
            Stranger | AfterRemoval => Class::Extra,
            NotShown | Stale | ShownOutside | ShownInactive | ShownRemoved | NotConnected => Class::Missing,
            _ => Class::Wrong,
        }
    }

    fn text(self) -> &'static str {
        use Fault::*;
        match self {
            Unreadable => "got a message that is no frame of nearby.v1.json",
            ErrorFrame => "got an error frame",
            ConnectionLost => "lost the connection",
            TurnedAway => "was told to try later",
            RestFailed => "a request failed",
            NeverSent => "got a position that was never sent",
            OtherCoordinates => "got other coordinates than were sent at this time",
            Distance => "got a distance that is right from nowhere it may have been",
            OutsideRadius => "got a position outside the radius",
            WentBack => "got an older position than before",
            Expired => "got a position older than the time to live",
            PageOrder => "got a page that is not nearest first",
            PageRadius => "got a page about another radius",
            PageTtl => "was told another time to live",
            GoneInRange => "was told out_of_range of somebody who never left",
            GoneActive => "was told inactive of somebody who was not",
            GoneFriend => "was told hidden of a friend",
            ListChange => "was told of a change of friends that is not so",
            Stranger => "was told of a stranger",
            AfterRemoval => "got a position after the end of the friendship was acknowledged",
            NotShown => "does not see a friend within the radius",
            Stale => "sees a friend where they no longer are",
            ShownOutside => "still sees somebody who is outside the radius",
            ShownInactive => "still sees somebody silent for longer than the time to live",
            ShownRemoved => "still sees somebody who is no longer a friend",
            NotConnected => "could not connect again",
        }
    }
}

/// Counts faults and describes the first few: by ids and times, never by places.
#[derive(Debug, Default)]
pub struct Faults {
    counts: BTreeMap<(Class, Fault), u64>,
    examples: Vec<String>,
    keep: usize,
}

impl Faults {
    /// Describes so many.
    pub fn describing(keep: usize) -> Faults {
        Faults { keep, ..Faults::default() }
    }

    /// Counts a fault; `detail` is only asked for if it is described.
    pub fn add(&mut self, class: Class, fault: Fault, at: At, detail: impl FnOnce() -> String) {
        *self.counts.entry((class, fault)).or_default() += 1;
        if self.examples.len() < self.keep {
            let seconds = at.since(At(0)).as_secs_f64();
            self.examples.push(format!("{seconds:9.3} s  {class:?}: {} [{}]", fault.text(), detail()));
        }
    }

    /// How many of one class.
    pub fn of(&self, class: Class) -> u64 {
        self.counts.iter().filter(|((counted, _), _)| *counted == class).map(|(_, count)| count).sum()
    }

    /// How many of one kind.
    pub fn count(&self, fault: Fault) -> u64 {
        self.counts.iter().filter(|((_, counted), _)| *counted == fault).map(|(_, count)| count).sum()
    }

    /// How many.
    pub fn total(&self) -> u64 {
        self.counts.values().sum()
    }

    /// Every kind found, with its count.
    pub fn by_kind(&self) -> Vec<(Class, Fault, u64)> {
        self.counts.iter().map(|(&(class, fault), &count)| (class, fault, count)).collect()
    }

    /// The first few, described.
    pub fn examples(&self) -> &[String] {
        &self.examples
    }
}

/// Milliseconds with a fraction, for details.
pub(crate) fn ms(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e4).round() / 10.0
}
