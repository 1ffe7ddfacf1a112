//! One measurement: connect everybody, warm up, count through a window.

use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Result, anyhow, ensure};
use serde::Serialize;

use super::LoadOptions;
use super::bus::{Bus, Published, Publisher};
use super::costs::{Spent, kernel_socket_bytes};
use super::generator::{Found, Generator, Pace, Shown, Window};
use super::target::{Cores, Target};
use super::way::Everybody;
use crate::clock::{At, Clock, wall_ms};
use crate::crowd::Traffic;
use crate::process::{Role, Used};
use crate::replay::note;
use crate::report::rounded;
use crate::scene::Scene;
use crate::tally::Times;

/// Between the last connection and the first position: what connecting has left behind comes to rest.
const SETTLE: Duration = Duration::from_millis(1_500);

/// Times of one kind, in milliseconds.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Quantiles {
    /// How many.
    pub count: u64,
    /// Half were shorter.
    pub p50: f64,
    /// One in ten was longer.
    pub p90: f64,
    /// One in a hundred was longer.
    pub p99: f64,
    /// One in a thousand was longer.
    pub p999: f64,
    /// The longest.
    pub max: f64,
}

impl From<&Times> for Quantiles {
    fn from(times: &Times) -> Quantiles {
        let ms = |quantile| rounded(times.quantile(quantile).as_secs_f64() * 1e3);
        Quantiles { count: times.count(), p50: ms(0.5), p90: ms(0.9), p99: ms(0.99), p999: ms(0.999), max: ms(1.0) }
    }
}

/// What connections take of memory, on average.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Memory {
    /// Growth of the servers' resident memory while everybody connected.
    pub user_bytes: f64,
    /// Growth of the kernel's memory for sockets of this machine, both ends; `None` if this process may not know it.
    pub kernel_bytes: Option<f64>,
}

/// What was found at one target.
#[derive(Clone, Debug, Serialize)]
pub struct Measured {
    /// `server` or `floor`.
    pub target: &'static str,
    /// How long was counted.
    pub window_s: f64,
    /// Sent and received in it.
    pub traffic: Traffic,
    /// Positions sent in a second.
    pub updates_per_s: f64,
    /// `friend` and `gone` frames received in a second.
    pub pushes_per_s: f64,
    /// Pushes of the window's positions received, of those that were to be expected: less than 1 where positions replaced
    /// each other before they went out.
    pub pushes_of_expected: f64,
    /// From the moment a position was to be sent until a viewer had it.
    pub age_ms: Quantiles,
    /// How much later than due positions were sent: the generator's own part in ages.
    pub lateness_ms: Quantiles,
    /// Closed loop: updates whose pushes did not all come within 2 s.
    pub unanswered: u64,
    /// Connections that the server ended.
    pub lost: u64,
    /// `friend` and `gone` frames for each read that brought something: writes of the server that met in one read count
    /// as one, so it is an upper bound of the pushes per write. `None` without pushes.
    pub pushes_per_read: Option<f64>,
    /// What the processes under load used.
    pub roles: Vec<Spent>,
    /// What those used that they stand on, if these are not under test.
    pub beside: Vec<Spent>,
    /// What was published for gateways that are not there.
    pub bus: Option<Bus>,
    /// What connections take, if processes are known.
    pub memory_per_connection: Option<Memory>,
    /// CPU of this process, of one core: near 100 for a thread it is the generator that is measured.
    pub generator_percent: f64,
}

impl Measured {
    /// CPU of all roles for an update.
    pub fn us_per_update(&self) -> f64 {
        rounded(self.roles.iter().map(|role| role.us_per_update).sum())
    }
}

struct Sample {
    at: At,
    roles: Vec<Used>,
    beside: Vec<Used>,
    own: Used,
}

impl Sample {
    fn take(clock: &Clock, target: &Target) -> Result<Sample> {
        let used = |roles: &[Role]| roles.iter().map(Role::used).collect::<Result<_>>();
        let (roles, beside) = (used(&target.roles)?, used(&target.beside)?);
        Ok(Sample { at: clock.now(), roles, beside, own: Used::by(std::process::id())? })
    }

