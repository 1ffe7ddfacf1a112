//! The contract of [`Broker`], as tests.

#![expect(clippy::unwrap_used, reason = "a suite panics when a sentence does not hold")]

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use model::{Fix, Generation, MonotonicMs, Motion, Order, Place, PolicyVersion, Position, TimestampMs, UserId};

use super::{Affected, Arrival, Broker, Channel, Inbox, Publication};
use crate::Clock;
use crate::conformance::{fresh_node, fresh_user, fresh_users, soon};

/// Makes a test of every sentence: `broker_conformance!([tokio::test] harness)`.
#[macro_export]
macro_rules! broker_conformance {
    ($attribute:tt $harness:expr) => {
        $crate::conformance_tests! { $attribute $harness, broker:
            a_message_arrives_once_at_every_subscribed_node,
            nothing_is_kept_for_who_subscribes_later,
            a_message_arrives_as_it_was_published,
            publishing_to_nobody_is_ok,
            what_is_published_again_arrives_again,
            publications_of_a_channel_arrive_in_order,
            what_is_published_after_subscribe_arrives,
            a_node_hears_its_own_publications,
            subscribing_again_changes_nothing,
            after_unsubscribe_nothing_arrives,
            unsubscribing_from_what_is_not_subscribed_is_no_error,
            a_lost_subscription_is_told_as_a_gap_and_holds_again,
            publishers_do_not_wait_for_a_full_inbox_and_what_is_lost_is_told,
            a_gap_names_only_subscribed_channels,
            a_large_batch_arrives,
            what_is_said_to_one_node_arrives_there_alone,
            a_change_of_routing_is_told_to_who_publishes_and_watches_nobody,
            a_change_of_routing_is_told_to_who_watches,
            what_is_to_be_published_again_is_told_however_full_the_inbox,
            messages_lost_on_their_way_here_are_no_reason_to_publish_again,
        }
    };
}

/// A backend under test.
#[async_trait]
pub trait BrokerHarness: Send + Sync {
    /// One node's broker.
    type Broker: Broker;

    /// Connects another node, with an inbox of so many batches.
    async fn attach(&self, inbox_batches: usize) -> (Arc<Self::Broker>, Inbox);

    /// Makes the node lose the connections that its messages arrive on. They come back by themselves.
    async fn lose_subscription(&self, node: &Self::Broker);

    /// Changes the way of every channel, for all nodes. Returns when all of them have noticed.
    async fn change_routing(&self);

    /// The clock that the nodes were given.
    fn clock(&self) -> Clock {
        Clock::System
    }
}

/// Room for everything that a test publishes.
const ROOMY: usize = 1_024;

/// Long enough for what is under way to arrive.
const A_WHILE: Duration = Duration::from_millis(300);

fn channel(user: UserId) -> Channel {
    Channel::User(user)
}

fn message(harness: &impl BrokerHarness, user: UserId, ts: u64) -> Publication {
    Publication::Location(Fix {
        user,
        place: Place::new(Position::new(40.0, 116.0).unwrap()),
        order: Order { generation: Generation(1), ts: TimestampMs(ts), ..Order::default() },
        expires: harness.clock().monotonic().after(Duration::from_secs(60)),
        policy: PolicyVersion(3),
        motion: Motion::UNKNOWN.with_charging(true),
    })
}

fn fix(message: &Publication) -> Fix {
    let (Publication::Location(fix) | Publication::Directed { fix, .. }) = message;
    *fix
}

/// Everything that an inbox handed out.
#[derive(Default)]
struct Heard {
    messages: Vec<Fix>,
    gaps: HashSet<Channel>,
    /// What this node is to publish again.
    again: Option<Affected>,
}

impl Heard {
    fn add(&mut self, arrival: Arrival) {
        match arrival {
            Arrival::Batch(messages) => self.messages.extend(messages.iter().map(fix)),
            Arrival::Gap(channels) => self.gaps.extend(channels),
            Arrival::Republish(affected) => {
                self.again = Some(match self.again.take() {
                    Some(before) => before.or(affected),
                    None => affected,
                });
            }
        }
    }

    /// Whether what this node published of the user is to be published again.
    fn asks_for(&self, user: UserId) -> bool {
        self.again.as_ref().is_some_and(|affected| affected.holds(channel(user)))
    }

    /// The times of the messages of one user, in the order of their arrival.
    fn of(&self, user: UserId) -> Vec<u64> {
        self.messages.iter().filter(|fix| fix.user == user).map(|fix| fix.order.ts.0).collect()
    }

