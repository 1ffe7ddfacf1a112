//! The other gateways, which are not there: what their users would make them publish goes to the pub/sub server.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use serde::Serialize;

use super::generator::Window;
use super::pace::Schedule;
use crate::clock::{At, Clock};
use crate::report::rounded;
use crate::scene::{Scene, Spot, user};
use crate::tally::Times;

/// A server that does not answer for so long is not there.
const ANSWER: Duration = Duration::from_secs(5);
/// Messages in one pipeline at most, however late they are.
const PIPELINE: usize = 1_024;
/// What is left of a position's life when it is published, as of one that was taken in this moment.
const TIME_TO_LIVE_MS: u32 = 600_000;
const RECORD_BYTES: usize = 74;

/// What was published on the bus.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Bus {
    /// Messages of the window.
    pub messages: u64,
    /// Receivers of them, by the pub/sub server's answers.
    pub received: u64,
    /// In a second.
    pub messages_per_s: f64,
    /// For each update from here.
    pub messages_per_update: f64,
    /// In one write, on average.
    pub messages_per_pipeline: f64,
}

/// What a publisher found in the window.
#[derive(Debug, Default)]
pub(crate) struct Published {
    pub(crate) messages: u64,
    pub(crate) received: u64,
    pub(crate) pipelines: u64,
    /// Pushes that these messages should have caused.
    pub(crate) expected: u64,
    pub(crate) lateness: Times,
}

impl Published {
    pub(crate) fn summed_up(&self, updates: u64, window: Duration) -> Bus {
        let per = |count: f64| rounded(self.messages as f64 / count.max(0.001));
        Bus {
            messages: self.messages,
            received: self.received,
            messages_per_s: per(window.as_secs_f64()),
            messages_per_update: per(updates as f64),
            messages_per_pipeline: per(self.pipelines as f64),
        }
    }
}

/// Somebody on another gateway.
struct Absent {
    user: u64,
    spot: Spot,
    watchers: u64,
}

/// Publishes for everybody elsewhere, one after the other.
pub(crate) struct Publisher {
    absent: Vec<Absent>,
    stream: BufReader<TcpStream>,
    /// What goes before `u:{user}` in the name of a channel.
    prefix: String,
    clock: Clock,
    epoch_us: u64,
    out: Vec<u8>,
}

