//! What is wanted of one pub/sub node, and on which of it something was heard lately.

use std::collections::hash_map::Entry;
use std::time::Duration;

use ports::Channel;
use rustc_hash::{FxHashMap, FxHashSet};
use tokio::time::Instant;

use super::names::slot_of;

/// "Lately" is since the turn before the last. A phone that moves reports every half minute.
const TURN: Duration = Duration::from_secs(60);

/// Channels. A message costs one look into the small set of live ones; a change of the ring, a look at the slots and at
/// the channels of those that move.
pub(crate) struct Wanted {
    all: FxHashSet<Channel>,
    /// The same by slot. A slot without channels is not in it.
    by_slot: FxHashMap<u16, Vec<Channel>>,
    /// Those heard of since the last turn.
    live: FxHashSet<Channel>,
    /// Those heard of in the turn before it.
    before: FxHashSet<Channel>,
    turned: Instant,
}

impl Wanted {
    pub(crate) fn new() -> Wanted {
        let [all, live, before] = [(); 3].map(|()| FxHashSet::default());
        Wanted { all, by_slot: FxHashMap::default(), live, before, turned: Instant::now() }
    }

    pub(crate) fn add(&mut self, channels: &[Channel]) {
        for &channel in channels {
            if self.all.insert(channel) {
                self.by_slot.entry(slot_of(channel)).or_default().push(channel);
            }
        }
    }

    pub(crate) fn remove(&mut self, channels: &[Channel]) {
        for channel in channels {
            if self.all.remove(channel) {
                self.remove_from_slot(*channel);
            }
            self.live.remove(channel);
            self.before.remove(channel);
        }
    }

    /// A slot has few channels: 100,000 in 16,384 slots are six each.
    fn remove_from_slot(&mut self, channel: Channel) {
        let Entry::Occupied(mut slot) = self.by_slot.entry(slot_of(channel)) else { return };
        slot.get_mut().retain(|other| *other != channel);
        if slot.get().is_empty() {
            slot.remove();
        }
    }

    /// Those in the slots that `which` picks.
    pub(crate) fn in_slots(&self, which: impl Fn(u16) -> bool) -> impl Iterator<Item = Channel> {
        self.by_slot.iter().filter(move |(slot, _)| which(**slot)).flat_map(|(_, channels)| channels.iter().copied())
    }

    pub(crate) fn holds(&self, channel: Channel) -> bool {
        self.all.contains(&channel)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Channel> {
        self.all.iter().copied()
    }

    /// Something arrived on this channel; whether it is wanted.
    pub(crate) fn hear(&mut self, channel: Channel) -> bool {
        let known = self.live.contains(&channel);
        if !known && self.all.contains(&channel) {
            self.live.insert(channel);
            return true;
        }
        known
    }

    /// Forgets, every now and then, what was heard long ago.
    pub(crate) fn turn(&mut self, now: Instant) {
        if now.duration_since(self.turned) >= TURN {
            std::mem::swap(&mut self.live, &mut self.before);
            self.live.clear();
            self.turned = now;
        }
    }

    /// All of it: the live ones, and the rest.
    pub(crate) fn live_and_rest(&self) -> (Vec<Channel>, Vec<Channel>) {
        self.iter().partition(|channel| self.live.contains(channel) || self.before.contains(channel))
    }
}

#[cfg(test)]
mod tests {
    use model::UserId;

    use super::*;

    fn channel(user: u64) -> Channel {
        Channel::User(UserId(user))
    }

    #[tokio::test(start_paused = true)]
    async fn slots_hold_exactly_what_is_wanted() {
        let mut wanted = Wanted::new();
        let all: Vec<Channel> = (0..5_000).map(channel).collect();
        wanted.add(&all);
        wanted.add(&all[..100]);
        wanted.remove(&all[..2_500]);
        wanted.remove(&all[..10]);
        let lower = |slot: u16| slot < 8_192;
        let mut found: Vec<Channel> = wanted.in_slots(lower).collect();
        let mut expected: Vec<Channel> =
            all[2_500..].iter().copied().filter(|channel| lower(slot_of(*channel))).collect();
        found.sort();
        expected.sort();
        assert_eq!(found, expected);
        wanted.remove(&all);
        assert_eq!((wanted.in_slots(|_| true).count(), wanted.by_slot.len()), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn live_is_what_was_heard_lately_and_is_still_wanted() {
        let mut wanted = Wanted::new();
        wanted.add(&[1, 2, 3, 4].map(channel));
        assert_eq!([1, 2, 3, 9].map(|user| wanted.hear(channel(user))), [true, true, true, false]);
        wanted.remove(&[channel(3)]);
        assert!(!wanted.hear(channel(3)), "given up");
        let live = |wanted: &Wanted| {
            let (mut live, rest) = wanted.live_and_rest();
            live.sort();
            assert_eq!(live.len() + rest.len(), wanted.iter().count());
            live
        };
        assert_eq!(live(&wanted), [1, 2].map(channel));
        let start = Instant::now();
        wanted.turn(start + TURN);
        assert!(wanted.hear(channel(2)));
        wanted.turn(start + TURN + TURN / 2);
        assert_eq!(live(&wanted), [1, 2].map(channel), "in the turn before");
        wanted.turn(start + 2 * TURN);
        assert_eq!(live(&wanted), [channel(2)]);
        wanted.turn(start + 3 * TURN);
        assert!(live(&wanted).is_empty());
    }
}