    /// Whether something of this user arrived or was told as lost.
    fn knows(&self, user: UserId) -> bool {
        self.gaps.contains(&channel(user)) || !self.of(user).is_empty()
    }
}

/// Takes arrivals until it has heard enough.
async fn hear(inbox: &mut Inbox, enough: impl Fn(&Heard) -> bool) -> Heard {
    let mut heard = Heard::default();
    let listen = async {
        while !enough(&heard) {
            heard.add(inbox.recv().await.expect("the broker ended"));
        }
    };
    soon("an arrival", listen).await;
    heard
}

/// Takes arrivals until none has come for a while.
async fn hear_all(inbox: &mut Inbox) -> Heard {
    let mut heard = Heard::default();
    while let Ok(Some(arrival)) = tokio::time::timeout(A_WHILE, inbox.recv()).await {
        heard.add(arrival);
    }
    heard
}

/// Sentence 1.
pub async fn a_message_arrives_once_at_every_subscribed_node(harness: &impl BrokerHarness) {
    let (publisher, mut nothing) = harness.attach(ROOMY).await;
    let (first, mut first_inbox) = harness.attach(ROOMY).await;
    let (second, mut second_inbox) = harness.attach(ROOMY).await;
    let [both, one, nobody] = fresh_users();
    first.subscribe(&[channel(both)]).await.unwrap();
    second.subscribe(&[channel(both), channel(one)]).await.unwrap();
    publisher.publish(&[both, one, nobody].map(|user| message(harness, user, 1))).await.unwrap();
    let users = |heard: Heard| heard.messages.iter().map(|fix| fix.user).collect::<HashSet<_>>();
    let counted = hear_all(&mut first_inbox).await;
    assert_eq!(counted.messages.len(), 1);
    assert_eq!(users(counted), HashSet::from([both]));
    let counted = hear_all(&mut second_inbox).await;
    assert_eq!(counted.messages.len(), 2);
    assert_eq!(users(counted), HashSet::from([both, one]));
    assert!(hear_all(&mut nothing).await.messages.is_empty(), "not subscribed");
}

/// Sentence 1.
pub async fn nothing_is_kept_for_who_subscribes_later(harness: &impl BrokerHarness) {
    let (publisher, _inbox) = harness.attach(ROOMY).await;
    let (late, mut inbox) = harness.attach(ROOMY).await;
    let user = fresh_user();
    publisher.publish(&[message(harness, user, 1)]).await.unwrap();
    late.subscribe(&[channel(user)]).await.unwrap();
    publisher.publish(&[message(harness, user, 2)]).await.unwrap();
    assert_eq!(hear_all(&mut inbox).await.of(user), [2]);
}

/// Sentence 1: nothing is added or left out.
pub async fn a_message_arrives_as_it_was_published(harness: &impl BrokerHarness) {
    let (publisher, _inbox) = harness.attach(ROOMY).await;
    let (subscriber, mut inbox) = harness.attach(ROOMY).await;
    let user = fresh_user();
    subscriber.subscribe(&[channel(user)]).await.unwrap();
    let published = message(harness, user, 7);
    publisher.publish(&[published]).await.unwrap();
    let arrived = hear(&mut inbox, |heard| heard.knows(user)).await.messages[0];
    // The time left may be rounded on its way.
    let MonotonicMs(end) = fix(&published).expires;
    assert!(arrived.expires.0.abs_diff(end) < 2_000);
    assert_eq!(Fix { expires: fix(&published).expires, ..arrived }, fix(&published));
}

/// Sentence 2.
pub async fn publishing_to_nobody_is_ok(harness: &impl BrokerHarness) {
    let (publisher, _inbox) = harness.attach(ROOMY).await;
    publisher.publish(&[message(harness, fresh_user(), 1)]).await.unwrap();
    publisher.publish(&[]).await.unwrap();
}

/// Sentence 2.
pub async fn what_is_published_again_arrives_again(harness: &impl BrokerHarness) {
    let (publisher, _inbox) = harness.attach(ROOMY).await;
    let (subscriber, mut inbox) = harness.attach(ROOMY).await;
    let user = fresh_user();
    subscriber.subscribe(&[channel(user)]).await.unwrap();
    for _ in 0..2 {
        publisher.publish(&[message(harness, user, 5)]).await.unwrap();
    }
    assert_eq!(hear_all(&mut inbox).await.of(user), [5, 5]);
}

