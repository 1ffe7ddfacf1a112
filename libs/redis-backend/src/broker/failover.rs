//! A pub/sub node that most gateways cannot use is taken out of service, and put back when most can use it again.
//!
//! No gateway decides alone: its own network may be what is broken. Each says through all the *other* nodes what it
//! finds (a vote); who has counted the votes of more than half of the members changes the ring, by the same
//! compare-and-swap as an operator, and all adopt it as they adopt any ring. Two who count at once make one change.
//! While discovery is down nothing changes.
//!
//! Votes are messages like any other: they may be lost, and are repeated as long as the opinion holds. Each names the
//! epoch that it is about, so that a vote that comes late counts for nothing. On the same channel goes the news that
//! there is another ring, said once by whoever changed it: who misses it asks discovery within a second anyway.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use model::NodeId;
use parking_lot::Mutex;
use ports::Discovery;
use protocol::ring::RingDocument;
use tokio::sync::Notify;
use tokio::time::{Instant, interval, timeout};

use super::view::PubSubNode;
use super::{Shared, wire};

/// How often the nodes are looked at, and votes repeated.
const LOOK: Duration = Duration::from_millis(150);
/// For how long a node has to be unusable: longer than a connection takes to be made again.
const DOWN_AFTER: Duration = Duration::from_millis(600);
/// For how long one that is out of service has to be usable: longer than a node that comes and goes takes to go.
const UP_AFTER: Duration = Duration::from_secs(10);
/// How long a vote counts.
const VOTE: Duration = Duration::from_secs(1);
/// How old the knowledge may be who the members are.
const MEMBERS_AGE: Duration = Duration::from_secs(1);
/// How long discovery may take for each step of a change.
const DISCOVERY: Duration = Duration::from_millis(500);
/// Votes kept: all that a fleet has to say at once, and a bound for what strangers publish.
const MAX_VOTES: usize = 65_536;

/// An opinion on one node of one ring.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Opinion {
    epoch: u64,
    /// Out of service, or back in.
    down: bool,
    name: String,
}

impl Opinion {
    fn text(&self, voter: NodeId) -> String {
        format!("{voter} {} {} {}", self.epoch, if self.down { "down" } else { "up" }, self.name)
    }

    fn parse(text: &[u8]) -> Option<(NodeId, Opinion)> {
        let mut words = std::str::from_utf8(text).ok()?.split(' ');
        let voter = NodeId(u64::from_str_radix(words.next()?, 16).ok()?);
        let epoch = words.next()?.parse().ok()?;
        let down = match words.next()? {
            "down" => true,
            "up" => false,
            _ => return None,
        };
        let name = words.next().filter(|name| name.len() <= 64)?.to_owned();
        words.next().is_none().then_some((voter, Opinion { epoch, down, name }))
    }
}

/// The votes of the last moment.
#[derive(Default)]
pub(crate) struct Votes {
    votes: Mutex<BTreeMap<(Opinion, NodeId), Instant>>,
    /// The epoch that was announced and not looked for yet; 0 when there is none.
    announced: AtomicU64,
    news: Notify,
}

/// What is said of a ring that has just been made.
pub(crate) fn announcement(epoch: u64) -> String {
    format!("ring {epoch}")
}

fn announced(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text.strip_prefix(b"ring ")?).ok()?.parse().ok()
}

impl Votes {
    /// A vote or an announcement arrived; `false` if it is neither.
    pub(crate) fn hear(&self, text: &[u8]) -> bool {
        if let Some(epoch) = announced(text) {
            self.announced.fetch_max(epoch, Ordering::AcqRel);
            self.news.notify_one();
            return true;
        }
        let Some((voter, opinion)) = Opinion::parse(text) else { return false };
        self.take(voter, opinion);
        true
    }

    fn take(&self, voter: NodeId, opinion: Opinion) {
        let mut votes = self.votes.lock();
        if votes.len() >= MAX_VOTES {
            votes.clear();
        }
        votes.insert((opinion, voter), Instant::now());
        drop(votes);
        self.news.notify_one();
    }

