//! Everything one person has sent, and how much of it the server can know.

use std::time::Duration;

use model::Position;

use crate::clock::At;

/// What was sent so shortly before a connection was torn down may never have been read.
const TORN: Duration = Duration::from_secs(1);

/// One position sent.
#[derive(Clone, Copy, Debug)]
pub struct Sent {
    /// The phone's time: names this position among all of the person's.
    pub ts: u64,
    /// When it was handed to the socket.
    pub at: At,
    /// Where.
    pub position: Position,
    /// The connection was torn down right after: the server may or may not have it.
    pub doubtful: bool,
}

/// The positions of one person in the order of sending, which is that of `ts` too.
#[derive(Debug, Default)]
pub struct Whereabouts(Vec<Sent>);

impl Whereabouts {
    /// Notes a position about to be sent; the answer is the `ts` to send with it: the wall clock's, and always above
    /// the one before.
    pub fn record(&mut self, position: Position, wall_ms: u64, at: At) -> u64 {
        let ts = self.0.last().map_or(wall_ms, |last| wall_ms.max(last.ts + 1));
        self.0.push(Sent { ts, at, position, doubtful: false });
        ts
    }

    /// The connection was torn down without a goodbye.
    pub fn torn(&mut self, at: At) {
        for sent in self.0.iter_mut().rev().take_while(|sent| at.since(sent.at) < TORN) {
            sent.doubtful = true;
        }
    }

    /// The index of the position with this `ts`.
    pub fn find(&self, ts: u64) -> Option<usize> {
        // Most frames are about the newest.
        match self.0.last() {
            Some(last) if last.ts == ts => Some(self.0.len() - 1),
            _ => self.0.binary_search_by_key(&ts, |sent| sent.ts).ok(),
        }
    }

    /// The position with this index.
    pub fn get(&self, index: usize) -> &Sent {
        &self.0[index]
    }

    /// The newest.
    pub fn newest(&self) -> Option<&Sent> {
        self.0.last()
    }

    /// The index of the newest position that the server surely has, if everything has reached it that was sent at
    /// least `patience` ago.
    pub fn sure(&self, now: At, patience: Duration) -> Option<usize> {
        self.0.iter().rposition(|sent| !sent.doubtful && now.since(sent.at) >= patience)
    }

    /// The positions any of which may be the server's newest: from the one it surely has on.
    pub fn maybe_current(&self, now: At, patience: Duration) -> &[Sent] {
        &self.0[self.sure(now, patience).unwrap_or(0)..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(2);

    /// Positions sent at these seconds.
    fn sent(seconds: &[u64]) -> Whereabouts {
        let mut whereabouts = Whereabouts::default();
        for &second in seconds {
            whereabouts.record(Position::new(40.0, 116.0).unwrap(), second * 1_000, at(second));
        }
        whereabouts
    }

    fn at(second: u64) -> At {
        At(second * 1_000_000)
    }

    /// When those were sent that may be current.
    fn seconds(whereabouts: &Whereabouts, now: u64) -> Vec<u64> {
        whereabouts.maybe_current(at(now), PATIENCE).iter().map(|sent| sent.at.0 / 1_000_000).collect()
    }

    #[test]
    fn times_grow_even_if_the_wall_clock_steps_back() {
        let mut whereabouts = sent(&[5]);
        let again = whereabouts.record(Position::new(40.0, 116.0).unwrap(), 4_000, at(6));
        assert_eq!(again, 5_001);
        assert_eq!((whereabouts.find(5_000), whereabouts.find(5_001), whereabouts.find(7)), (Some(0), Some(1), None));
    }

    #[test]
    fn what_was_sent_lately_may_or_may_not_have_arrived() {
        let whereabouts = sent(&[0, 10, 11]);
        assert_eq!(whereabouts.sure(at(11), PATIENCE), Some(0));
        assert_eq!(seconds(&whereabouts, 11), [0, 10, 11]);
        assert_eq!(seconds(&whereabouts, 12), [10, 11]);
        assert_eq!(seconds(&whereabouts, 20), [11]);
        assert_eq!(seconds(&sent(&[]), 20), [0; 0]);
    }

    #[test]
    fn what_was_sent_right_before_the_connection_was_torn_stays_doubtful() {
        let mut whereabouts = sent(&[0, 10]);
        whereabouts.torn(At(10_900_000));
        assert_eq!(seconds(&whereabouts, 60), [0, 10]);
        let mut longer_ago = sent(&[0, 10]);
        longer_ago.torn(at(11));
        assert_eq!(seconds(&longer_ago, 60), [10]);
    }
}
