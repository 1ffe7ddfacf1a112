//! Keyspaces, made a little ahead of the tests that need them and dropped behind them, by one thread: Cassandra changes
//! its schema in turns anyway, and two who change it at once make each other wait.
//!
//! Made, a keyspace costs half a second of an idle machine, and dropped, three quarters: the tests would wait longer for
//! these than for anything that they test.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use nearby::backends;
use nearby::config::Cluster;
use parking_lot::Mutex;
use servers::cassandra::CassandraServer;

/// How many are ready before anybody asks.
const AHEAD: usize = 2;
/// How many that nobody uses any more are left for the end, when they go with the server. In the server's 256 MB there is
/// room for 15 or so, in use or not.
const KEPT: usize = 4;
/// More than there are tests.
const TESTS: usize = 256;

/// Whoever wants a keyspace, and whoever wants none any more.
pub(crate) struct Keyspaces {
    ready: Mutex<Receiver<String>>,
    used: SyncSender<String>,
}

impl Keyspaces {
    /// Begins to make them. Nothing but the keyspace's name is changed in `cluster`.
    pub(crate) fn on(cassandra: &'static CassandraServer, cluster: Cluster) -> Keyspaces {
        let (used, no_longer_used) = sync_channel(TESTS);
        let (made, ready) = sync_channel(AHEAD);
        thread::spawn(move || keep(cassandra, cluster, &made, &no_longer_used));
        Keyspaces { ready: Mutex::new(ready), used }
    }

    /// One with all tables, and without rows.
    pub(crate) fn take(&self) -> String {
        self.ready.lock().recv_timeout(Duration::from_secs(60)).expect("what makes keyspaces has not ended")
    }

    /// Nobody uses it any more.
    pub(crate) fn give_back(&self, name: String) {
        // What drops them may have failed: who takes the next one is told.
        let _ = self.used.send(name);
    }
}

/// Ends with the process, as the servers do.
fn keep(cassandra: &CassandraServer, cluster: Cluster, made: &SyncSender<String>, used: &Receiver<String>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut kept = VecDeque::new();
    for number in 0.. {
        kept.extend(used.try_iter());
        while kept.len() > KEPT {
            let name: String = kept.pop_front().unwrap();
            cassandra.run(&format!("DROP KEYSPACE {name}"));
        }
        let keyspace = format!("world_{number}");
        let cluster = Cluster { keyspace: keyspace.clone(), ..cluster.clone() };
        runtime.block_on(backends::migrate(&cluster)).unwrap();
        if made.send(keyspace).is_err() {
            return;
        }
    }
}
