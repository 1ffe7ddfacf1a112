//! What seeds have found, or what was found while they were made, as plain situations.

use std::sync::Arc;
use std::time::Duration;

use axum::http::{Method, StatusCode};
use model::{Motion, UserId};
use ports::ControlEntry;
use protocol::client::{Init, Report};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::chaos::{Chaos, Port, Sickness};
use crate::connection::{Line, Served};
use crate::fleet::{Fleet, Planted};
use crate::judge::{Judge, position};

const ALICE: UserId = UserId(1);
const BOB: UserId = UserId(2);
const CAROL: UserId = UserId(3);
const DAVE: UserId = UserId(4);

/// Two nodes in calm weather; only what a test cuts off is cut off.
struct Scene {
    fleet: Fleet,
    chaos: Arc<Chaos>,
    judge: Arc<Judge>,
}

impl Scene {
    async fn new(kept: usize) -> Scene {
        let chaos = Chaos::new(0, 2);
        let judge = Arc::new(Judge::default());
        let fleet = Fleet::start(2, kept, Planted::default(), &chaos, &judge).await;
        Scene { fleet, chaos, judge }
    }

    async fn connect(&self, user: UserId, node: usize) -> Arc<Line> {
        let line = Line::new(user, node);
        let (node, chaos, judge) = (self.fleet.nodes[node].clone(), self.chaos.clone(), self.judge.clone());
        self.chaos.spawn(Served { line: line.clone(), node, chaos, judge }.run(Some((1, self.report(1)))));
        assert!(line.live().await);
        line
    }

    fn report(&self, number: u64) -> Report {
        Report { position: position(number), ts: self.fleet.clock.wall(), motion: Motion::UNKNOWN, sent_at: None }
    }

    async fn ask(&self, method: Method, one: UserId, other: UserId) -> StatusCode {
        self.fleet.application.ask(method, &format!("/v1/users/{one}/friends/{other}")).await
    }
}

async fn pass(millis: u64) {
    sleep(Duration::from_millis(millis)).await;
}

/// The turn that renews the right began while it held, and ended after it had ended: who drained in between went away
/// with nothing, and nobody rang again.
#[tokio::test(start_paused = true)]
async fn what_was_held_back_within_a_turn_goes_out_at_its_end() {
    let scene = Scene::new(1_000).await;
    assert!(scene.ask(Method::PUT, ALICE, BOB).await.is_success());
    let alice = scene.connect(ALICE, 0).await;
    let bob = scene.connect(BOB, 1).await;
    pass(100).await;
    let cut_off = |sickness, millis| scene.chaos.cut_off(0, Port::Poll, sickness, Duration::from_millis(millis));
    cut_off(Sickness::Refuses, 60_000);
    while scene.fleet.nodes[0].may_send() {
        pass(50).await;
        // The next turn's read takes until after the end of the right, and is answered.
        let ends_soon = scene.fleet.nodes[0].clock().monotonic().0 % 86_400_000 > 9_000;
        if ends_soon {
            cut_off(Sickness::Hangs, 2_500);
            while scene.fleet.nodes[0].may_send() {
                pass(10).await;
            }
        }
    }
    bob.send((2, scene.report(2)));
    pass(100).await;
    assert_eq!(alice.view()[&BOB], 1, "the right has ended");
    pass(2_500).await;
    assert!(scene.fleet.nodes[0].may_send());
    assert_eq!(alice.view()[&BOB], 2);
}

/// Each update began the pause anew after which what had failed was to be tried again.
#[tokio::test(start_paused = true)]
async fn what_failed_is_published_again_while_others_send() {
    let scene = Scene::new(1_000).await;
    assert!(scene.ask(Method::PUT, ALICE, BOB).await.is_success());
    let alice = scene.connect(ALICE, 0).await;
    let bob = scene.connect(BOB, 1).await;
    let carol = scene.connect(CAROL, 1).await;
    pass(100).await;
    scene.chaos.cut_off(1, Port::Broker, Sickness::Refuses, Duration::from_millis(20));
    bob.send((2, scene.report(2)));
    for number in 2..40 {
        pass(50).await;
        carol.send((number, scene.report(number)));
    }
    assert_eq!(alice.view()[&BOB], 2);
}