/// Sentence 3.
pub async fn publications_of_a_channel_arrive_in_order(harness: &impl BrokerHarness) {
    let (publisher, _inbox) = harness.attach(ROOMY).await;
    let (subscriber, mut inbox) = harness.attach(ROOMY).await;
    let users: [UserId; 5] = fresh_users();
    subscriber.subscribe(&users.map(channel)).await.unwrap();
    // 40 calls, with each user twice in each.
    for call in 0..40 {
        let twice = [2 * call, 2 * call + 1];
        let batch = twice.iter().flat_map(|ts| users.iter().map(|user| message(harness, *user, *ts)));
        publisher.publish(&batch.collect::<Vec<_>>()).await.unwrap();
    }
    let heard = hear(&mut inbox, |heard| heard.messages.len() >= 400).await;
    for user in users {
        assert_eq!(heard.of(user), (0..80).collect::<Vec<_>>());
    }
}

/// Sentence 4.
pub async fn what_is_published_after_subscribe_arrives(harness: &impl BrokerHarness) {
    let (publisher, _inbox) = harness.attach(ROOMY).await;
    let (subscriber, mut inbox) = harness.attach(ROOMY).await;
    for round in 0..50 {
        let users: [UserId; 20] = fresh_users();
        subscriber.subscribe(&users.map(channel)).await.unwrap();
        publisher.publish(&users.map(|user| message(harness, user, round))).await.unwrap();
        hear(&mut inbox, |heard| users.iter().all(|user| heard.knows(*user))).await;
    }
}

/// Sentence 4.
pub async fn a_node_hears_its_own_publications(harness: &impl BrokerHarness) {
    let (node, mut inbox) = harness.attach(ROOMY).await;
    let user = fresh_user();
    node.subscribe(&[channel(user)]).await.unwrap();
    node.publish(&[message(harness, user, 1)]).await.unwrap();
    assert_eq!(hear_all(&mut inbox).await.of(user), [1]);
}

/// Sentence 5.
pub async fn subscribing_again_changes_nothing(harness: &impl BrokerHarness) {
    let (publisher, _inbox) = harness.attach(ROOMY).await;
    let (subscriber, mut inbox) = harness.attach(ROOMY).await;
    let user = fresh_user();
    subscriber.subscribe(&[channel(user), channel(user)]).await.unwrap();
    subscriber.subscribe(&[channel(user)]).await.unwrap();
    publisher.publish(&[message(harness, user, 1)]).await.unwrap();
    assert_eq!(hear_all(&mut inbox).await.of(user), [1], "once");
    subscriber.unsubscribe(&[channel(user)]).await.unwrap();
    publisher.publish(&[message(harness, user, 2)]).await.unwrap();
    assert!(hear_all(&mut inbox).await.of(user).is_empty(), "one unsubscribe ends it");
}

/// Sentence 6.
pub async fn after_unsubscribe_nothing_arrives(harness: &impl BrokerHarness) {
    let (publisher, _inbox) = harness.attach(ROOMY).await;
    let (leaving, mut inbox) = harness.attach(ROOMY).await;
    let (staying, mut other_inbox) = harness.attach(ROOMY).await;
    let [left, kept] = fresh_users();
    for node in [&leaving, &staying] {
        node.subscribe(&[left, kept].map(channel)).await.unwrap();
    }
    leaving.unsubscribe(&[channel(left)]).await.unwrap();
    publisher.publish(&[left, kept].map(|user| message(harness, user, 1))).await.unwrap();
    let heard = hear_all(&mut inbox).await;
    assert_eq!((heard.of(left), heard.of(kept)), (vec![], vec![1]));
    let heard = hear_all(&mut other_inbox).await;
    assert_eq!((heard.of(left), heard.of(kept)), (vec![1], vec![1]), "the other node is still subscribed");
    leaving.subscribe(&[channel(left)]).await.unwrap();
    publisher.publish(&[message(harness, left, 2)]).await.unwrap();
    assert_eq!(hear_all(&mut inbox).await.of(left), [2], "and may come back");
}

/// Sentence 6.
pub async fn unsubscribing_from_what_is_not_subscribed_is_no_error(harness: &impl BrokerHarness) {
    let (node, _inbox) = harness.attach(ROOMY).await;
    node.unsubscribe(&[channel(fresh_user())]).await.unwrap();
    node.unsubscribe(&[]).await.unwrap();
    node.subscribe(&[]).await.unwrap();
}

