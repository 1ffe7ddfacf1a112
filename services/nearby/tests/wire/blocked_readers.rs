//! Clients that stop reading.

use std::time::Duration;

use serde_json::json;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::raw::{Raw, frame};
use crate::server::Server;
use crate::site::{HERE, north, now};

const CAROL: u64 = 1;
/// Reads on when it is nearly too late.
const LATE: u64 = 2;
/// Never reads on.
const NEVER: u64 = 3;
const FIRST_MOVER: u64 = 100;
const MOVERS: u64 = 20;

/// Bytes held for a client that does not read, in the process and in the kernel.
const HELD: usize = 64 * 1024;

/// When the kernel held all that it can for a client that does not read.
async fn blocked_since(client: &Raw) -> Instant {
    let (mut held, mut since) = (0, Instant::now());
    while since.elapsed() < Duration::from_secs(2) {
        if std::mem::replace(&mut held, client.in_kernel().await) != held {
            since = Instant::now();
        }
        sleep(Duration::from_millis(50)).await;
    }
    assert!(held > 0);
    since
}

#[tokio::test]
async fn who_stops_reading_is_closed_and_nobody_else_notices() {
    let server = Server::with(|config| {
        config.limits.update_burst = 1_000_000;
        config.limits.updates_per_second = 1e6;
    })
    .await;
    server.know(&[CAROL, LATE, NEVER]).await;
    let mut movers = Vec::new();
    for mover in FIRST_MOVER..FIRST_MOVER + MOVERS {
        server.know(&[mover]).await;
        for viewer in [CAROL, LATE, NEVER] {
            server.befriend(mover, viewer).await;
        }
        let mut client = server.connect(mover).await;
        client.init(HERE).await;
        movers.push(client);
    }
    let mut carol = server.connect(CAROL).await;
    carol.init(HERE).await;
    let mut readers = Vec::new();
    for user in [LATE, NEVER] {
        let mut raw = Raw::narrow(server.address).await;
        raw.upgrade(&server, user, "").await;
        let init = json!({"type": "init", "lat": HERE.0, "lon": HERE.1, "ts": now()}).to_string();
        raw.send(&frame(0x81, init.as_bytes())).await;
        assert_eq!(raw.frame().await.unwrap().json()["type"], "nearby");
        readers.push(raw);
    }
    let mut never = readers.pop().unwrap();
    let mut late = readers.pop().unwrap();
    let moving = async {
        let mut step = 0;
        loop {
            step += 1;
            for mover in &mut movers {
                mover.moves(north(f64::from(step % 1_000))).await;
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    let watching = async {
        let mut oldest = 0;
        let mut frames = 0;
        let _ = timeout(Duration::from_secs(16), async {
            loop {
                let news = carol.reads("friend").await;
                oldest = oldest.max(now().saturating_sub(news["ts"].as_u64().unwrap()));
                frames += 1;
            }
        })
        .await;
        assert!(frames > 1_000, "{frames}");
        assert!(oldest < 1_500, "a position came {oldest} ms late");
    };
    let reading_late = async {
        sleep_until(blocked_since(&late).await + Duration::from_millis(12_500)).await;
        let (frames, code) = late.up_to_the_end().await;
        let bytes: usize = frames.iter().map(|frame| frame.payload.len()).sum();
        assert!(bytes <= HELD, "{bytes}");
        assert_eq!(code, Some(4408));
    };
    let closed = async {
        let blocked = blocked_since(&never).await;
        // The movers, Carol, and for a while these two.
        while server.metrics().await.get("nearby_viewers") > MOVERS + 1 {
            sleep(Duration::from_millis(250)).await;
            assert!(blocked.elapsed() < Duration::from_secs(17), "still there");
        }
        let took = blocked.elapsed().as_secs_f64();
        assert!((10.0..16.9).contains(&took), "{took} s");
        let rest = never.rest(Duration::from_secs(5)).await;
        assert!(rest.len() <= HELD, "{}", rest.len());
    };
    tokio::select! {
        () = moving => {}
        _ = async { tokio::join!(watching, reading_late, closed) } => {}
    }

    // Quiet again: all news are accounted for.
    sleep(Duration::from_millis(2_100)).await;
    server.metrics().await.balance();
}