    fn rss(&self) -> u64 {
        self.roles.iter().map(|used| used.rss_bytes).sum()
    }
}

/// Who sends, and from where.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setting<'a> {
    pub(crate) load: &'a LoadOptions,
    pub(crate) user_base: u64,
    pub(crate) at_once: u16,
    pub(crate) cores: Option<Cores>,
}

/// Measures one target. What people elsewhere send goes to its pub/sub server.
pub(crate) fn measure(name: &'static str, target: &Target, scene: &Scene, setting: &Setting<'_>) -> Result<Measured> {
    let Setting { load, user_base, at_once, cores } = *setting;
    let pace = load.pace()?;
    if matches!(pace, Pace::Outstanding(_)) {
        let (_, near) = scene.friends_online_and_near();
        ensure!(near > 0.0, "nobody is near anybody: --rate, because what nobody is told of has no end to wait for");
    }
    let way = Everybody::new(target, scene, user_base);
    let clock = Clock::start();
    let epoch_us = wall_ms() * 1_000;
    let threads = usize::from(load.threads);
    // Once when everybody is connected, and once when the window is known.
    let bus = load.bus(target, scene)?;
    let barrier = Barrier::new(threads + 1 + usize::from(bus.is_some()));
    let start = AtomicU64::new(0);
    let shown: Vec<Shown> = (0..threads).map(|_| Shown::default()).collect();
    let parts: Vec<Vec<u32>> =
        (0..threads).map(|part| scene.online.iter().copied().skip(part).step_by(threads).collect()).collect();
    let before = Sample::take(&clock, target)?;
    let kernel_before = kernel_socket_bytes();
    thread::scope(|scope| {
        let work = |part: usize| {
            let (barrier, start, shown, parts, way) = (&barrier, &start, &shown, &parts, &way);
            move || -> Result<Found> {
                if let Some(cores) = cores.filter(|_| threads == 1) {
                    cores.pin_generator()?;
                }
                let each = u32::from(at_once).div_ceil(threads as u32);
                let connected = Generator::new(way, scene, &parts[part], user_base, clock, epoch_us)
                    .and_then(|mut generator| generator.connect_all(each).map(|()| generator));
                // The others wait for this one also if it failed.
                barrier.wait();
                barrier.wait();
                let window = load.window(At(start.load(Ordering::Acquire)));
                connected?.run(share(pace, threads), window, &shown[part])
            }
        };
        let workers: Vec<_> = (0..threads).map(|part| scope.spawn(work(part))).collect();
        let publisher = bus.as_ref().map(|(address, per_second)| {
            let (barrier, start) = (&barrier, &start);
            scope.spawn(move || -> Result<Published> {
                cores.map_or(Ok(()), Cores::pin_generator)?;
                // Everybody is connected then, and has subscribed.
                barrier.wait();
                let connected = Publisher::connect(address, scene, user_base, clock, epoch_us);
                barrier.wait();
                let window = load.window(At(start.load(Ordering::Acquire)));
                connected?.run(*per_second, Duration::from_micros(load.publish_every_us), window)
            })
        });
        barrier.wait();
        let connected = thread_sleep(SETTLE).and_then(|()| Sample::take(&clock, target));
        let kernel_after = kernel_socket_bytes();
        let window = load.window(clock.now().after(Duration::from_millis(20)));
        start.store(window.start.0, Ordering::Release);
        barrier.wait();
        let samples = connected.and_then(|connected| Ok((connected, watch(name, target, &clock, window, &shown)?)));
        let mut found = Found::default();
        for worker in workers {
            let part = worker.join().map_err(|_| anyhow!("a thread of the generator panicked"))??;
            found = joined(found, &part);
        }
        let published =
            publisher.map(|thread| thread.join().map_err(|_| anyhow!("the publisher panicked"))?).transpose()?;
        let (connected, (begin, end)) = samples?;
        let connections = scene.online.len() as f64;
        let per = |after: u64, before: u64| rounded((after as f64 - before as f64) / connections);
        let memory = Memory {
            user_bytes: per(connected.rss(), before.rss()),
            kernel_bytes: kernel_before.zip(kernel_after).map(|(before, after)| per(after, before)),
        };
        Ok(summed_up(name, target, (&found, published.as_ref()), (&begin, &end), memory))
    })
}

