//! A right server is never blamed, and each planted fault is found, by its name.

use super::*;
use crate::wire::{Page, Reason, Shown};

/// People 0 and 1 are friends; 2 is a stranger to both.
const VIEWER: usize = 0;
const FRIEND: usize = 1;
const STRANGER: usize = 2;
const BASE: u64 = 100;

/// A world in which seconds are counted by hand, and places lie on a line northwards.
struct World {
    oracle: Oracle,
    now: At,
}

fn north(meters: f64) -> Position {
    Position::new(40.0 + meters / 111_195.08, 116.0).unwrap()
}

fn user(person: usize) -> UserId {
    UserId(BASE + person as u64)
}

impl World {
    /// Friends at these places, connected, and all of it long settled.
    fn with(viewer_m: f64, friend_m: f64) -> World {
        let people = People { base: BASE, count: 3 };
        let rules = Rules { ttl: Some(Duration::from_secs(60)), ..Rules::default() };
        let mut world = World { oracle: Oracle::new(people, rules, 10), now: At(1_000_000) };
        world.oracle.befriending(VIEWER, FRIEND, world.now);
        world.oracle.changed(VIEWER, FRIEND, true, world.now);
        for (person, meters) in [(VIEWER, viewer_m), (FRIEND, friend_m), (STRANGER, 0.0)] {
            world.oracle.connecting(person);
            world.moves(person, meters);
            world.oracle.listed(person, world.now);
        }
        world.wait(10);
        world
    }

    fn wait(&mut self, seconds: u64) {
        self.now = self.now.after(Duration::from_secs(seconds));
    }

    /// The answer is the position's `ts`.
    fn moves(&mut self, person: usize, meters: f64) -> u64 {
        self.oracle.sending(person, north(meters), self.now.0 / 1_000, self.now)
    }

    /// What a right server shows of this person's newest position.
    fn newest(&self, person: usize) -> Shown {
        let viewer = self.oracle.whereabouts[VIEWER].newest().unwrap().position;
        let sent = self.oracle.whereabouts[person].newest().unwrap();
        let distance_m = haversine(viewer, sent.position).to_decimeter().0;
        Shown { id: user(person), lat: sent.position.lat(), lon: sent.position.lon(), ts: sent.ts, distance_m }
    }

    fn show(&mut self, shown: Shown) -> Told {
        self.oracle.shown(VIEWER, &shown, self.now)
    }

    fn gone(&mut self, reason: Reason) {
        self.oracle.gone(VIEWER, user(FRIEND), reason, self.now);
    }

    fn at_rest(&mut self) {
        self.wait(3);
        self.oracle.judge_at_rest(Duration::from_secs(2), self.now);
    }

    #[track_caller]
    fn finds(&self, fault: Fault) {
        let found: Vec<_> = self.oracle.faults.by_kind();
        assert!(found.len() == 1 && found[0].1 == fault, "{found:?} in place of {fault:?}");
    }

    #[track_caller]
    fn finds_nothing(&self) {
        assert_eq!(self.oracle.faults.examples(), [""; 0]);
    }

    /// The friend's view is not what most tests are about: it is shown what it must be.
    fn the_other_view_is_right(&mut self) {
        self.oracle.views[FRIEND].listed = None;
        self.oracle.views[FRIEND].seen.clear();
    }

    #[track_caller]
    fn finds_at_rest(&mut self, fault: Option<Fault>) {
        self.at_rest();
        let about: Vec<_> = self.oracle.faults.by_kind().into_iter().map(|(_, fault, _)| fault).collect();
        let others = |found: &Fault| *found != Fault::NotConnected;
        assert_eq!(about.into_iter().filter(others).collect::<Vec<_>>(), fault.into_iter().collect::<Vec<_>>());
    }
}

/// Near each other and shown; the other view left out.
fn near() -> World {
    let mut world = World::with(0.0, 1_000.0);
    world.the_other_view_is_right();
    assert_eq!(world.show(world.newest(FRIEND)), Told::Entry);
    world.finds_nothing();
    world
}

