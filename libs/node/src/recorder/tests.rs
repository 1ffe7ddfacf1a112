//! On the embedded history, made to hang and to fail.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Waker};

use futures_util::future::join_all;
use model::{Motion, Position, TimestampMs};
use ports::embedded::{FjallHistory, Health, Store};
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tempfile::TempDir;

use super::*;

const ADA: UserId = UserId(1);
const GRACE: UserId = UserId(2);

/// A recorder and its history, with the task that writes.
struct Desk {
    recorder: Recorder,
    history: FjallHistory,
    registry: Registry,
    stop: CancellationToken,
    _dir: TempDir,
}

fn desk() -> Desk {
    let dir = tempfile::tempdir().unwrap();
    let mut registry = Registry::default();
    let recorder = Recorder::new(Metrics::register(&mut registry));
    let history = FjallHistory::new(Store::open(dir.path()).unwrap());
    Desk { recorder, history, registry, stop: CancellationToken::new(), _dir: dir }
}

impl Desk {
    /// Plays a scenario while points are written; at its end the process stops, and all is written.
    async fn play<T>(&self, scenario: impl Future<Output = T>) -> T {
        let scenario = async {
            let played = scenario.await;
            self.stop.cancel();
            played
        };
        tokio::join!(scenario, write_until(&self.recorder, &self.history, &self.stop)).0
    }

    async fn recorded(&self, user: UserId) -> Vec<u64> {
        let all = self.history.range(user, TimestampMs(0), TimestampMs(u64::MAX), 1_000_000).await.unwrap();
        all.iter().map(|point| point.ts.0).collect()
    }

    /// Points by what became of them.
    fn counted(&self, kind: &str) -> usize {
        let mut text = String::new();
        encode(&mut text, &self.registry).unwrap();
        let name = format!("nearby_history_points_total{{kind=\"{kind}\"}} ");
        text.lines().find_map(|line| line.strip_prefix(&name)).map_or(0, |count| count.parse().unwrap())
    }
}

fn point(user: UserId, ts: u64) -> HistoryPoint {
    HistoryPoint { user, ts: TimestampMs(ts), position: Position::new(40.0, 116.0).unwrap(), motion: Motion::UNKNOWN }
}

fn points(user: UserId, times: std::ops::Range<u64>) -> Vec<HistoryPoint> {
    times.map(|ts| point(user, ts)).collect()
}

/// Long enough for the writer to begin, and for a failure to be tried again.
const SOON: Duration = Duration::from_millis(200);
const LATER: Duration = Duration::from_secs(3);

