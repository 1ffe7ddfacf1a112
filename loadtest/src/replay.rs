//! `replay`: a recorded city on a real server.

use std::cell::{Cell, RefCell};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use model::UserId;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use crate::access::Access;
use crate::address::Address;
use crate::churn::Churn;
use crate::clock::Clock;
use crate::friends::{self, Friends};
use crate::oracle::{Oracle, Rules};
use crate::people::{People, Schedule};
use crate::person::{Person, Phase, Stage};
use crate::process::{self, Role, Used};
use crate::report::{Cost, Report, RoleCost, Setting};
use crate::rest::Rest;
use crate::tally::Tally;
use crate::tracks;

/// How long nothing may have come before the views are judged.
const QUIET: Duration = Duration::from_secs(2);
/// A server that is still behind by then is judged as it is.
const CATCH_UP: Duration = Duration::from_secs(30);
/// Whoever is not connected again by then is reported.
const RETURN: Duration = Duration::from_secs(10);
/// Views are judged under way a few people at a time, so that no frame has to wait long.
const GLANCE: Duration = Duration::from_millis(100);
/// So many glances see everybody.
const GLANCES: usize = 100;

/// Where the server is and what opens it.
#[derive(Args, Debug, Clone)]
pub struct Server {
    /// The server's WebSocket; its REST is taken to be at the same host and port.
    #[arg(long, default_value = "ws://127.0.0.1:8080/v1/ws")]
    pub url: Address,
    /// What opens it.
    #[command(flatten)]
    pub access: Access,
    /// Also write the report as JSON; `-` is stdout, in place of the table.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// What to replay.
#[derive(Args, Debug, Clone)]
pub struct Options {
    /// `track,offset_s,lat,lon` lines, gzip or plain.
    #[arg(long, value_name = "FILE")]
    pub tracks: PathBuf,
    /// Two people per line, gzip or plain.
    #[arg(long, value_name = "FILE")]
    pub friends: PathBuf,
    /// The server.
    #[command(flatten)]
    pub server: Server,
    /// Recorded seconds to one real second.
    #[arg(long, default_value_t = 60.0)]
    pub speedup: f64,
    /// Only the first so many tracks.
    #[arg(long, value_name = "N")]
    pub people: Option<usize>,
    /// Only what was recorded in the first so many seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = u32::MAX, hide_default_value = true)]
    pub duration: u32,
    /// Also create the friends who have no track; they never connect.
    #[arg(long)]
    pub offline_friends: bool,
    /// Begin and end friendships and connections meanwhile.
    #[arg(long)]
    pub churn: bool,
    /// Such changes in a real second.
    #[arg(long, default_value_t = 20.0)]
    pub churn_per_s: f64,
    /// What churn chooses by.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// The radius to ask for; without it the server's default, which must then be five miles.
    #[arg(long, value_name = "METERS")]
    pub radius_m: Option<f64>,
    /// The server's `location.ttl_s`; without it the server's word is taken.
    #[arg(long, value_name = "SECONDS")]
    pub ttl_s: Option<u64>,
    /// What was sent longer ago has surely been taken into account in what arrives; more, by itself, if the server is
    /// seen to be late.
    #[arg(long, value_name = "MS", default_value_t = 2_000)]
    pub in_flight_ms: u64,
    /// A frame read so soon after the end of its friendship was acknowledged may have been sent before it.
    #[arg(long, value_name = "MS", default_value_t = 250)]
    pub removal_grace_ms: u64,
    /// Views are judged while people move by what is older than this; 0 judges only the end.
    #[arg(long, value_name = "MS", default_value_t = 5_000)]
    pub late_ms: u64,
    /// How many faults to describe.
    #[arg(long, default_value_t = 10)]
    pub describe: usize,
}

impl Options {
    fn rules(&self) -> Rules {
        Rules {
            radius_m: self.radius_m.unwrap_or(Rules::default().radius_m),
            ttl: self.ttl_s.map(Duration::from_secs),
            in_flight: Duration::from_millis(self.in_flight_ms),
            removal_grace: Duration::from_millis(self.removal_grace_ms),
            patience: Duration::from_millis(self.late_ms),
        }
    }
}

/// Replays, and reports. An error means that the run could not be made, not that the server did wrong.
pub async fn run(options: Options) -> Result<Report> {
    ensure!(options.speedup.is_finite() && options.speedup > 0.0, "--speedup must be above 0");
    ensure!(options.churn_per_s.is_finite() && options.churn_per_s > 0.0, "--churn-per-s must be above 0");
    let tracks = tracks::read(&options.tracks, options.people)?;
    let people = People { base: options.server.access.user_base, count: tracks.len() };
    let friends = friends::read(&options.friends, people.count)?;
    let tokens = options.server.access.tokens()?;
    process::allow_sockets(people.count)?;
    let rest = Rest::new(options.server.url.clone(), &tokens.backend()?);
    set_up(&options, people, &friends, &rest).await?;

    let stage = Rc::new(Stage {
        clock: Clock::start(),
        people,
        schedule: Schedule { speedup: options.speedup, duration_s: options.duration },
        tracks,
        radius_m: options.radius_m,
        address: options.server.url.clone(),
        tokens,
        gate: Semaphore::new(options.server.access.at_once.into()),
        oracle: RefCell::new(Oracle::new(people, options.rules(), options.describe)),
        tally: RefCell::default(),
        listed: Cell::new(0),
    });
    let now = stage.clock.now();
    for &(person, friend) in &friends.inside {
        let mut oracle = stage.oracle.borrow_mut();
        oracle.befriending(person as usize, friend as usize, now);
        oracle.changed(person as usize, friend as usize, true, now);
    }
    perform(&options, stage, rest, friends.inside.len()).await
}

/// Users and friendships, over REST.
async fn set_up(options: &Options, people: People, friends: &Friends, rest: &Rest) -> Result<()> {
    let offline = options.offline_friends;
    note(&format!(
        "{} people with tracks; {} friendships among them, {} with people without a track ({})",
        people.count,
        friends.inside.len(),
        friends.outside.len(),
        if offline { "made too" } else { "left out: --offline-friends makes them" }
    ));
    if options.server.access.skip_setup {
        return Ok(());
    }
    let outside = if offline { friends.outside.as_slice() } else { &[] };
    let numbers = outside.iter().map(|&(_, last)| last as usize + 1).max().unwrap_or(0).max(people.count);
    let user = |number: u32| UserId(people.base + u64::from(number));
    let began = Instant::now();
    let bar = bar(numbers as u64, "users {bar:40} {pos}/{len}, {per_sec}");
    let at_once = options.server.access.at_once.into();
    rest.put_users((0..numbers as u32).map(user), at_once, &bar).await?;
    bar.finish_and_clear();
    let pairs = friends.inside.iter().chain(outside);
    let bar = self::bar((friends.inside.len() + outside.len()) as u64, "friendships {bar:40} {pos}/{len}, {per_sec}");
    rest.befriend_all(pairs.map(|&(person, friend)| (user(person), user(friend))), at_once, &bar).await?;
    bar.finish_and_clear();
    note(&format!("{numbers} users and their friendships made in {:.1} s", began.elapsed().as_secs_f64()));
    Ok(())
}

async fn perform(options: &Options, stage: Rc<Stage>, rest: Rc<Rest>, friendships: usize) -> Result<Report> {
    let roles = options.server.access.watched.roles()?;
    let servers = || roles.iter().map(Role::used).collect::<Result<Vec<Used>>>();
    let own = || Used::by(std::process::id());
    let (servers_before, own_before) = (servers()?, own()?);

    let (phase, watching) = watch::channel(Phase::Gathering);
    let mut phones = Vec::with_capacity(stage.people.count);
    let mut cast = JoinSet::new();
    for index in 0..stage.people.count {
        let (phone, leave) = mpsc::channel(1);
        phones.push(phone);
        cast.spawn_local(Person::new(index, stage.clone(), watching.clone(), leave).live());
    }
    gather(&stage, &mut cast).await?;

    let (servers_moving, own_moving) = (servers()?, own()?);
    let gathered = Counts::of(&stage);
    let start = Instant::now();
    let mut churn = JoinSet::new();
    if options.churn {
        let restless = Churn::new(stage.clone(), rest, phones.clone(), options.seed);
        churn.spawn_local(restless.run(options.churn_per_s, watching.clone()));
    }
    phase.send_replace(Phase::Moving(start));
    watch_them_move(options, &stage, start).await;
    phase.send_replace(Phase::Resting);
    let moving_for = start.elapsed();
    while let Some(done) = churn.join_next().await {
        done??;
    }
    let moved = Counts::of(&stage).since(gathered);
    // Who died on the way has cost what nobody knows: that is no reason to keep back what the judge has found.
    let servers_after: Vec<Option<Used>> = roles.iter().map(|role| role.used().ok()).collect();
    let own_after = own()?;
    // Its time running out is no error: the judge names those who are not back.
    let _ = timeout(RETURN, everybody_listed(&stage)).await;
    let _ = timeout(CATCH_UP, quiet(&stage)).await;
    stage.oracle.borrow_mut().judge_at_rest(QUIET, stage.clock.now());

    phase.send_replace(Phase::Over);
    while let Some(done) = cast.join_next().await {
        done??;
    }
    let tally = stage.tally.borrow();
    let cost = |before, moving, after| Cost::between(before, moving, after, moving_for, moved.updates, moved.pushes);
    let mut server_costs = Vec::with_capacity(roles.len());
    for (at, role) in roles.into_iter().enumerate() {
        match servers_after[at] {
            Some(after) => {
                let cost = cost(servers_before[at], servers_moving[at], after);
                server_costs.push(RoleCost { role: role.name, cost });
            }
            None => note(&format!("a process of {} has ended: what it cost is left out", role.name)),
        }
    }
    let setting = Setting {
        people: stage.people.count,
        friendships,
        speedup: options.speedup,
        seed: options.seed,
        churn: options.churn,
        wall_s: crate::report::rounded(moving_for.as_secs_f64()),
    };
    let oracle = stage.oracle.borrow();
    Ok(Report::new(setting, &tally, moved.updates, &oracle, server_costs, cost(own_before, own_moving, own_after)))
}

/// Until everybody is connected and knows their whole list; the first who cannot ends the run.
async fn gather(stage: &Stage, cast: &mut JoinSet<Result<()>>) -> Result<()> {
    let bar = bar(stage.people.count as u64, "connecting {bar:40} {pos}/{len}, {per_sec}");
    let mut ticks = interval(GLANCE);
    while stage.listed.get() < stage.people.count {
        tokio::select! {
            _ = ticks.tick() => bar.set_position(stage.listed.get() as u64),
            Some(ended) = cast.join_next() => {
                ended?.context("a person could not connect")?;
            }
        }
    }
    bar.finish_and_clear();
    Ok(())
}

async fn everybody_listed(stage: &Stage) {
    while stage.listed.get() < stage.people.count {
        sleep(Duration::from_millis(50)).await;
    }
}

/// Until nothing has come for [`QUIET`]: a server that is late has caught up then.
async fn quiet(stage: &Stage) {
    let mut before = None;
    loop {
        let frames = stage.tally.borrow().frames.total();
        if before.replace(frames) == Some(frames) {
            return;
        }
        sleep(QUIET + GLANCE).await;
    }
}

/// How far two counters are.
#[derive(Clone, Copy)]
struct Counts {
    updates: u64,
    pushes: u64,
}

impl Counts {
    fn of(stage: &Stage) -> Counts {
        let tally = stage.tally.borrow();
        Counts { updates: tally.updates, pushes: tally.frames.pushes() }
    }