/// Sentence 7.
pub async fn a_lost_subscription_is_told_as_a_gap_and_holds_again(harness: &impl BrokerHarness) {
    let (publisher, _inbox) = harness.attach(ROOMY).await;
    let (subscriber, mut inbox) = harness.attach(ROOMY).await;
    let users: [UserId; 10] = fresh_users();
    let gone = fresh_user();
    subscriber.subscribe(&[channel(gone)]).await.unwrap();
    subscriber.subscribe(&users.map(channel)).await.unwrap();
    subscriber.unsubscribe(&[channel(gone)]).await.unwrap();
    for round in 0..3 {
        harness.lose_subscription(&subscriber).await;
        // May arrive or be lost.
        publisher.publish(&users.map(|user| message(harness, user, round))).await.unwrap();
        let heard = hear(&mut inbox, |heard| heard.gaps.len() >= users.len()).await;
        assert_eq!(heard.gaps, HashSet::from(users.map(channel)), "what was subscribed and nothing else");
        publisher.publish(&users.map(|user| message(harness, user, 100 + round))).await.unwrap();
        hear(&mut inbox, |heard| users.iter().all(|user| heard.of(*user).contains(&(100 + round)))).await;
    }
}

/// Sentence 8.
pub async fn publishers_do_not_wait_for_a_full_inbox_and_what_is_lost_is_told(harness: &impl BrokerHarness) {
    let (publisher, _inbox) = harness.attach(ROOMY).await;
    let (slow, mut inbox) = harness.attach(1).await;
    let users: [UserId; 200] = fresh_users();
    slow.subscribe(&users.map(channel)).await.unwrap();
    for user in users {
        soon("publish", publisher.publish(&[message(harness, user, 1)])).await.unwrap();
    }
    let heard = hear(&mut inbox, |heard| users.iter().all(|user| heard.knows(*user))).await;
    assert!(users.iter().all(|user| heard.of(*user).len() <= 1));
    hear_all(&mut inbox).await;
    publisher.publish(&[message(harness, users[0], 2)]).await.unwrap();
    assert_eq!(hear_all(&mut inbox).await.of(users[0]), [2], "there is room again");
}

/// Sentence 7.
pub async fn a_gap_names_only_subscribed_channels(harness: &impl BrokerHarness) {
    let (publisher, _inbox) = harness.attach(ROOMY).await;
    let (slow, mut inbox) = harness.attach(1).await;
    let users: [UserId; 50] = fresh_users();
    slow.subscribe(&users.map(channel)).await.unwrap();
    for user in users {
        publisher.publish(&[message(harness, user, 1)]).await.unwrap();
    }
    // Until everything has arrived or has been lost.
    tokio::time::sleep(A_WHILE).await;
    let (left, kept) = users.split_at(25);
    let left: Vec<Channel> = left.iter().copied().map(channel).collect();
    slow.unsubscribe(&left).await.unwrap();
    let heard = hear_all(&mut inbox).await;
    assert!(left.iter().all(|channel| !heard.gaps.contains(channel)));
    assert!(kept.iter().all(|user| heard.knows(*user)));
}

/// Sentences 1 and 8: no batch is too large.
pub async fn a_large_batch_arrives(harness: &impl BrokerHarness) {
    let (publisher, _inbox) = harness.attach(ROOMY).await;
    let (subscriber, mut inbox) = harness.attach(ROOMY).await;
    let users: Vec<UserId> = (0..5_000).map(|_| fresh_user()).collect();
    subscriber.subscribe(&users.iter().copied().map(channel).collect::<Vec<_>>()).await.unwrap();
    // Until the subscriptions hold, if they did not at once.
    hear_all(&mut inbox).await;
    let batch: Vec<Publication> = users.iter().map(|user| message(harness, *user, 1)).collect();
    publisher.publish(&batch).await.unwrap();
    let heard = hear(&mut inbox, |heard| heard.messages.len() + heard.gaps.len() >= users.len()).await;
    let arrived: HashSet<UserId> = heard.messages.iter().map(|fix| fix.user).collect();
    assert_eq!(arrived.len(), users.len());
}