#[test]
fn a_right_server_is_not_blamed() {
    let mut world = near();
    let sent = world.now;
    world.moves(FRIEND, 1_500.0);
    assert_eq!(world.show(world.newest(FRIEND)), Told::Move(sent));
    assert_eq!(world.show(world.newest(FRIEND)), Told::Again);
    world.moves(FRIEND, 9_000.0);
    world.gone(Reason::OutOfRange);
    world.finds_at_rest(None);
}

#[test]
fn a_wrong_distance() {
    let mut world = near();
    let shown = world.newest(FRIEND);
    world.show(Shown { distance_m: shown.distance_m + 0.2, ..shown });
    world.finds(Fault::Distance);
}

#[test]
fn a_distance_from_where_the_viewer_was_until_just_now_is_right_and_later_wrong() {
    let mut world = near();
    let from_before = world.newest(FRIEND);
    world.moves(VIEWER, 500.0);
    world.wait(1);
    world.show(from_before);
    world.show(world.newest(FRIEND));
    world.finds_nothing();
    world.wait(2);
    world.show(from_before);
    world.finds(Fault::Distance);
}

#[test]
fn a_server_that_is_late_knows_where_the_viewer_was_then() {
    let mut world = near();
    world.moves(FRIEND, 1_100.0);
    let from_before = world.newest(FRIEND);
    world.moves(VIEWER, 500.0);
    world.wait(3);
    world.show(from_before);
    world.finds_nothing();
    assert_eq!(world.oracle.longest_in_flight(), Duration::from_secs(6));
    // Once it has been in time for a while it is held to that again.
    world.wait(11);
    world.moves(FRIEND, 1_200.0);
    let from_before = world.newest(FRIEND);
    world.moves(VIEWER, 0.0);
    world.show(from_before);
    world.finds_nothing();
    world.wait(3);
    world.show(from_before);
    world.finds(Fault::Distance);
}

#[test]
fn what_another_run_left_behind_is_named_so() {
    let mut world = near();
    let shown = world.newest(FRIEND);
    world.show(Shown { ts: 1, ..shown });
    assert!(world.oracle.faults.examples()[0].contains("choose another --user-base"));
}

#[test]
fn outside_the_radius() {
    let mut world = near();
    world.moves(FRIEND, 8_050.0);
    world.show(world.newest(FRIEND));
    world.finds(Fault::OutsideRadius);
}

#[test]
fn outside_is_right_while_the_viewer_may_have_been_nearer() {
    let mut world = near();
    world.moves(VIEWER, 100.0);
    world.moves(FRIEND, 8_100.0);
    let within_5_miles = world.newest(FRIEND);
    world.moves(VIEWER, 0.0);
    world.show(within_5_miles);
    world.finds_nothing();
}

#[test]
fn an_older_position_than_before() {
    let mut world = near();
    let older = world.newest(FRIEND);
    world.moves(FRIEND, 1_100.0);
    world.show(world.newest(FRIEND));
    world.show(older);
    world.finds(Fault::WentBack);
}

#[test]
fn an_older_position_than_before_on_another_connection() {
    let mut world = near();
    let older = world.newest(FRIEND);
    world.moves(FRIEND, 1_100.0);
    world.show(world.newest(FRIEND));
    world.oracle.disconnected(VIEWER, true, world.now);
    world.oracle.connecting(VIEWER);
    world.show(older);
    world.finds(Fault::WentBack);
}

#[test]
fn a_stranger() {
    let mut world = near();
    world.show(world.newest(STRANGER));
    world.finds(Fault::Stranger);
    assert_eq!(world.oracle.faults.of(Class::Extra), 1);
}

#[test]
fn an_id_that_nobody_has() {
    let mut world = near();
    let nobody = Shown { id: UserId(7), ..world.newest(FRIEND) };
    world.show(nobody);
    world.finds(Fault::Stranger);
}