fn thread_sleep(time: Duration) -> Result<()> {
    thread::sleep(time);
    Ok(())
}

fn share(pace: Pace, threads: usize) -> Pace {
    match pace {
        Pace::Every(rate) => Pace::Every(rate / threads as f64),
        closed @ Pace::Outstanding(_) => closed,
    }
}

fn joined(mut all: Found, part: &Found) -> Found {
    all.traffic = all.traffic.and(part.traffic);
    all.ages.absorb(&part.ages);
    all.lateness.absorb(&part.lateness);
    all.expected += part.expected;
    all.unanswered += part.unanswered;
    all.lost += part.lost;
    all
}

/// Shows how it goes once a second; takes the samples at both ends of the window.
fn watch(name: &str, target: &Target, clock: &Clock, window: Window, shown: &[Shown]) -> Result<(Sample, Sample)> {
    thread::sleep(window.begin.since(clock.now()));
    let begin = Sample::take(clock, target)?;
    let total = |of: fn(&Shown) -> &AtomicU64| shown.iter().map(|shown| of(shown).load(Ordering::Relaxed)).sum::<u64>();
    let (mut updates, mut pushes) = (total(|shown| &shown.updates), total(|shown| &shown.pushes));
    let mut last = clock.now();
    while clock.now() < window.end {
        thread::sleep(window.end.since(clock.now()).min(Duration::from_secs(1)));
        let (now, sent, came) = (clock.now(), total(|shown| &shown.updates), total(|shown| &shown.pushes));
        let seconds = now.since(last).as_secs_f64().max(0.001);
        if seconds > 0.5 {
            let age = shown.iter().map(|shown| shown.age_p99_us.load(Ordering::Relaxed)).max().unwrap_or(0);
            note(&format!(
                "{name}: {:.0} updates/s, {:.0} pushes/s, age p99 {:.1} ms, {:.0} s left",
                (sent - updates) as f64 / seconds,
                (came - pushes) as f64 / seconds,
                age as f64 / 1e3,
                window.end.since(now).as_secs_f64()
            ));
        }
        (updates, pushes, last) = (sent, came, now);
    }
    Ok((begin, Sample::take(clock, target)?))
}