/// Sentence 1: a node's own channel.
pub async fn what_is_said_to_one_node_arrives_there_alone(harness: &impl BrokerHarness) {
    let (publisher, _inbox) = harness.attach(ROOMY).await;
    let (meant, mut inbox) = harness.attach(ROOMY).await;
    let (watching, mut other_inbox) = harness.attach(ROOMY).await;
    let (node, other, user) = (fresh_node(), fresh_node(), fresh_user());
    meant.subscribe(&[Channel::Node(node)]).await.unwrap();
    watching.subscribe(&[Channel::Node(other), channel(user)]).await.unwrap();
    let directed = |node, ts| Publication::Directed { node, fix: fix(&message(harness, user, ts)) };
    // Of somebody whom that node does not watch.
    publisher.publish(&[directed(node, 1), message(harness, user, 2), directed(node, 3)]).await.unwrap();
    assert_eq!(hear_all(&mut inbox).await.of(user), [1, 3], "in order, and nothing of the user's own channel");
    assert_eq!(hear_all(&mut other_inbox).await.of(user), [2], "not its channel");
    meant.unsubscribe(&[Channel::Node(node)]).await.unwrap();
    publisher.publish(&[directed(node, 4)]).await.unwrap();
    assert!(hear_all(&mut inbox).await.of(user).is_empty());
    meant.subscribe(&[Channel::Node(node)]).await.unwrap();
    harness.lose_subscription(&meant).await;
    let heard = hear(&mut inbox, |heard| !heard.gaps.is_empty()).await;
    assert_eq!(heard.gaps, HashSet::from([Channel::Node(node)]));
}

/// Sentence 9.
pub async fn a_change_of_routing_is_told_to_who_publishes_and_watches_nobody(harness: &impl BrokerHarness) {
    let (publisher, mut inbox) = harness.attach(ROOMY).await;
    let users: [UserId; 20] = fresh_users();
    publisher.publish(&users.map(|user| message(harness, user, 1))).await.unwrap();
    assert!(hear_all(&mut inbox).await.again.is_none(), "nothing has changed");
    for round in 2..4 {
        harness.change_routing().await;
        let heard = hear(&mut inbox, |heard| users.iter().all(|user| heard.asks_for(*user))).await;
        assert!(heard.gaps.is_empty(), "it watches nobody");
        // And what is published from now on reaches who subscribes by then.
        let (subscriber, mut arrived) = harness.attach(ROOMY).await;
        subscriber.subscribe(&users.map(channel)).await.unwrap();
        publisher.publish(&users.map(|user| message(harness, user, round))).await.unwrap();
        hear(&mut arrived, |heard| users.iter().all(|user| heard.of(*user).contains(&round))).await;
    }
    assert!(hear_all(&mut inbox).await.again.is_none(), "told once");
}

/// Sentences 7 and 9.
pub async fn a_change_of_routing_is_told_to_who_watches(harness: &impl BrokerHarness) {
    let (publisher, _inbox) = harness.attach(ROOMY).await;
    let (subscriber, mut inbox) = harness.attach(ROOMY).await;
    let users: [UserId; 20] = fresh_users();
    subscriber.subscribe(&users.map(channel)).await.unwrap();
    harness.change_routing().await;
    let all = HashSet::from(users.map(channel));
    hear(&mut inbox, |heard| heard.gaps == all).await;
    publisher.publish(&users.map(|user| message(harness, user, 1))).await.unwrap();
    hear(&mut inbox, |heard| users.iter().all(|user| heard.of(*user) == [1])).await;
}

/// Sentences 8 and 9.
pub async fn what_is_to_be_published_again_is_told_however_full_the_inbox(harness: &impl BrokerHarness) {
    let (node, mut inbox) = harness.attach(1).await;
    let users: [UserId; 50] = fresh_users();
    node.subscribe(&users.map(channel)).await.unwrap();
    for (round, user) in users[..20].iter().enumerate() {
        // One call each: one batch each.
        node.publish(&[message(harness, *user, 1)]).await.unwrap();
        if round % 8 == 0 {
            harness.change_routing().await;
        }
    }
    let heard = hear_all(&mut inbox).await;
    assert!(users.iter().all(|user| heard.asks_for(*user)));
    assert!(users[..20].iter().all(|user| heard.knows(*user)));
}

/// Sentence 9: that would be a storm whenever a node is slow.
pub async fn messages_lost_on_their_way_here_are_no_reason_to_publish_again(harness: &impl BrokerHarness) {
    let (node, mut inbox) = harness.attach(1).await;
    let users: [UserId; 50] = fresh_users();
    node.subscribe(&users.map(channel)).await.unwrap();
    for user in users {
        node.publish(&[message(harness, user, 1)]).await.unwrap();
    }
    harness.lose_subscription(&node).await;
    let mut heard = hear(&mut inbox, |heard| heard.gaps.len() == users.len()).await;
    while let Ok(Some(arrival)) = tokio::time::timeout(A_WHILE, inbox.recv()).await {
        heard.add(arrival);
    }
    assert_eq!(heard.again, None);
}
