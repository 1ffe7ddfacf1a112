//! One connection of the crowd.

use crate::clock::At;
use crate::raw::stream::Stream;

/// How far a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Not connected.
    Away,
    /// TCP's handshake is under way.
    Connecting,
    /// The HTTP request is sent.
    Upgrading,
    /// `init` is sent.
    Listing,
    /// The list has come.
    Live,
}

/// One person's connection, or the lack of it.
pub(crate) struct Link {
    pub(crate) person: u32,
    pub(crate) stage: Stage,
    pub(crate) stream: Option<Stream>,
    /// What came of a frame that is not whole yet.
    pub(crate) input: Vec<u8>,
    /// When this attempt began.
    pub(crate) began: At,
    /// When `init` was sent.
    pub(crate) said: At,
    /// Is waited for until there is room to write.
    pub(crate) wants_room: bool,
    /// The time of the last position: later ones must be later.
    pub(crate) last_ms: u64,
}

impl Link {
    pub(crate) fn new(person: u32) -> Link {
        Link {
            person,
            stage: Stage::Away,
            stream: None,
            input: Vec::new(),
            began: At::default(),
            said: At::default(),
            wants_room: false,
            last_ms: 0,
        }
    }
}

/// Why a connection ended, or was not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Answered with this status instead of 101; may be tried again after so many seconds.
    Refused { status: u16, retry_after_s: Option<u64> },
    /// Closed with this code, if there was one.
    Closed(Option<u16>),
    /// The connection broke, or could not be made.
    Broken,
    /// Something came that is not this protocol's.
    Nonsense,
}