    fn since(self, earlier: Counts) -> Counts {
        Counts { updates: self.updates - earlier.updates, pushes: self.pushes - earlier.pushes }
    }
}

/// Shows how it goes and judges views on the way, until the last point has been sent (or ctrl-c ends it early).
async fn watch_them_move(options: &Options, stage: &Stage, start: Instant) {
    let total = stage.schedule.total(&stage.tracks);
    let recorded = |real: Duration| (real.as_secs_f64() * options.speedup) as u64;
    let bar = bar(recorded(total), "{bar:30} {pos}/{len} recorded s, {msg}");
    let end = sleep(total + GLANCE);
    tokio::pin!(end);
    let mut ticks = interval(GLANCE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let per_glance = stage.people.count.div_ceil(GLANCES);
    let mut viewers = (0..stage.people.count).cycle();
    loop {
        tokio::select! {
            () = &mut end => break,
            _ = tokio::signal::ctrl_c() => {
                note("stopped early: the views are judged as they are now");
                break;
            }
            _ = ticks.tick() => {
                if options.late_ms > 0 {
                    let mut oracle = stage.oracle.borrow_mut();
                    let now = stage.clock.now();
                    viewers.by_ref().take(per_glance).for_each(|viewer| oracle.judge_under_way(viewer, now));
                }
                bar.set_position(recorded(start.elapsed()));
                bar.set_message(progress(stage, start));
            }
        }
    }
    bar.finish_and_clear();
}

fn progress(stage: &Stage, start: Instant) -> String {
    let tally: &Tally = &stage.tally.borrow();
    let per_s = tally.updates as f64 / start.elapsed().as_secs_f64().max(0.1);
    let (age, faults) = (tally.ages.spread().p99, stage.oracle.borrow().faults.total());
    format!("{per_s:.0} updates/s, age p99 {age:.1} ms, {faults} violations")
}

/// A bar on stderr; nothing where nobody looks.
pub(crate) fn bar(length: u64, template: &str) -> ProgressBar {
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(length).with_style(style)
}

/// A line on stderr.
pub(crate) fn note(text: &str) {
    eprintln!("{text}");
}
