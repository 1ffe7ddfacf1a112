//! The floor as a process of its own.

#![expect(clippy::unwrap_used, reason = "the helpers of tests are tests too")]

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use loadtest::address::Address;
use loadtest::socket::{Incoming, Socket};
use loadtest::wire::{self, Frame, Shown};
use model::{Position, UserId};
use tokio::runtime::Builder;

struct Floor(Child);

impl Floor {
    fn start(more: &[&str]) -> (Floor, Address) {
        let mut child = Command::new(env!("CARGO_BIN_EXE_loadtest"))
            .args(["floor", "--until-stdin-ends", "--connections=4", "--friends=2", "--user-base=10"])
            .args(more)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let authority = line.split("http://").nth(1).and_then(|rest| rest.split(' ').next()).unwrap();
        let address = format!("ws://{authority}/v1/ws").parse().unwrap();
        (Floor(child), address)
    }

    /// Whoever started it is gone, as far as it can see.
    fn ends_by_itself(mut self) -> bool {
        drop(self.0.stdin.take());
        (0..200).any(|_| {
            sleep(Duration::from_millis(10));
            self.0.try_wait().unwrap().is_some_and(|status| status.success())
        })
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn frame(socket: &mut Socket) -> String {
    match socket.next().await {
        Incoming::Text(text) => text.to_string(),
        _ => panic!("no frame"),
    }
}

/// In a ring of four, 10 and 11 are friends, and 10 and 12 are not.
async fn meet(address: &Address) {
    let mut sockets = Vec::new();
    for (user, lat) in [("10", 40.0), ("11", 40.01), ("12", 40.02)] {
        let mut socket = Socket::open(address, user).await.unwrap();
        socket.init(Position::new(lat, 116.0).unwrap(), 1_000, None).await.unwrap();
        let page = frame(&mut socket).await;
        let Some(Frame::Nearby(page)) = wire::read(&page) else { panic!("{page}") };
        assert_eq!(page.friends.len(), usize::from(user != "10"), "{user}");
        sockets.push(socket);
    }
    let (mut twelve, mut eleven) = (sockets.pop().unwrap(), sockets.pop().unwrap());
    let mut ten = sockets.pop().unwrap();
    let shown = |id, lat, ts, distance_m| Frame::Friend(Shown { id: UserId(id), lat, lon: 116.0, ts, distance_m });
    assert_eq!(wire::read(&frame(&mut ten).await), Some(shown(11, 40.01, 1_000, 1_112.0)));
    assert_eq!(wire::read(&frame(&mut eleven).await), Some(shown(12, 40.02, 1_000, 1_112.0)));
    twelve.location(Position::new(40.011, 116.0).unwrap(), 2_000).await.unwrap();
    assert_eq!(wire::read(&frame(&mut eleven).await), Some(shown(12, 40.011, 2_000, 111.2)));
    // Who is far away is not told.
    twelve.location(Position::new(50.0, 116.0).unwrap(), 3_000).await.unwrap();
    ten.location(Position::new(40.001, 116.0).unwrap(), 4_000).await.unwrap();
    assert_eq!(wire::read(&frame(&mut eleven).await), Some(shown(10, 40.001, 4_000, 1_000.8)));
    assert!(ten.close().await);
}

#[test]
fn friends_near_are_told_and_nobody_else() {
    for flush in ["push", "turn"] {
        let (floor, address) = Floor::start(&["--flush", flush]);
        Builder::new_current_thread().enable_all().build().unwrap().block_on(meet(&address));
        assert!(floor.ends_by_itself());
    }
}
