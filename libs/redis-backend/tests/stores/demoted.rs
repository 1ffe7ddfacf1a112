//! A server that answers and does not serve: it was made a replica, or reads its data from disk.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use ports::conformance::fresh_user;
use ports::{Clock, LocationCache};
use redis_backend::RedisCache;
use servers::redis::{RedisServer, Sentinels};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::poisoned::fix;

/// A name whose address changes: new connections go to another server, and those that there are stay where they are.
struct Name {
    address: SocketAddr,
    target: Arc<Mutex<String>>,
    _tasks: JoinSet<()>,
}

impl Name {
    async fn of(server: &RedisServer) -> Name {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let target = Arc::new(Mutex::new(server.address()));
        let mut tasks = JoinSet::new();
        let to = target.clone();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((mut client, _)) = listener.accept().await {
                let target = to.lock().clone();
                connections.spawn(async move {
                    if let Ok(mut server) = TcpStream::connect(target).await {
                        // Ends with either side.
                        let _ = copy_bidirectional(&mut client, &mut server).await;
                    }
                });
            }
        });
        Name { address, target, _tasks: tasks }
    }

    fn points_to(&self, server: &RedisServer) {
        *self.target.lock() = server.address();
    }
}

/// How long until a put is stored again.
async fn until_stored(cache: &RedisCache) -> Duration {
    let begun = Instant::now();
    let mut ts = 1_000;
    loop {
        ts += 1;
        match cache.put_many(&[fix(fresh_user(), ts)]).await {
            Ok(_) => return begun.elapsed(),
            Err(error) => assert!(error.is_transient(), "{error}"),
        }
        assert!(begun.elapsed() < Duration::from_secs(10), "it is not left");
        sleep(Duration::from_millis(20)).await;
    }
}

fn demote(server: &RedisServer, primary: &RedisServer) {
    let answer = server.command(&[b"REPLICAOF", b"127.0.0.1", primary.port().to_string().as_bytes()]);
    assert_eq!(answer, b"+OK\r\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_demoted_server_is_left_for_the_one_that_its_name_points_to() {
    let (old, new) = (RedisServer::start(), RedisServer::start());
    let name = Name::of(&old).await;
    let url = format!("redis://{}", name.address);
    let cache = RedisCache::connect(&url, "", Clock::System).await.expect("a cache");
    until_stored(&cache).await;
    name.points_to(&new);
    demote(&old, &new);
    let taken = until_stored(&cache).await;
    println!("stored again {taken:?} after the server was made a replica");
    assert!(taken < Duration::from_secs(2), "{taken:?}");
    let user = fresh_user();
    cache.put_many(&[fix(user, 1)]).await.expect("stored");
    assert_ne!(new.command(&[b"EXISTS", format!("loc:{user}").as_bytes()]), b":0\r\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_demoted_server_that_is_the_only_one_serves_again_when_it_is_promoted() {
    let (server, primary) = (RedisServer::start(), RedisServer::start());
    let cache = RedisCache::connect(&server.url(), "", Clock::System).await.expect("a cache");
    until_stored(&cache).await;
    demote(&server, &primary);
    let until = Instant::now() + Duration::from_secs(2);
    while Instant::now() < until {
        cache.put_many(&[fix(fresh_user(), 1)]).await.expect_err("a replica");
        sleep(Duration::from_millis(5)).await;
    }
    let connections = |server: &RedisServer| {
        let info = String::from_utf8(server.command(&[b"INFO", b"stats"])).expect("text");
        let count = info.lines().find_map(|line| line.strip_prefix("total_connections_received:"));
        count.and_then(|count| count.trim().parse::<u64>().ok()).expect("a count")
    };
    let made = connections(&server);
    println!("connections in two seconds as a replica: {made}");
    assert!(made < 40, "it is left for itself again and again: {made}");
    assert_eq!(server.command(&[b"REPLICAOF", b"NO", b"ONE"]), b"+OK\r\n");
    let taken = until_stored(&cache).await;
    println!("stored again {taken:?} after it was promoted");
    assert!(taken < Duration::from_secs(2), "{taken:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_failover_by_sentinels_the_new_primary_is_used() {
    let servers = Sentinels::start();
    let cache = RedisCache::connect(&servers.url(), "", Clock::System).await.expect("a cache");
    until_stored(&cache).await;
    servers.fail_over();
    // The replica is promoted at once. Sentinels make the old primary a replica ten seconds later; until then puts go
    // there, and are stored there.
    let is_replica = |server: &RedisServer| server.command(&[b"ROLE"]).starts_with(b"*5");
    let begun = Instant::now();
    while !is_replica(&servers.primary) {
        assert!(begun.elapsed() < Duration::from_secs(40), "no failover");
        sleep(Duration::from_millis(10)).await;
    }
    let taken = until_stored(&cache).await;
    println!("stored again {taken:?} after the failover");
    assert!(taken < Duration::from_secs(3), "{taken:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_reads_its_data_is_left_for_the_one_that_its_name_points_to() {
    // Ten seconds for a thousand keys, and it says so meanwhile to who asks.
    let slow = ["--enable-debug-command", "yes", "--key-load-delay", "10000"];
    let old = RedisServer::start_with(&[&slow[..], &["--loading-process-events-interval-bytes", "1024"]].concat());
    let new = RedisServer::start();
    let name = Name::of(&old).await;
    let cache = RedisCache::connect(&format!("redis://{}", name.address), "", Clock::System).await.expect("a cache");
    until_stored(&cache).await;
    old.command(&[b"DEBUG", b"POPULATE", b"1000"]);
    name.points_to(&new);
    let address = old.address();
    let mut reload = TcpStream::connect(&address).await.expect("connected");
    tokio::io::AsyncWriteExt::write_all(&mut reload, b"DEBUG RELOAD\r\n").await.expect("sent");
    sleep(Duration::from_millis(200)).await;
    let answer = cache.put_many(&[fix(fresh_user(), 1)]).await;
    println!("while it loads: {answer:?}");
    let taken = until_stored(&cache).await;
    println!("stored again {taken:?} after it began to load");
    assert!(taken < Duration::from_secs(2), "{taken:?}");
}
