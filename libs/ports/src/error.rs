//! What can go wrong beyond a port.

use thiserror::Error;

/// Why a call to a backend did not do what it should. The call may or may not have taken effect; each contract says
/// whether it may be repeated.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum PortError {
    /// The backend did not answer, or cannot at the moment: trying again later may help.
    #[error("{backend} is unavailable: {reason}")]
    Unavailable {
        /// Which backend, as an operator knows it.
        backend: &'static str,
        /// What it said; holds no coordinates and no tokens.
        reason: String,
    },
    /// The backend answered something that trying again will not change.
    #[error("{backend} refused: {reason}")]
    Refused {
        /// Which backend, as an operator knows it.
        backend: &'static str,
        /// What it said; holds no coordinates and no tokens.
        reason: String,
    },
}

impl PortError {
    /// Whether the same call may succeed later.
    pub fn is_transient(&self) -> bool {
        matches!(self, PortError::Unavailable { .. })
    }
}