    /// Who is of which opinion, on the ring of this epoch.
    fn of(&self, epoch: u64) -> BTreeMap<Opinion, BTreeSet<NodeId>> {
        let mut votes = self.votes.lock();
        votes.retain(|(opinion, _), at| opinion.epoch >= epoch && at.elapsed() < VOTE);
        let mut of: BTreeMap<Opinion, BTreeSet<NodeId>> = BTreeMap::new();
        for (opinion, voter) in votes.keys().filter(|(opinion, _)| opinion.epoch == epoch) {
            of.entry(opinion.clone()).or_default().insert(*voter);
        }
        of
    }
}

/// Who the members were a moment ago. Each of them votes once a second as long as a node is dead, and each vote is counted.
#[derive(Default)]
struct Members(Option<(Instant, Vec<NodeId>)>);

impl Members {
    /// Asks at most once in [`MEMBERS_AGE`]; `None` if there is no answer.
    async fn current(&mut self, discovery: &dyn Discovery) -> Option<&[NodeId]> {
        if self.0.as_ref().is_none_or(|(asked, _)| asked.elapsed() >= MEMBERS_AGE) {
            let asked = Instant::now();
            self.0 = match timeout(DISCOVERY, discovery.members()).await {
                Ok(Ok(members)) => Some((asked, members)),
                _ => None,
            };
        }
        self.0.as_ref().map(|(_, members)| members.as_slice())
    }
}

/// Since when each node is as it is, by address.
type Since = BTreeMap<String, (bool, Instant)>;

/// Looks after the nodes until the broker ends.
pub(super) async fn run(shared: Arc<Shared>) {
    let mut look = interval(LOOK);
    let (mut since, mut members) = (Since::new(), Members::default());
    loop {
        tokio::select! {
            biased;
            () = shared.stop.cancelled() => return,
            () = shared.votes.news.notified() => {
                // Asked for once: what is said here is no authority.
                if shared.votes.announced.swap(0, Ordering::AcqRel) > shared.epoch.load(Ordering::Acquire) {
                    shared.suspicion.notify_one();
                }
            }
            _ = look.tick() => shared.vote(&mut since),
        }
        shared.count_votes(&mut members).await;
    }
}

impl Shared {
    /// Says through every node what is to be said of any.
    fn vote(&self, since: &mut Since) {
        let Some(view) = self.view() else { return };
        let document = view.ring.document();
        let now = Instant::now();
        since.retain(|address, _| view.nodes.iter().any(|node| node.address == *address));
        for (node, named) in view.nodes.iter().zip(&document.nodes) {
            let usable = node.is_usable();
            let (was, begun) = since.entry(node.address.clone()).or_insert((usable, now));
            if *was != usable {
                (*was, *begun) = (usable, now);
            }
            let down = document.down.contains(&named.name);
            let is_due = match (down, usable) {
                (false, false) => begun.elapsed() >= DOWN_AFTER,
                (true, true) => begun.elapsed() >= UP_AFTER,
                _ => false,
            };
            if is_due {
                let opinion = Opinion { epoch: document.epoch, down: !down, name: named.name.clone() };
                self.say(&view.nodes, &opinion.text(self.names.node()));
                self.votes.take(self.names.node(), opinion);
            }
        }
    }

    fn say(&self, nodes: &[Arc<PubSubNode>], text: &str) {
        for node in nodes {
            let mut bytes = BytesMut::new();
            wire::command(&mut bytes, &[b"PUBLISH", &self.names.votes(), text.as_bytes()]);
            // A vote is said again soon, and a ring is found without: nobody waits for the answer.
            drop(node.publisher.start(bytes, 1, None));
        }
    }

