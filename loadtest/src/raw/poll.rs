//! epoll, level-triggered, with waits that are finer than its own milliseconds.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};

/// Descriptors told of at one time.
const EVENTS: usize = 256;
/// The timer's own mark among the events.
const TIMER: u64 = u64::MAX;

/// What happened to a descriptor.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ready {
    /// The mark it was added with.
    pub(crate) mark: u64,
    /// There is something to read, or an end or an error to find by reading.
    pub(crate) readable: bool,
    /// There is room again, or an error to find by writing.
    pub(crate) writable: bool,
}

/// Waits for many descriptors.
pub(crate) struct Poll {
    epoll: OwnedFd,
    timer: OwnedFd,
    events: Vec<Event>,
}

impl Poll {
    pub(crate) fn new() -> io::Result<Poll> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        epoll::add(&epoll, &timer, EventData::new_u64(TIMER), EventFlags::IN)?;
        Ok(Poll { epoll, timer, events: Vec::with_capacity(EVENTS) })
    }

    /// From now on this descriptor is waited for, until it is closed.
    pub(crate) fn add(&self, source: impl AsFd, mark: u64, writable: bool) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, source, EventData::new_u64(mark), interest(writable))?)
    }

    /// Also waits for room to write, or no longer.
    pub(crate) fn want_room(&self, source: impl AsFd, mark: u64, writable: bool) -> io::Result<()> {
        Ok(epoll::modify(&self.epoll, source, EventData::new_u64(mark), interest(writable))?)
    }

    /// Waits until something happens or the time is over; `None` waits for ever. Returns how many [`Poll::ready`] there
    /// are, which is none when only the time is over.
    pub(crate) fn wait(&mut self, patience: Option<Duration>) -> io::Result<usize> {
        let at_once = patience.is_some_and(|patience| patience.is_zero());
        if let Some(patience) = patience.filter(|patience| !patience.is_zero()) {
            self.arm(patience)?;
        }
        let timeout = at_once.then_some(Timespec { tv_sec: 0, tv_nsec: 0 });
        self.events.clear();
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut self.events), timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        if patience.is_some() && !at_once && self.events.iter().any(is_timer) {
            // Also takes back its readiness.
            self.arm(Duration::ZERO)?;
        }
        self.events.retain(|event| !is_timer(event));
        Ok(self.events.len())
    }

    /// One of those that the last [`Poll::wait`] found.
    pub(crate) fn ready(&self, at: usize) -> Ready {
        let Event { flags, data } = self.events[at];
        let failed = flags.intersects(EventFlags::ERR | EventFlags::HUP);
        Ready {
            mark: data.u64(),
            readable: failed || flags.contains(EventFlags::IN),
            writable: failed || flags.contains(EventFlags::OUT),
        }
    }

    fn arm(&self, after: Duration) -> io::Result<()> {
        let value = Timespec { tv_sec: after.as_secs() as i64, tv_nsec: after.subsec_nanos().into() };
        let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: value };
        timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once)?;
        Ok(())
    }
}

fn is_timer(event: &Event) -> bool {
    let data = event.data;
    data.u64() == TIMER
}

fn interest(writable: bool) -> EventFlags {
    if writable { EventFlags::IN | EventFlags::OUT } else { EventFlags::IN }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;
    use crate::clock::Clock;

    #[test]
    fn waits_as_long_as_asked_for_and_not_to_whole_milliseconds() {
        let (mut poll, clock) = (Poll::new().unwrap(), Clock::start());
        for micros in [300, 2_500] {
            // The shortest of some: another process may have the core.
            let waits = (0..20).map(|_| {
                let began = clock.now();
                assert_eq!(poll.wait(Some(Duration::from_micros(micros))).unwrap(), 0);
                clock.now().since(began).as_micros() as u64
            });
            let shortest = waits.min().unwrap();
            assert!((micros - 2..micros + 600).contains(&shortest), "{shortest} for {micros}");
        }
        assert_eq!(poll.wait(Some(Duration::ZERO)).unwrap(), 0);
    }

    #[test]
    fn tells_who_can_be_read() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut poll = Poll::new().unwrap();
        poll.add(&listener, 7, false).unwrap();
        assert_eq!(poll.wait(Some(Duration::from_millis(1))).unwrap(), 0);
        let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert_eq!(poll.wait(None).unwrap(), 1);
        let ready = poll.ready(0);
        assert_eq!((ready.mark, ready.readable, ready.writable), (7, true, false));
    }
}