#[tokio::test(start_paused = true)]
async fn what_hangs_is_waited_for_and_what_waits_behind_it_is_dropped() {
    let desk = desk();
    desk.play(async {
        desk.history.set_health(Health::Frozen);
        desk.recorder.offer([point(ADA, 1), point(GRACE, 1)]);
        sleep(SOON).await;
        desk.recorder.offer([point(ADA, 2), point(GRACE, 2)]);
        let mut forget = pin!(desk.recorder.forget(ADA));
        assert!(timeout(LATER, &mut forget).await.is_err(), "a point of theirs is being written");
        desk.recorder.offer([point(ADA, 3), point(GRACE, 3)]);
        assert!(desk.recorder.record(&[point(ADA, 4)]).unwrap_err().is_transient());
        desk.history.set_health(Health::Up);
        forget.await;
        assert_eq!(desk.recorded(ADA).await, [1], "only what was being written, and that is over");
        // Whoever deletes goes on; an account that is made anew is recorded.
        desk.history.forget(ADA).await.unwrap();
        desk.recorder.offer([point(ADA, 5)]);
    })
    .await;
    assert_eq!(desk.recorded(ADA).await, [5]);
    assert_eq!(desk.recorded(GRACE).await, [1, 2, 3]);
    assert_eq!(["written", "erased", "dropped"].map(|kind| desk.counted(kind)), [5, 2, 0]);
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_fails_comes_back_without_who_is_erased() {
    for is_waited_for in [false, true] {
        let desk = desk();
        desk.play(async {
            desk.history.set_health(Health::Frozen);
            desk.recorder.offer([point(GRACE, 1), point(ADA, 1), point(GRACE, 2)]);
            let waits = is_waited_for.then(|| desk.recorder.record(&[point(ADA, 2)]).unwrap());
            sleep(SOON).await;
            let forget = async {
                desk.recorder.forget(ADA).await;
                desk.history.set_health(Health::Up);
            };
            let fail = async {
                sleep(SOON).await;
                desk.history.set_health(Health::Down);
            };
            tokio::join!(forget, fail);
            if let Some(waits) = waits {
                waits.await.unwrap().unwrap_err();
            }
            sleep(LATER).await;
        })
        .await;
        assert_eq!(desk.recorded(ADA).await, [0; 0]);
        assert_eq!(desk.recorded(GRACE).await, [1, 2], "nobody else's are lost");
        assert_eq!(desk.counted("erased"), 1 + usize::from(is_waited_for));
    }
}

/// A forget that is given up, by a node that stops, leaves nobody refused for ever.
#[tokio::test(start_paused = true)]
async fn a_forget_that_is_given_up_ends() {
    let desk = desk();
    desk.play(async {
        desk.history.set_health(Health::Frozen);
        desk.recorder.offer([point(ADA, 1)]);
        sleep(SOON).await;
        {
            let (first, second) = (desk.recorder.forget(ADA), desk.recorder.forget(ADA));
            let mut second = pin!(second);
            assert!(timeout(SOON, async { tokio::join!(first, &mut second) }).await.is_err());
            desk.recorder.offer([point(ADA, 2)]);
        }
        desk.recorder.offer([point(ADA, 3)]);
        desk.history.set_health(Health::Up);
    })
    .await;
    assert_eq!(desk.recorded(ADA).await, [1, 3]);
}

#[tokio::test(start_paused = true)]
async fn of_what_is_partly_written_only_the_rest_is_written_again() {
    let desk = desk();
    let batch = limits::HISTORY_BATCH as u64;
    // Two calls of the history: the first succeeds, the second fails.
    let waits = [0..batch, batch..batch + 10].map(|times| desk.recorder.record(&points(ADA, times)).unwrap());
    let first = desk.recorder.take().unwrap();
    desk.history.append(&first.points).await.unwrap();
    desk.recorder.written(first);
    let second = desk.recorder.take().unwrap();
    assert_eq!(second.points, points(ADA, batch..batch + 10));
    desk.recorder.failed(second, &unavailable("away"));
    let [first, second] = waits;
    assert_eq!(first.await.unwrap(), Ok(()), "those whose points are written are told so, whatever follows");
    assert!(second.await.unwrap().is_err());
    let again = desk.recorder.take().unwrap();
    assert_eq!(again.points, points(ADA, batch..batch + 10));
    desk.recorder.written(again);
    assert!(desk.recorder.is_empty());
    assert_eq!(desk.counted("written"), limits::HISTORY_BATCH + 10);
}

#[tokio::test(start_paused = true)]
async fn a_history_that_comes_back_during_the_stop_takes_everything() {
    let desk = desk();
    desk.history.set_health(Health::Down);
    desk.recorder.offer(points(ADA, 0..10_000));
    desk.stop.cancel();
    let back = async {
        sleep(LATER).await;
        desk.history.set_health(Health::Up);
    };
    tokio::join!(back, write_until(&desk.recorder, &desk.history, &desk.stop));
    assert_eq!(desk.recorder.give_up(), 0);
    assert_eq!(desk.recorded(ADA).await.len(), 10_000);
}

#[tokio::test(start_paused = true)]
async fn what_was_not_written_at_the_end_is_counted_and_told() {
    for sick in [Health::Down, Health::Frozen] {
        let desk = desk();
        desk.history.set_health(sick);
        desk.recorder.offer(points(ADA, 0..5_000));
        let waits = desk.recorder.record(&points(GRACE, 0..3)).unwrap();
        desk.stop.cancel();
        let end = async {
            sleep(LATER).await;
            assert_eq!(desk.recorder.give_up(), 5_003, "{sick:?}");
        };
        tokio::join!(end, write_until(&desk.recorder, &desk.history, &desk.stop));
        assert!(waits.await.unwrap().is_err());
        assert_eq!(["written", "dropped"].map(|kind| desk.counted(kind)), [0, 5_003], "{sick:?}");
        // Later ones are refused, and counted as well.
        desk.recorder.record(&[point(ADA, 1)]).unwrap_err();
        desk.recorder.offer([point(ADA, 1)]);
        assert_eq!((desk.counted("dropped"), desk.recorder.give_up()), (5_004, 0));
    }
}

/// People move and are deleted while the history hangs, fails, answers late and works. Afterwards nothing is left of who
/// was deleted, everything of who was not, and each point was counted once.
#[tokio::test(start_paused = true)]
async fn nobody_comes_back_and_nothing_else_is_lost_whatever_the_history_does() {
    for seed in 0..20 {
        let desk = desk();
        let mut rng = StdRng::seed_from_u64(seed);
        let mut taken = [0; 8];
        let mut waits: Vec<Durable> = Vec::new();
        desk.play(async {
            // As a deletion does: nothing is offered after it was forgotten here, and what is there then is removed, once.
            let gone = std::cell::RefCell::new(Vec::new());
            let delete = async |user: UserId| {
                desk.recorder.forget(user).await;
                gone.borrow_mut().push(user);
                desk.history.forget(user).await.unwrap();
            };
            // The first half is deleted at some time.
            let mut to_delete: Vec<UserId> = (0..4).map(UserId).collect();
            let mut deletions = Vec::new();
            for step in 0..200 {
                let user = UserId(rng.random_range(0..8));
                let (at, is_gone) = (user.0 as usize, gone.borrow().contains(&user));
                match rng.random_range(0..20) {
                    0 => desk.history.set_health(Health::Frozen),
                    1 => desk.history.set_health(Health::Mute),
                    2 => desk.history.set_health(Health::Down),
                    3 => desk.history.set_health(Health::Up),
                    4 if to_delete.contains(&user) => {
                        to_delete.retain(|other| *other != user);
                        deletions.push(Box::pin(delete(user)));
                    }
                    5 if !is_gone => {
                        if let Ok(durable) = desk.recorder.record(&points(user, 2 * step..2 * step + 2)) {
                            waits.push(durable);
                            taken[at] += 2;
                        }
                    }
                    6..14 if !is_gone => {
                        desk.recorder.offer([point(user, 2 * step)]);
                        taken[at] += 1;
                    }
                    _ => sleep(Duration::from_millis(rng.random_range(0..400))).await,
                }
                let mut cx = Context::from_waker(Waker::noop());
                deletions.retain_mut(|deletion| deletion.as_mut().poll(&mut cx).is_pending());
            }
            desk.history.set_health(if seed % 2 == 0 { Health::Down } else { Health::Up });
            join_all(deletions).await;
            desk.history.set_health(Health::Up);
            join_all(to_delete.into_iter().map(delete)).await;
            sleep(LATER).await;
        })
        .await;
        for (user, taken) in (0..).map(UserId).zip(taken) {
            let expected = if user.0 < 4 { 0 } else { taken };
            assert_eq!(desk.recorded(user).await.len(), expected, "seed {seed}, user {user}");
        }
        let counted: usize = ["written", "erased"].map(|kind| desk.counted(kind)).iter().sum();
        let lost = desk.counted("dropped") + desk.recorder.give_up();
        assert_eq!((taken.iter().sum::<usize>(), 0), (counted, lost), "seed {seed}");
        for durable in waits {
            assert!(durable.await.is_ok(), "everybody is told, seed {seed}");
        }
    }
}
