//! The floor writes what the server writes: otherwise a ratio of their costs would say nothing.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use loadtest::address::Address;
use loadtest::clock::wall_ms;
use loadtest::floor::{Floor, Flush};
use loadtest::graph::Graph;
use loadtest::rest::Rest;
use loadtest::socket::{Incoming, Socket};
use loadtest::token::Tokens;
use model::{Position, UserId};
use tokio::runtime::Builder;
use tokio::task::LocalSet;
use tokio::time::timeout;

const BASE: u64 = 100;
const PEOPLE: u64 = 5;
const FRIENDS: [(u32, u32); 6] = [(0, 1), (0, 2), (1, 2), (0, 3), (2, 3), (3, 4)];
/// The frames of a step come within this; those that do not are taken with a later one.
const STEP: Duration = Duration::from_millis(60);
/// All have come when none has come for so long.
const QUIET: Duration = Duration::from_millis(400);

/// Person, latitude, longitude: who has not been heard of connects there, the others move. Numbers that are spelled in
/// every way, distances from nothing to just within five miles, and somebody who goes away. Nobody comes near a friend
/// whom they were not near before: that is told to who moved too, which the floor leaves out.
const STEPS: [(u64, f64, f64); 13] = [
    (0, 40.0, -116.5),
    (1, 40.01, -116.512_345_6),
    (2, 39.999_999_9, -116.5),
    (3, 40.05, -116.45),
    (4, 40.060_000_1, -116.4),
    (0, 40.000_1, -116.500_01),
    (1, 40.000_1, -116.500_01),
    (2, 40.000_3, -116.5),
    (3, 40.0, -116.594_2),
    (0, 40.0, -116.5),
    (1, 40.072_1, -116.5),
    (2, 40.030_000_2, -116.499_999_8),
    (2, 50.0, 10.0),
];

/// The `friend` frames that each has got.
type Told = BTreeMap<u64, Vec<String>>;

async fn listen(sockets: &mut BTreeMap<u64, Socket>, patience: Duration, told: &mut Told) {
    for (&viewer, socket) in sockets {
        while let Ok(incoming) = timeout(patience, socket.next()).await {
            let Incoming::Text(text) = incoming else { panic!("{viewer} was closed") };
            assert!(!text.contains(r#""type":"error""#), "{text}");
            if text.contains(r#""type":"friend""#) {
                told.entry(viewer).or_default().push(text.to_string());
            }
        }
    }
}

async fn played(address: &Address, began_ms: u64, token: impl Fn(u64) -> String) -> Told {
    let mut sockets = BTreeMap::new();
    let mut told = Told::new();
    for (ts, (person, lat, lon)) in (began_ms..).step_by(7).zip(STEPS) {
        let here = Position::new(lat, lon).unwrap();
        match sockets.get_mut(&person) {
            None => {
                let mut socket = Socket::open(address, &token(BASE + person)).await.unwrap();
                socket.init(here, ts, None).await.unwrap();
                sockets.insert(person, socket);
            }
            Some(socket) => socket.location(here, ts).await.unwrap(),
        }
        listen(&mut sockets, STEP, &mut told).await;
    }
    listen(&mut sockets, QUIET, &mut told).await;
    told.values_mut().for_each(|frames| frames.sort_unstable());
    told
}

fn at_the_floor(began_ms: u64, flush: Flush) -> Told {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("ws://{}/v1/ws", listener.local_addr().unwrap()).parse().unwrap();
    let graph = Graph::of_pairs(PEOPLE as usize, &FRIENDS);
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| Floor::new(listener, graph, BASE, flush).unwrap().serve_until(&stop).unwrap());
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let told = runtime.block_on(played(&address, began_ms, |user| user.to_string()));
        stop.store(true, Ordering::Relaxed);
        told
    })
}

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn at_the_server(began_ms: u64) -> Told {
    let dir = tempfile::tempdir().unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_nearby"))
        .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
        .arg(dir.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let _server = Server(child);
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    let authority = line.split("http://").nth(1).and_then(|rest| rest.split(' ').next()).unwrap();
    let address: Address = format!("ws://{authority}/v1/ws").parse().unwrap();
    let tokens = Tokens::open(None, Some(dir.path())).unwrap();
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, async {
        let rest = Rest::new(address.clone(), &tokens.backend().unwrap());
        for person in 0..PEOPLE {
            rest.put_user(UserId(BASE + person)).await.unwrap();
        }
        for (person, friend) in FRIENDS {
            rest.befriend(UserId(BASE + u64::from(person)), UserId(BASE + u64::from(friend))).await.unwrap();
        }
        played(&address, began_ms, |user| tokens.user(UserId(user)).unwrap()).await
    })
}

#[test]
fn floor_and_server_write_the_same_frames() {
    // A minute ago: no moment of the play is in the future of any machine.
    let began_ms = wall_ms() - 60_000;
    let server = at_the_server(began_ms);
    let frames: usize = server.values().map(Vec::len).sum();
    assert!(frames > 20, "{server:#?}");
    for flush in [Flush::Push, Flush::Turn] {
        assert_eq!(at_the_floor(began_ms, flush), server);
    }
}