/// The node closed its connections with 1012, which are served until their moment comes, and confirmed what it had never
/// read.
#[tokio::test(start_paused = true)]
async fn who_missed_entries_of_the_control_log_shows_nobody() {
    let scene = Scene::new(3).await;
    assert!(scene.ask(Method::PUT, ALICE, BOB).await.is_success());
    let alice = scene.connect(ALICE, 0).await;
    let bob = scene.connect(BOB, 1).await;
    pass(100).await;
    assert_eq!(alice.view()[&BOB], 1);
    scene.chaos.cut_off(0, Port::Poll, Sickness::Refuses, Duration::from_secs(5));
    let scene = Arc::new(scene);
    let mut revoke = JoinSet::new();
    let application = scene.clone();
    revoke.spawn(async move { application.ask(Method::DELETE, ALICE, BOB).await });
    pass(10).await;
    for _ in 0..4 {
        assert!(scene.ask(Method::PUT, CAROL, DAVE).await.is_success());
    }
    assert_eq!(revoke.join_next().await.unwrap().unwrap(), StatusCode::NO_CONTENT);
    scene.judge.revoked(ALICE, BOB, 1);
    for number in 2..20 {
        bob.send((number, scene.report(number)));
        pass(100).await;
    }
    assert_eq!(scene.judge.violation(), None);
    assert_eq!(alice.view().get(&BOB), None, "also the client was told");
}

/// The deletion was among the entries that were missed: the node went on publishing what it held, and confirmed with the
/// next deletion that it held nothing.
#[tokio::test(start_paused = true)]
async fn who_missed_a_deletion_holds_no_position_from_before() {
    let scene = Scene::new(3).await;
    let _alice = scene.connect(ALICE, 0).await;
    let _bob = scene.connect(BOB, 0).await;
    pass(100).await;
    scene.chaos.cut_off(0, Port::Poll, Sickness::Refuses, Duration::from_secs(5));
    let control = &scene.fleet.records.control;
    for user in [BOB, CAROL, CAROL, CAROL, CAROL] {
        control.append(ControlEntry::UserDeleted(user)).await.unwrap();
    }
    pass(8_000).await;
    let broker = &scene.fleet.brokers[0];
    let published = broker.published();
    scene.fleet.bus.change_routing();
    pass(1_000).await;
    assert_eq!(broker.published(), published, "nothing that may be a deleted user's is sent again");
    let last = control.append(ControlEntry::UserDeleted(DAVE)).await.unwrap();
    control.erased(last).await.unwrap();
}

/// The registry did not answer, and until it did the revoke waited for a connection whose socket was gone.
#[tokio::test(start_paused = true)]
async fn a_revoke_does_not_wait_for_the_registry_of_sharing_connections() {
    let scene = Arc::new(Scene::new(1_000).await);
    assert!(scene.ask(Method::PUT, ALICE, BOB).await.is_success());
    let (mut session, _feed) = scene.fleet.nodes[0].open(ALICE);
    // Its first page never reaches the kernel.
    session.init(&Init { report: Some(scene.report(1)), radius: None, limit: None }).await.unwrap();
    scene.chaos.cut_off(0, Port::Sessions, Sickness::Hangs, Duration::from_secs(60));
    let mut revoke = JoinSet::new();
    let (application, began) = (scene.clone(), Instant::now());
    revoke.spawn(async move { application.ask(Method::DELETE, ALICE, BOB).await });
    session.signal().clone().is_cut().await;
    scene.chaos.spawn(session.close());
    assert_eq!(revoke.join_next().await.unwrap().unwrap(), StatusCode::NO_CONTENT);
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    assert!(scene.fleet.nodes[0].may_send());
}
