//! From the record of a pair to the nodes: the entry in the control log that follows every write.
//!
//! The entry says that the record was written; nodes read it anew (`libs/node/src/pairs.rs`). So entries may come in any
//! order, late, and twice. What may not happen is a write without an entry: each write leaves a note, which stays until
//! the entry is appended, and notes that were left behind are found here.

use std::time::Duration;

use model::UserId;
use ports::{ChangeNote, ControlEntry, PortError};

use crate::ApiState;

/// A change takes less than this from its note to its entry, so a note that is older was left behind by a process that
/// crashed or hangs; with room for clocks that differ.
pub const SETTLED: Duration = Duration::from_secs(120);

/// Announces that the record of a pair says they are no friends, and waits until nobody shows the one to the other by
/// what was before.
pub(super) async fn end(
    state: &ApiState,
    user: UserId,
    friend: UserId,
    note: Option<ChangeNote>,
) -> Result<(), PortError> {
    let index = state.control.append(ControlEntry::Unfriended(user, friend)).await?;
    announced(state, note.as_slice()).await;
    state.control.settled(index).await
}

/// The writes of these notes have their entry. A note that stays all the same costs one more entry, later.
pub(crate) async fn announced(state: &ApiState, notes: &[ChangeNote]) {
    if notes.is_empty() {
        return;
    }
    if let Err(error) = state.friendships.announced(notes).await {
        tracing::debug!(%error, "a change of friends will be announced once more");
    }
}

/// Announces what was written at least `age` ago (use [`SETTLED`]) and has no entry in the control log, and returns how
/// many writes that were. Any process may do so at any time, several at once too.
pub async fn announce_left_behind(state: &ApiState, age: Duration) -> Result<usize, PortError> {
    let notes = state.friendships.unannounced(age).await?;
    for note in &notes {
        // An end, whatever the record says: nodes take the edge away at once and then read the record.
        state.control.append(ControlEntry::Unfriended(note.user, note.friend)).await?;
        announced(state, &[*note]).await;
    }
    Ok(notes.len())
}