fn summed_up(
    name: &'static str,
    target: &Target,
    (found, published): (&Found, Option<&Published>),
    (begin, end): (&Sample, &Sample),
    memory: Memory,
) -> Measured {
    let (traffic, window) = (found.traffic, end.at.since(begin.at));
    let (updates, pushes) = (traffic.updates, traffic.pushes());
    let per_s = |count: u64| rounded(count as f64 / window.as_secs_f64().max(0.001));
    let spent = |roles: &[Role], before: &[Used], after: &[Used]| -> Vec<Spent> {
        let each = roles.iter().zip(before.iter().zip(after));
        each.map(|(role, (before, after))| Spent::new(role, *before, *after, window, updates, pushes)).collect()
    };
    let expected = found.expected + published.map_or(0, |published| published.expected);
    let own = end.own.cpu.saturating_sub(begin.own.cpu).as_secs_f64();
    Measured {
        target: name,
        window_s: rounded(window.as_secs_f64()),
        traffic,
        updates_per_s: per_s(updates),
        pushes_per_s: per_s(pushes),
        pushes_of_expected: if expected == 0 { 1.0 } else { rounded(found.ages.count() as f64 / expected as f64) },
        age_ms: (&found.ages).into(),
        lateness_ms: (&found.lateness).into(),
        unanswered: found.unanswered,
        lost: found.lost,
        pushes_per_read: (pushes > 0).then(|| rounded(pushes as f64 / traffic.reads.max(1) as f64)),
        roles: spent(&target.roles, &begin.roles, &end.roles),
        beside: spent(&target.beside, &begin.beside, &end.beside),
        bus: published.map(|published| published.summed_up(updates, window)),
        memory_per_connection: (!target.roles.is_empty()).then_some(memory),
        generator_percent: rounded(100.0 * own / window.as_secs_f64().max(0.001)),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::sync::atomic::AtomicBool;

    use clap::Parser;

    use super::*;
    use crate::floor::{Floor, Flush};
    use crate::saturate::target::Keys;
    use crate::scene::SceneOptions;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        scene: SceneOptions,
        #[command(flatten)]
        load: LoadOptions,
    }

    const PEOPLE: [&str; 3] = ["test", "--connections=20", "--friends=4"];

    /// A floor that stands still once, when it has made so many pushes.
    fn at_a_floor(load: &[&str], stall: Option<(u64, Duration)>) -> Measured {
        let Line { scene, load } = Line::parse_from(PEOPLE.iter().chain(load));
        let scene = Scene::new(&scene).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("ws://{}/v1/ws", listener.local_addr().unwrap());
        let gateways = vec![(listener.local_addr().unwrap(), address.parse().unwrap())];
        let target = Target::of(gateways, Keys::Plain, vec![]);
        let (graph, stop) = (scene.graph.clone(), AtomicBool::new(false));
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut floor = Floor::new(listener, graph, 100, Flush::Push).unwrap();
                if let Some((pushes, long)) = stall {
                    while floor.pushes_and_writes().0 < pushes {
                        floor.turn(Some(Duration::from_millis(10))).unwrap();
                    }
                    thread::sleep(long);
                }
                floor.serve_until(&stop).unwrap();
            });
            let setting = Setting { load: &load, user_base: 100, at_once: 8, cores: None };
            let found = measure("floor", &target, &scene, &setting);
            stop.store(true, Ordering::Relaxed);
            found.unwrap()
        })
    }

    const STALL: Duration = Duration::from_millis(400);

    /// 500 updates/s through a window of 2 s, of which the server stands still for 0.4 s: a fifth of all positions were
    /// to be sent meanwhile, and waited 0.2 s on average.
    #[test]
    fn an_open_loop_counts_the_wait_of_everything_that_a_stall_held_up() {
        let found = at_a_floor(&["--rate=500", "--warm-up=0.2", "--window=2"], Some((1_500, STALL)));
        let (stalled, all) = (f64::from(STALL.as_millis() as u32), &found.age_ms);
        assert!((3_990..=4_010).contains(&all.count), "4 pushes for each update of the window: {all}");
        // The oldest of a tenth of all: half of those that the stall held up.
        assert!(all.p90 > stalled * 0.4, "{all}");
        assert!(all.p99 > stalled * 0.9 && all.max < stalled * 3.0, "{all}");
        assert_eq!((found.lost, found.pushes_of_expected), (0, 1.0));
    }

    /// What a load tester sees that sends the next when the last was answered: hardly anything.
    #[test]
    fn a_closed_loop_does_not_see_a_stall() {
        let found = at_a_floor(&["--outstanding=1", "--warm-up=0", "--window=2"], Some((1_500, STALL)));
        assert!(found.age_ms.p99 < 100.0 && found.age_ms.max > 300.0, "{}", found.age_ms);
        assert_eq!(found.unanswered, 0);
        assert!(found.traffic.pushes() >= 4 * (found.traffic.updates - 1), "{:?}", found.traffic);
    }

    #[test]
    fn threads_share_the_load_and_what_they_find_is_put_together() {
        let found = at_a_floor(&["--rate=400", "--warm-up=0.2", "--window=1", "--threads=3"], None);
        assert!((380..=420).contains(&found.traffic.updates), "{:?}", found.traffic);
        assert!((1_590..=1_610).contains(&found.age_ms.count), "{}", found.age_ms);
    }

    #[test]
    fn what_nobody_is_told_of_cannot_be_waited_for() {
        let Line { scene, load } = Line::parse_from(PEOPLE.iter().chain(&["--near-share=0", "--outstanding=1"]));
        let target = Target::of(vec![], Keys::Plain, vec![]);
        let scene = Scene::new(&scene).unwrap();
        let setting = Setting { load: &load, user_base: 0, at_once: 8, cores: None };
        let error = measure("floor", &target, &scene, &setting).unwrap_err();
        assert!(error.to_string().contains("--rate"), "{error}");
    }
}
