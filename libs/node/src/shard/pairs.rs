//! Pairs whose record was written: read again, whatever the entry of the control log says.
//!
//! An entry says *what changed*, and may come late, twice, or behind the entry of a later write. The directory says
//! *what is*. So an entry of either kind makes the pair be read, and what was read counts unless another entry of the
//! pair came since the read began: that one is followed by a read of its own.

use model::{Level, PolicyVersion, UserId};

use super::{Interests, Shard};

/// What one user may see of another.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Pair {
    /// Who would see.
    pub viewer: UserId,
    /// Who would be seen.
    pub friend: UserId,
}

impl Shard {
    /// The entry at this index says that the pair's record was written. Adds the pair to those to be read, unless it is
    /// one of them already; nobody of the viewer's user who connects later needs it.
    pub(super) fn read_again(&mut self, pair: Pair, index: PolicyVersion, to_read: &mut Vec<Pair>) {
        if !self.has_viewers(pair.viewer) {
            return;
        }
        if self.unread.insert(pair, index).is_none() {
            to_read.push(pair);
        }
    }

    /// The index of the last entry of a pair that is to be read: to be asked before the read begins, and given to
    /// [`Shard::pair_read`] with what it found.
    pub fn unread(&self, pair: Pair) -> Option<PolicyVersion> {
        self.unread.get(&pair).copied()
    }

    /// What the directory says of a pair, in a read that began when the last entry of the pair was at `as_of`. Returns
    /// false if another entry came since: then nothing changes, and the pair is to be read again.
    pub fn pair_read(
        &mut self,
        pair: Pair,
        as_of: PolicyVersion,
        level: Option<Level>,
        interests: &mut Interests,
    ) -> bool {
        match self.unread(pair) {
            // Not asked for any more: what was allowed was forgotten meanwhile.
            None => return true,
            Some(last) if last != as_of => return false,
            Some(_) => self.unread.remove(&pair),
        };
        for viewer in self.viewers_of(pair.viewer) {
            if self.override_while_connecting(viewer, pair.friend, level) {
                continue;
            }
            match level {
                Some(level) => self.befriend(viewer, pair.friend, level, interests),
                None => self.unlink_friend(viewer, pair.friend, interests),
            }
        }
        true
    }
}
