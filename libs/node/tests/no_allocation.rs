//! A shard allocates nothing per update, once its lists have grown to their size.
#![expect(clippy::unwrap_used, reason = "the helpers of tests are tests too")]
#![expect(unsafe_code, reason = "a counting allocator is the only honest witness")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use model::{
    Fix, Generation, Level, MonotonicMs, Motion, Order, Place, PolicyVersion, Position, Radius, TimestampMs, UserId,
};
use node::Signal;
use node::shard::{Interests, Shard};
use ports::Friendship;
use protocol::client::Limit;

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

fn count() {
    // The thread may be ending and its locals gone: nobody counts then.
    let _ = ALLOCATIONS.try_with(|allocations| allocations.set(allocations.get() + 1));
}

// SAFETY: hands every call on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller keeps `alloc`'s contract.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps `dealloc`'s contract.
        unsafe { System.dealloc(at, layout) }
    }
    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: the caller keeps `realloc`'s contract.
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const FRIENDS: u64 = 40;

fn fix(user: u64, step: u64) -> Fix {
    // Everybody walks to and fro across the border of everybody else's radius.
    let lat = 40.0 + (user % 7) as f64 * 0.001 + (step % 11) as f64 * 0.002;
    Fix {
        user: UserId(user),
        place: Place::new(Position::new(lat, 116.0).unwrap()),
        order: Order { generation: Generation(1), ts: TimestampMs(step + 1), ..Order::default() },
        expires: MonotonicMs(1_000_000_000),
        policy: PolicyVersion(0),
        motion: Motion::UNKNOWN,
    }
}

#[test]
fn an_update_allocates_nothing() {
    let mut shard = Shard::default();
    let mut interests = Interests::default();
    let radius = Radius::new(model::Meters(1_000.0));
    let now = MonotonicMs(1_000);
    let viewers: Vec<_> = (0..FRIENDS)
        .map(|user| {
            let viewer = shard.register(UserId(user), Arc::new(Signal::default()), radius);
            let friends: Vec<Friendship> = (0..FRIENDS)
                .filter(|friend| *friend != user)
                .map(|friend| Friendship { friend: UserId(friend), level: Level::Exact })
                .collect();
            shard.admit(viewer, &friends, &mut interests);
            shard.share(viewer, Generation(1));
            shard.first_page(viewer, Limit::default(), now);
            viewer
        })
        .collect();
    let (mut woken, mut news) = (Vec::new(), Vec::new());
    let (mut told, mut outgoing, mut sent) = (0, Vec::new(), 0);
    let mut run = |from: u64, to: u64| {
        for step in from..to {
            let now = MonotonicMs(1_000 + step * 100);
            for user in 0..FRIENDS {
                shard.moved(&fix(user, step), Duration::ZERO, now);
                shard.heard(&fix(user, step), now);
            }
            shard.take_outgoing(usize::MAX, now, &mut outgoing);
            sent += outgoing.len();
            outgoing.clear();
            // What failed is sent once more.
            (0..FRIENDS).for_each(|user| shard.send_again(UserId(user)));
            shard.take_outgoing(FRIENDS as usize, now, &mut outgoing);
            outgoing.clear();
            shard.take_woken(usize::MAX, &mut woken);
            woken.clear();
            for &viewer in &viewers {
                while shard.drain(viewer, now, 64, &mut news).more {}
                told += news.len();
                news.clear();
            }
            shard.expire(now, &mut Vec::new());
        }
    };
    run(0, 100);
    let before = ALLOCATIONS.get();
    run(100, 1_000);
    assert_eq!(ALLOCATIONS.get() - before, 0, "allocations in 36,000 updates");
    assert!(told > 100_000, "the test must make news: {told}");
    assert_eq!(sent, 40_000, "each position was sent");
}