#[test]
fn a_position_that_was_never_sent_or_elsewhere() {
    let mut world = near();
    let shown = world.newest(FRIEND);
    world.show(Shown { ts: shown.ts + 1, ..shown });
    world.finds(Fault::NeverSent);
    let mut world = near();
    world.show(Shown { lat: shown.lat + 2e-7, ..shown });
    world.finds(Fault::OtherCoordinates);
}

#[test]
fn a_position_older_than_the_time_to_live() {
    let mut world = near();
    world.wait(50);
    world.show(world.newest(FRIEND));
    world.finds_nothing();
    world.wait(6);
    world.show(world.newest(FRIEND));
    world.finds(Fault::Expired);
}

#[test]
fn a_page_in_another_order_or_of_another_radius_or_ttl() {
    let page =
        |friends: Vec<Shown>, radius_m, location_ttl_s| Page { friends, next_cursor: None, radius_m, location_ttl_s };
    let mut world = near();
    let shown = world.newest(FRIEND);
    world.oracle.page(VIEWER, &page(vec![shown], 8_046.72, 60), world.now);
    world.finds_nothing();
    world.oracle.page(VIEWER, &page(vec![], 500.0, 60), world.now);
    world.finds(Fault::PageRadius);
    let mut world = near();
    world.oracle.page(VIEWER, &page(vec![], 8_046.72, 600), world.now);
    world.finds(Fault::PageTtl);
    let mut world = near();
    let nearer = Shown { distance_m: shown.distance_m - 0.05, ..shown };
    world.oracle.page(VIEWER, &page(vec![shown, nearer], 8_046.72, 60), world.now);
    world.finds(Fault::PageOrder);
}

#[test]
fn gone_out_of_range_of_somebody_who_never_left() {
    let mut world = near();
    world.moves(FRIEND, 2_000.0);
    world.gone(Reason::OutOfRange);
    world.finds(Fault::GoneInRange);
}

#[test]
fn gone_out_of_range_of_somebody_who_may_have_left_for_a_moment() {
    let mut world = near();
    world.moves(FRIEND, 9_000.0);
    world.moves(FRIEND, 2_000.0);
    world.gone(Reason::OutOfRange);
    world.finds_nothing();
}

#[test]
fn gone_inactive_before_and_after_the_time_to_live() {
    let mut world = near();
    world.wait(40);
    world.gone(Reason::Inactive);
    world.finds(Fault::GoneActive);
    let mut world = near();
    world.wait(46);
    world.gone(Reason::Inactive);
    world.finds_nothing();
}

#[test]
fn gone_hidden_of_a_friend_and_of_one_removed() {
    let mut world = near();
    world.gone(Reason::Hidden);
    world.finds(Fault::GoneFriend);
    let mut world = near();
    world.oracle.unfriending(VIEWER, FRIEND, world.now);
    world.gone(Reason::Hidden);
    world.finds_nothing();
}

#[test]
fn a_position_after_the_end_was_acknowledged() {
    let mut world = near();
    world.oracle.unfriending(VIEWER, FRIEND, world.now);
    world.show(world.newest(FRIEND));
    world.oracle.changed(VIEWER, FRIEND, true, world.now);
    world.show(world.newest(FRIEND));
    world.finds_nothing();
    world.now = world.now.after(Duration::from_millis(251));
    world.show(world.newest(FRIEND));
    world.finds(Fault::AfterRemoval);
    assert_eq!(world.oracle.faults.of(Class::Extra), 1);
}

#[test]
fn friends_again() {
    let mut world = near();
    world.oracle.unfriending(VIEWER, FRIEND, world.now);
    world.oracle.changed(VIEWER, FRIEND, true, world.now);
    world.oracle.friend_removed(VIEWER, user(FRIEND), world.now);
    world.wait(3);
    world.oracle.befriending(VIEWER, FRIEND, world.now);
    world.oracle.friend_added(VIEWER, user(FRIEND), world.now);
    world.oracle.changed(VIEWER, FRIEND, true, world.now);
    world.finds_nothing();
    // Near, and not shown again.
    world.finds_at_rest(Some(Fault::NotShown));
}

