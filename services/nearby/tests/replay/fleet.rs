//! Three processes on Redis, etcd and Cassandra, behind a balancer that gives each connection to the next of them.

use std::io;
use std::net::{TcpListener, TcpStream};
use std::thread;

use servers::cassandra::CassandraServer;
use servers::etcd::EtcdServer;
use servers::redis::RedisServer;

use crate::judge;
use crate::process::{Nearby, run};

const SECRET: &str = "a secret of the tests, which is long enough";

/// Gives each connection to the next of the addresses. Ends with the test's process.
fn balance(addresses: Vec<String>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        for (client, target) in listener.incoming().zip(addresses.iter().cycle()) {
            let Ok(client) = client else { continue };
            let Ok(server) = TcpStream::connect(target) else { continue };
            let copies = [(client.try_clone(), server.try_clone()), (Ok(server), Ok(client))];
            for (from, to) in copies {
                let (Ok(mut from), Ok(mut to)) = (from, to) else { continue };
                thread::spawn(move || {
                    let _ = io::copy(&mut from, &mut to);
                    let _ = to.shutdown(std::net::Shutdown::Both);
                });
            }
        }
    });
    address
}

#[test]
fn three_nodes_on_real_servers_satisfy_the_judge_while_everything_changes() {
    let (cache, etcd, cassandra) = (RedisServer::start(), EtcdServer::start(), CassandraServer::start());
    let pubsub = [RedisServer::start(), RedisServer::start(), RedisServer::start()];
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("signing-secret"), SECRET).unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let (secret, cache, etcd, cassandra) = (path("signing-secret"), cache.url(), etcd.endpoint(), cassandra.address());
    let spools = [path("spool-0"), path("spool-1"), path("spool-2")];
    let of_node = |node: usize| {
        [
            ("NEARBY_AUTH__HS256_SECRET_FILE", secret.as_str()),
            ("NEARBY_DEPLOYMENT__CLUSTER__CACHE", cache.as_str()),
            ("NEARBY_DEPLOYMENT__CLUSTER__ETCD", etcd.as_str()),
            ("NEARBY_DEPLOYMENT__CLUSTER__CASSANDRA", cassandra.as_str()),
            ("NEARBY_DEPLOYMENT__CLUSTER__REPLICAS", "1"),
            ("NEARBY_DEPLOYMENT__CLUSTER__SPOOL_DIR", spools[node].as_str()),
        ]
    };
    assert!(run(&["migrate"], &of_node(0)).contains("applied 0001_history"));
    assert!(run(&["migrate"], &of_node(0)).contains("nothing to do"));
    for (node, name) in pubsub.iter().zip(["a", "b", "c"]) {
        run(&["ring", "add", name, &node.address()], &of_node(0));
    }
    let status = run(&["ring", "status"], &of_node(0));
    assert!(status.starts_with("epoch 3\n") && status.lines().count() == 4, "{status}");
    let nodes: Vec<Nearby> = (0..3).map(|node| Nearby::serve(&[], &of_node(node))).collect();
    let address = balance(nodes.iter().map(|node| node.address.clone()).collect());
    let report = judge(&address, dir.path(), 3, &["--churn", "--churn-per-s", "20", "--seed", "3"]);
    assert!(report.updates > 2_000 && report.frames.friend > 5_000 && report.reconnects > 5, "{report}");
}
