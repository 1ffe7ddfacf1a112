//! Why a connection was closed, and what a client does next.

use serde::{Deserialize, Serialize};

/// What a client does after a close.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Then {
    /// Connect again at once.
    ReconnectNow,
    /// Connect again after a random part of a delay that doubles each time.
    ReconnectWithJitter,
    /// Get a fresh token first.
    SignIn,
    /// Do not connect again by itself: the program or the user has to change something.
    Stop,
}

/// A reason to close a WebSocket, with its code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum CloseCode {
    /// The connection ended without a reason of ours.
    GoingAway = 1001,
    /// What was sent is not text of this protocol.
    Policy = 1008,
    /// A message above the size limit.
    TooBig = 1009,
    /// The server failed.
    Internal = 1011,
    /// The server is stopping; another, or the same one restarted, takes over.
    Restart = 1012,
    /// The server has no room at the moment.
    TryLater = 1013,
    /// No valid token in time, or the token expired.
    Authenticate = 4401,
    /// The token is valid and its user may not connect (deleted, say).
    Forbidden = 4403,
    /// The client did not read for too long, or did not send `init` in time.
    Slow = 4408,
    /// The user opened more connections than allowed; the oldest gives way.
    Replaced = 4409,
    /// The client kept sending what was not taken.
    TooMany = 4429,
}

/// Every code, as the table in `docs/PROTOCOL.md` has them.
pub const CLOSE_CODES: [CloseCode; 11] = [
    CloseCode::GoingAway,
    CloseCode::Policy,
    CloseCode::TooBig,
    CloseCode::Internal,
    CloseCode::Restart,
    CloseCode::TryLater,
    CloseCode::Authenticate,
    CloseCode::Forbidden,
    CloseCode::Slow,
    CloseCode::Replaced,
    CloseCode::TooMany,
];

impl CloseCode {
    /// The number on the wire.
    pub fn code(self) -> u16 {
        self as u16
    }

    /// The text on the wire.
    pub fn reason(self) -> &'static str {
        match self {
            CloseCode::GoingAway => "going away",
            CloseCode::Policy => "not text frames of nearby.v1.json",
            CloseCode::TooBig => "message above 16 KiB",
            CloseCode::Internal => "internal error",
            CloseCode::Restart => "restarting",
            CloseCode::TryLater => "no room, try later",
            CloseCode::Authenticate => "authenticate again",
            CloseCode::Forbidden => "forbidden",
            CloseCode::Slow => "too slow",
            CloseCode::Replaced => "replaced by a newer connection",
            CloseCode::TooMany => "too many frames that were not taken",
        }
    }

    /// What the client does next.
    pub fn then(self) -> Then {
        match self {
            CloseCode::GoingAway | CloseCode::Restart => Then::ReconnectNow,
            CloseCode::Internal | CloseCode::TryLater | CloseCode::Slow | CloseCode::TooMany => {
                Then::ReconnectWithJitter
            }
            CloseCode::Authenticate => Then::SignIn,
            CloseCode::Policy | CloseCode::TooBig | CloseCode::Forbidden | CloseCode::Replaced => Then::Stop,
        }
    }
}
