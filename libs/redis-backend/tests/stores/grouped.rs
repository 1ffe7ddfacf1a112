//! In a cluster the keys of one slot go into one script.

use fred::util::redis_keyslot;
use model::{Fix, TimestampMs, UserId};
use ports::cache::Put;
use ports::conformance::fresh_name;
use ports::{Clock, LocationCache};
use redis_backend::RedisCache;
use servers::redis::RedisCluster;

use crate::poisoned::fix;

/// Scripts that all servers have run.
fn scripts(cluster: &RedisCluster) -> u64 {
    let of = |server: &servers::redis::RedisServer| {
        let info = String::from_utf8(server.command(&[b"INFO", b"commandstats"])).expect("text");
        let calls = |line: &str| line.strip_prefix("cmdstat_evalsha:calls=")?.split(',').next()?.parse::<u64>().ok();
        info.lines().find_map(calls).unwrap_or(0)
    };
    cluster.servers.iter().map(of).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_keys_of_one_slot_take_one_script_and_each_answer_finds_its_user() {
    let cluster = RedisCluster::start();
    let prefix = fresh_name("grouped:");
    let cache = RedisCache::connect(&cluster.url(), &prefix, Clock::System).await.expect("a cache");
    // Five users each of eight slots, in an order that goes from slot to slot.
    let slot = |user: u64| redis_keyslot(format!("{prefix}loc:{}", UserId(user)).as_bytes());
    let mut of_slots = vec![Vec::new(); 8];
    for user in 1.. {
        let users = &mut of_slots[usize::from(slot(user) % 8)];
        if slot(user) < 8 && users.len() < 5 {
            users.push(UserId(user));
        }
        if of_slots.iter().all(|users| users.len() == 5) {
            break;
        }
    }
    let users: Vec<UserId> = (0..5).flat_map(|at| of_slots.iter().map(move |users| users[at])).collect();
    let fixes: Vec<Fix> = users.iter().zip(1..).map(|(user, ts)| fix(*user, ts)).collect();
    // The servers learn the scripts.
    cache.put_many(&fixes[..8]).await.expect("stored");
    cache.get_many(&users[..8]).await.expect("read");
    let before = scripts(&cluster);
    assert_eq!(cache.put_many(&fixes).await, Ok(vec![Put::Stored; 40]));
    let put = scripts(&cluster) - before;
    let older: Vec<Fix> = fixes.iter().map(|of| fix(of.user, 0)).collect();
    let mixed: Vec<Fix> = older.iter().step_by(2).chain(fixes.iter().skip(1).step_by(2)).copied().collect();
    let answers = cache.put_many(&mixed).await.expect("answers");
    assert!(answers[..20].iter().all(|put| *put == Put::Stale) && answers[20..].iter().all(|put| *put == Put::Stored));
    let before = scripts(&cluster);
    let read = cache.get_many(&users).await.expect("read");
    let got = scripts(&cluster) - before;
    let times: Vec<TimestampMs> = read.iter().map(|fix| fix.expect("there").order.ts).collect();
    assert_eq!(times, (1..=40).map(TimestampMs).collect::<Vec<_>>());
    println!("40 keys in 8 slots: {put} scripts to put, {got} to get");
    assert_eq!((put, got), (8, 8));
}
