//! `nearby demo`.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use crate::config::{Auth, Overrides};
use crate::demo::{Files, People, Plan, Screen, Shown};
use crate::{App, Config, secret};

/// The phones are this process's own: nobody needs time to go elsewhere.
const DRAIN_MS: u64 = 100;

#[derive(Debug, Args)]
pub(super) struct DemoArgs {
    /// How many people there are, 2 to 400 [default: 60; 400 recorded ones]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(2..=400))]
    people: Option<u16>,
    /// Another number, another city
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// The radius of the list, in metres [default: 1000; 3000 for recorded people]
    #[arg(long, value_name = "METRES")]
    radius: Option<f64>,
    /// Seconds of the people's life in one second
    #[arg(long, value_name = "TIMES", default_value_t = 20.0)]
    speedup: f64,
    /// End after so many seconds; otherwise Ctrl-C does
    #[arg(long, value_name = "N")]
    seconds: Option<u64>,
    /// Recorded people instead of made-up ones: lines `track,offset_s,lat,lon`, may be packed with gzip
    #[arg(long, value_name = "FILE", requires = "friends")]
    tracks: Option<PathBuf>,
    /// Who of the recorded people is whose friend: lines of two track numbers, may be packed with gzip
    #[arg(long, value_name = "FILE", requires = "tracks")]
    friends: Option<PathBuf>,
    /// Where to listen; 127.0.0.1:8080 if that is free, otherwise any free port
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,
    /// Where users, friendships and history are kept; otherwise in a temporary directory, removed at the end
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

/// Shows the list until the time is over, SIGINT or SIGTERM.
pub(super) async fn run(args: DemoArgs) -> anyhow::Result<()> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    ensure!((1.0..=120.0).contains(&args.speedup), "--speedup must be from 1 to 120");
    // A city's worth of recorded people is spread more widely than the made-up one.
    let (count, radius_m) = if args.tracks.is_some() { (400, 3_000.0) } else { (60, 1_000.0) };
    let count = args.people.unwrap_or(count).into();
    let radius_m = args.radius.unwrap_or(radius_m);
    ensure!(radius_m > 0.0 && radius_m <= 50_000.0, "--radius must be above 0 and at most 50000 (metres)");
    let people = match (&args.tracks, &args.friends) {
        (Some(tracks), Some(friends)) => {
            People::recorded(&Files { tracks: tracks.clone(), friends: friends.clone() }, count)?
        }
        _ => People::made_up(count, args.seed),
    };
    let temporary = match args.data_dir {
        Some(_) => None,
        None => Some(tempfile::Builder::new().prefix("nearby-demo-").tempdir().context("a temporary directory")?),
    };
    let data_dir = temporary.as_ref().map(|dir| dir.path().to_owned()).or_else(|| args.data_dir.clone());
    let mut config = Config::load(None, &Overrides { listen: args.listen, data_dir })?;
    settle(&mut config, &args);
    super::start_log(&config.log)?;
    let secret = secret::load_or_make(config.data_dir()?)?;
    let mut screen = Screen::new();
    let mut shown = Shown::new(&people, radius_m);
    let app = App::start(&config).await?;
    let plan = Plan {
        address: app.address,
        data_dir: config.data_dir()?.canonicalize()?,
        temporary: temporary.is_some(),
        ttl_s: config.location.ttl_s,
        radius_m,
        speedup: args.speedup,
        lasts: args.seconds.map(Duration::from_secs),
    };
    let result = tokio::select! {
        result = crate::demo::run(&plan, &secret, people, &mut screen, &mut shown) => result,
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    };
    app.stop().await?;
    result?;
    screen.say(&format!("The end. {}.", shown.counts())).context("standard output")
}

/// The server is the same as ever but for what a demo is about.
fn settle(config: &mut Config, args: &DemoArgs) {
    // The demo signs its people's tokens itself, so it verifies with the key that it has.
    config.auth = Auth::default();
    config.server.drain_ms = DRAIN_MS;
    // Log lines would tear the list that is drawn.
    config.log.level = "warn".into();
    // Ten minutes of the people's life.
    config.location.ttl_s = ((600.0 / args.speedup).round() as u64).max(5);
    let taken = TcpListener::bind(config.server.listen).is_err();
    if args.listen.is_none() && taken {
        config.server.listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    }
}
