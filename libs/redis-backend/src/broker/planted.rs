//! What tests do to a broker on purpose. In production it is absent.
//!
//! A test that searches for violations of the ring change shows nothing unless it finds those that were planted: each
//! [`Break`] takes away one thing that the protocol rests on.

/// One thing that the ring change rests on, and that this broker does not do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Break {
    /// Gives up the earlier owner's subscriptions as soon as it asks for the new ones, and does not have the cache read.
    DropBeforeSubscribing,
    /// Has the cache read as soon as the new subscriptions hold, and raises the epoch at the earlier owners afterwards.
    ReadBeforeFencing,
    /// Asks for the epoch before the messages it is to confirm, in the same pipeline.
    AskBeforePublishing,
    /// Takes an owner that has lost its epoch for current.
    AbsentIsCurrent,
    /// Does not have the last positions of its own users published again.
    NeverPublishAgain,
    /// Counts an earlier owner that it cannot reach as told.
    DeadIsFenced,
}