#[test]
fn notices_of_changes_that_never_were() {
    let mut world = near();
    world.oracle.friend_removed(VIEWER, user(FRIEND), world.now);
    world.finds(Fault::ListChange);
    let mut world = near();
    world.oracle.friend_added(VIEWER, user(STRANGER), world.now);
    world.finds(Fault::ListChange);
}

#[test]
fn the_last_position_is_missing() {
    let mut world = near();
    world.moves(FRIEND, 1_500.0);
    world.finds_at_rest(Some(Fault::Stale));
}

#[test]
fn somebody_near_was_never_shown() {
    let mut world = World::with(0.0, 9_000.0);
    world.the_other_view_is_right();
    world.moves(VIEWER, 2_000.0);
    world.finds_at_rest(Some(Fault::NotShown));
}

#[test]
fn gone_is_missing_when_the_friend_left_and_when_the_viewer_did() {
    let mut world = near();
    world.moves(VIEWER, -8_000.0);
    world.finds_at_rest(Some(Fault::ShownOutside));
    let mut world = near();
    world.moves(FRIEND, 9_000.0);
    world.finds_at_rest(Some(Fault::Stale));
}

#[test]
fn gone_is_missing_after_the_time_to_live_and_either_is_right_around_it() {
    let mut world = near();
    world.wait(60);
    world.finds_at_rest(Some(Fault::ShownInactive));
    let mut world = near();
    world.wait(45);
    world.finds_at_rest(None);
    world.gone(Reason::Inactive);
    world.finds_at_rest(None);
}

#[test]
fn gone_is_missing_after_the_end_of_the_friendship() {
    let mut world = near();
    world.oracle.unfriending(VIEWER, FRIEND, world.now);
    world.oracle.changed(VIEWER, FRIEND, true, world.now);
    world.finds_at_rest(Some(Fault::ShownRemoved));
}

#[test]
fn what_was_sent_right_before_the_connection_was_torn_may_be_lost_and_no_more() {
    let mut world = near();
    world.moves(FRIEND, 1_500.0);
    let last = world.newest(FRIEND);
    world.oracle.disconnected(FRIEND, false, world.now);
    world.finds_at_rest(None);
    world.show(last);
    world.finds_at_rest(None);

    let mut world = near();
    world.moves(FRIEND, 1_500.0);
    world.wait(1);
    world.oracle.disconnected(FRIEND, false, world.now);
    world.finds_at_rest(Some(Fault::Stale));
}

#[test]
fn who_is_not_back_at_the_end_is_named() {
    let mut world = near();
    world.oracle.listed(FRIEND, world.now);
    world.oracle.disconnected(VIEWER, true, world.now);
    world.at_rest();
    assert_eq!(world.oracle.faults.count(Fault::NotConnected), 1);
}

#[test]
fn under_way_only_what_is_long_settled_is_judged_and_once() {
    let mut world = near();
    world.moves(FRIEND, 1_500.0);
    world.wait(4);
    world.oracle.judge_under_way(VIEWER, world.now);
    world.finds_nothing();
    world.wait(2);
    world.oracle.judge_under_way(VIEWER, world.now);
    world.oracle.judge_under_way(VIEWER, world.now);
    assert_eq!((world.oracle.faults.of(Class::Late), world.oracle.faults.of(Class::Missing)), (1, 0));
    // Right for a while, then wrong again: that is another one.
    world.show(world.newest(FRIEND));
    world.oracle.judge_under_way(VIEWER, world.now);
    world.moves(FRIEND, 1_600.0);
    world.wait(6);
    world.oracle.judge_under_way(VIEWER, world.now);
    assert_eq!(world.oracle.faults.count(Fault::Stale), 2);
}

#[test]
fn faults_are_described_without_places() {
    let mut world = near();
    world.moves(FRIEND, 8_050.0);
    world.show(world.newest(FRIEND));
    let text = world.oracle.faults.examples()[0].clone();
    assert!(text.contains("user 100 about user 101") && text.contains("outside the radius"), "{text}");
    assert!(!text.contains("40.") && !text.contains("116"), "{text}");
}