    /// Changes the ring if enough of the members want it.
    async fn count_votes(self: &Arc<Self>, members: &mut Members) {
        let Some(view) = self.view() else { return };
        let votes = self.votes.of(view.ring.epoch());
        if votes.is_empty() {
            return;
        }
        let Some(members) = members.current(&*self.discovery).await else { return };
        let enough = |voters: &BTreeSet<NodeId>| {
            let counted = voters.iter().filter(|voter| members.contains(voter)).count();
            2 * counted > members.len()
        };
        if let Some((opinion, voters)) = votes.iter().find(|(_, voters)| enough(voters)) {
            tracing::warn!(
                node = opinion.name,
                down = opinion.down,
                votes = voters.len(),
                members = members.len(),
                "taking a pub/sub node out of service, or back in"
            );
            if self.change(opinion).await.is_some() {
                self.say(&view.nodes, &announcement(opinion.epoch + 1));
                self.suspicion.notify_one();
            }
        }
    }

    /// One compare-and-swap; who loses it to another finds a later epoch, and the votes are void.
    async fn change(&self, opinion: &Opinion) -> Option<()> {
        let document = timeout(DISCOVERY, self.discovery.document(&self.document)).await.ok()?.ok()?;
        let current = RingDocument::parse(&document.text).ok().filter(|current| current.epoch == opinion.epoch)?;
        let next = current.set_down(&opinion.name, opinion.down).ok()?.text();
        let swapped = self.discovery.swap(&self.document, document.version, &next);
        timeout(DISCOVERY, swapped).await.ok()?.ok().filter(|swapped| *swapped).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vote_survives_its_text_and_anything_else_is_none() {
        let opinion = Opinion { epoch: 7, down: true, name: "pubsub-1".to_owned() };
        let voter = NodeId(0xab);
        assert_eq!(Opinion::parse(opinion.text(voter).as_bytes()), Some((voter, opinion)));
        for text in ["", "ab", "ab 7 sideways a", "ab x down a", "ab 7 down", "ab 7 down a b", "\u{fffd}"] {
            assert_eq!(Opinion::parse(text.as_bytes()), None, "{text:?}");
        }
    }

    #[test]
    fn an_announcement_is_no_vote_and_survives_its_text() {
        assert_eq!(announced(announcement(7).as_bytes()), Some(7));
        assert_eq!(Opinion::parse(announcement(7).as_bytes()), None);
        assert_eq!((announced(b"ring"), announced(b"ring x"), announced(b"ab 7 down a")), (None, None, None));
    }

    /// One of them asked etcd before.
    #[tokio::test(start_paused = true)]
    async fn a_thousand_votes_ask_for_the_members_once() {
        let discovery = ports::embedded::EmbeddedDiscovery::new(ports::Clock::virtual_from_now());
        discovery.join(NodeId(1)).await.unwrap();
        let mut members = Members::default();
        for _ in 0..1_000 {
            assert_eq!(members.current(&discovery).await, Some(&[NodeId(1)][..]));
        }
        assert_eq!(discovery.members_asked(), 1);
        discovery.join(NodeId(2)).await.unwrap();
        tokio::time::sleep(MEMBERS_AGE).await;
        assert_eq!(
            members.current(&discovery).await.map(<[NodeId]>::len),
            Some(2),
            "and see who joins within a second"
        );
        discovery.set_health(ports::embedded::Health::Down);
        tokio::time::sleep(MEMBERS_AGE).await;
        assert_eq!(members.current(&discovery).await, None, "nothing is decided without knowing them");
    }

    #[tokio::test(start_paused = true)]
    async fn only_votes_of_this_moment_on_this_ring_count_and_each_voter_once() {
        let votes = Votes::default();
        let opinion = |epoch| Opinion { epoch, down: true, name: "a".to_owned() };
        for (voter, epoch) in [(1, 7), (1, 7), (2, 7), (3, 6)] {
            votes.take(NodeId(voter), opinion(epoch));
        }
        assert_eq!(votes.of(7)[&opinion(7)].len(), 2);
        tokio::time::sleep(VOTE).await;
        assert!(votes.of(7).is_empty());
    }
}
