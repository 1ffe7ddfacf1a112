//! Notes of changes that wait for their entry in the control log, in memory.

use std::time::Duration;

use model::UserId;
use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use tokio::time::Instant;

use super::{Change, ChangeNote, Changed};

/// Notes of one process. For backends whose records are obeyed only by nodes of the same process.
#[derive(Debug, Default)]
pub struct Notes(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    made: u64,
    /// When each was made, by its nonce.
    waiting: FxHashMap<u64, (ChangeNote, Instant)>,
}

impl Notes {
    /// Makes a note; to be called before the record is touched.
    pub fn make(&self, user: UserId, friend: UserId) -> ChangeNote {
        let mut state = self.0.lock();
        state.made += 1;
        let note = ChangeNote { user, friend, minute: 0, nonce: state.made };
        state.waiting.insert(note.nonce, (note, Instant::now()));
        note
    }

    /// The outcome of a change that has ended: without a write there is nothing to announce.
    pub fn changed(&self, change: Change, note: ChangeNote) -> Changed {
        let written = change == Change::Done;
        if !written {
            self.remove(&[note]);
        }
        Changed { change, note: written.then_some(note) }
    }

    /// These are announced.
    pub fn remove(&self, notes: &[ChangeNote]) {
        let mut state = self.0.lock();
        for note in notes {
            state.waiting.remove(&note.nonce);
        }
    }

    /// Those that were made at least so long ago, oldest first.
    pub fn older_than(&self, age: Duration) -> Vec<ChangeNote> {
        let state = self.0.lock();
        let old = state.waiting.values().filter(|(_, made)| made.elapsed() >= age);
        let mut notes: Vec<ChangeNote> = old.map(|(note, _)| *note).collect();
        notes.sort_by_key(|note| note.nonce);
        notes
    }
}