impl Publisher {
    /// Connects, and asks how the channels are called: somebody must have subscribed to them by now.
    pub(crate) fn connect(
        address: &str,
        scene: &Scene,
        user_base: u64,
        clock: Clock,
        epoch_us: u64,
    ) -> Result<Publisher> {
        let stream = TcpStream::connect(address).with_context(|| format!("no pub/sub server at {address}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER))?;
        let mut absent: Vec<Absent> = scene
            .elsewhere
            .clone()
            .map(|person| Absent {
                user: user(user_base, person).0,
                spot: scene.spot(person),
                watchers: scene.watchers(person).count() as u64,
            })
            .collect();
        // Whoever sends one after the other should not have the same friends.
        absent.shuffle(&mut StdRng::seed_from_u64(3));
        let first = absent.first().context("nobody is elsewhere")?.user;
        let stream = BufReader::new(stream);
        let mut publisher = Publisher { absent, stream, prefix: String::new(), clock, epoch_us, out: Vec::new() };
        publisher.prefix = publisher.ask_prefix(first)?;
        Ok(publisher)
    }

    /// Publishes from the start of the window until its end, evenly; what has become due within `every` goes in one
    /// pipeline.
    pub(crate) fn run(&mut self, per_second: f64, every: Duration, window: Window) -> Result<Published> {
        let mut schedule = Schedule::new(window.start, per_second);
        let mut found = Published::default();
        let last = At(window.end.0.saturating_sub(1));
        sleep(window.start.since(self.clock.now()));
        loop {
            let now = self.clock.now();
            let (mut sent, mut counted) = (0, 0);
            self.out.clear();
            // Also what was due at the very end, however late it is.
            while sent < PIPELINE
                && let Some((nth, due)) = schedule.take(now.min(last))
            {
                let at = (nth % self.absent.len() as u64) as usize;
                self.put(at, due);
                sent += 1;
                if due >= window.begin {
                    counted += 1;
                    found.expected += self.absent[at].watchers;
                    found.lateness.record(now.since(due));
                }
            }
            if sent > 0 {
                self.stream.get_mut().write_all(&self.out)?;
                let received = self.answers(sent)?;
                if counted == sent {
                    found.messages += counted as u64;
                    found.received += received;
                    found.pipelines += 1;
                }
            }
            if sent == PIPELINE {
                continue;
            }
            if now >= window.end {
                return Ok(found);
            }
            sleep(schedule.due().max(now.after(every)).min(window.end).since(self.clock.now()));
        }
    }

    /// One `PUBLISH`.
    fn put(&mut self, at: usize, due: At) {
        let Absent { user, spot, .. } = self.absent[at];
        let channel = format!("{}u:{user}", self.prefix);
        let out = &mut self.out;
        out.extend_from_slice(format!("*3\r\n$7\r\nPUBLISH\r\n${}\r\n{channel}\r\n", channel.len()).as_bytes());
        out.extend_from_slice(format!("${RECORD_BYTES}\r\n").as_bytes());
        // Later than whatever a run before this one has published for the same people.
        out.extend_from_slice(&record(user, spot, self.epoch_us / 1_000, self.epoch_us + due.0));
        out.extend_from_slice(b"\r\n");
    }

    /// The answers to so many messages: how many receivers they had together.
    fn answers(&mut self, messages: usize) -> Result<u64> {
        let mut receivers = 0;
        for _ in 0..messages {
            let line = self.line()?;
            let count = line.strip_prefix(':').and_then(|count| count.parse::<u64>().ok());
            receivers += count.with_context(|| format!("the pub/sub server answered {line}"))?;
        }
        Ok(receivers)
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        ensure!(self.stream.read_line(&mut line)? > 0, "the pub/sub server closed the connection");
        Ok(line.trim_end().to_owned())
    }

    /// Fleets share pub/sub servers by a prefix; this one's is seen from a channel that it has subscribed to.
    fn ask_prefix(&mut self, user: u64) -> Result<String> {
        let pattern = format!("*u:{user}");
        let ask = format!("*3\r\n$6\r\nPUBSUB\r\n$8\r\nCHANNELS\r\n${}\r\n{pattern}\r\n", pattern.len());
        self.stream.get_mut().write_all(ask.as_bytes())?;
        let lines: usize = match self.line()?.strip_prefix('*').and_then(|count| count.parse().ok()) {
            Some(lines) => lines,
            None => bail!("the pub/sub server does not say who has subscribed"),
        };
        let mut prefix = None;
        for _ in 0..lines {
            self.line()?;
            let channel = self.line()?;
            prefix = channel.strip_suffix(&pattern[1..]).map(str::to_owned).or(prefix);
        }
        prefix.context("no gateway has subscribed to a friend who is elsewhere: is this its pub/sub server?")
    }
}

/// A position as gateways tell it to each other: 74 bytes, little endian.
fn record(user: u64, spot: Spot, generation: u64, intended_us: u64) -> [u8; RECORD_BYTES] {
    // Accuracy, altitude, speed and heading are no numbers, battery and charging 255: nothing of it is known.
    let mut record = [u8::MAX; RECORD_BYTES];
    record[..4].copy_from_slice(&[0xF1, 1, 0, 0]);
    record[4..8].copy_from_slice(&TIME_TO_LIVE_MS.to_le_bytes());
    record[8..16].copy_from_slice(&user.to_le_bytes());
    record[16..24].copy_from_slice(&generation.to_le_bytes());
    record[24..32].copy_from_slice(&(intended_us / 1_000).to_le_bytes());
    // By the permissions of the very beginning: nobody has changed any.
    record[32..40].copy_from_slice(&0_u64.to_le_bytes());
    record[40..44].copy_from_slice(&(spot.lat_e7 + (intended_us % 1_000) as i32).to_le_bytes());
    record[44..48].copy_from_slice(&spot.lon_e7.to_le_bytes());
    for at in (48..64).step_by(4) {
        record[at..at + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    }
    // No two positions of a user have one time.
    record[66..74].copy_from_slice(&0_u64.to_le_bytes());
    record
}

#[cfg(test)]
mod tests {
    use model::{MonotonicMs, Motion};
    use protocol::record::decode;

    use super::*;

    #[test]
    fn a_position_is_written_as_gateways_read_it() {
        let spot = Spot { lat_e7: 123_457_000, lon_e7: -1_234_567_891 };
        let fix = decode(&record(42, spot, 7, 1_763_721_600_123_456), MonotonicMs(5)).unwrap();
        assert_eq!((fix.user.0, fix.order.generation.0, fix.order.ts.0), (42, 7, 1_763_721_600_123));
        assert_eq!((fix.place.position().lat_e7(), fix.place.position().lon_e7()), (123_457_456, -1_234_567_891));
        assert_eq!(fix.order.seq.0, 0);
        assert_eq!((fix.expires, fix.policy.0), (MonotonicMs(600_005), 0));
        assert_eq!(fix.motion, Motion::UNKNOWN);
    }
}
