//! One server process: started, waited for, frozen, killed.

use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process};

/// How often a server is asked whether it is ready.
const ASK_EVERY: Duration = Duration::from_millis(20);

/// Bytes of a log's end that go into a failure's text.
const LOG_TAIL: usize = 4_000;

/// A server process of this test process, in a directory of its own that holds its log. Killed when dropped, and by
/// the kernel when the test process ends without dropping it.
pub struct Process {
    program: &'static str,
    child: Mutex<Child>,
    directory: PathBuf,
}

impl Process {
    /// Starts `program` with its standard output and error in `directory/log` (see [`Process::directory_for`]).
    ///
    /// # Panics
    ///
    /// If the program is not installed; `package` is what to install.
    pub fn start(program: &'static str, package: &str, arguments: &[String], directory: PathBuf) -> Process {
        assert!(is_installed(program), "{program} is not installed: run ./test, or apt-get install {package}");
        assert!(is_installed("setpriv"), "setpriv is not installed: apt-get install util-linux");
        let log = File::options().create(true).append(true).open(directory.join("log")).expect("a log file");
        // The kernel ends the server with us, also when we are killed. `setpriv` becomes the server: one process id.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--", program]).args(arguments).current_dir(&directory);
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a log file")).stderr(log);
        Process { program, child: Mutex::new(spawn(command)), directory }
    }

    /// A fresh directory for a server. What test processes that are gone left behind is removed first.
    pub fn directory_for(server: &str) -> PathBuf {
        static SWEPT: OnceLock<()> = OnceLock::new();
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let all = std::env::temp_dir().join("nearby-servers");
        SWEPT.get_or_init(|| sweep(&all));
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let directory = all.join(std::process::id().to_string()).join(format!("{server}-{number}"));
        fs::create_dir_all(&directory).expect("a directory for a server");
        directory
    }

    /// Waits until `ready` says so.
    ///
    /// # Panics
    ///
    /// With the end of the log, if the process ends before or `patience` does.
    pub fn wait_until(&self, what: &str, patience: Duration, ready: impl FnMut() -> bool) {
        if let Err(failure) = self.try_wait_until(what, patience, ready) {
            panic!("{failure}");
        }
    }

    /// The same, with the failure as text: for a server that may be started again on another port.
    pub fn try_wait_until(
        &self,
        what: &str,
        patience: Duration,
        mut ready: impl FnMut() -> bool,
    ) -> Result<(), String> {
        // Real servers take real time, also while they are asked.
        #[expect(clippy::disallowed_methods, reason = "no port is involved, and tokio's clock may be paused")]
        let begun = std::time::Instant::now();
        loop {
            if ready() {
                return Ok(());
            }
            if !self.is_running() {
                return Err(self.failure(&format!("ended before {what}")));
            }
            if begun.elapsed() > patience {
                return Err(self.failure(&format!("not {what} within {patience:?}")));
            }
            thread::sleep(ASK_EVERY);
        }
    }

    /// Whether the process has not ended; a frozen one has not.
    pub fn is_running(&self) -> bool {
        matches!(self.child.lock().try_wait(), Ok(None))
    }

    /// Stops it without warning (`SIGSTOP`): it keeps its connections and says nothing.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets a frozen one go on (`SIGCONT`).
    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    /// `kill -9`, and waits until it is gone.
    pub fn kill(&self) {
        let mut child = self.child.lock();
        // It may have ended by itself.
        let _ = child.kill();
        let _ = child.wait();
    }

    /// Asks it to end (`SIGTERM`), and kills it if it has not within `patience`.
    pub fn stop(&self, patience: Duration) {
        self.signal(Signal::TERM);
        let mut waited = Duration::ZERO;
        while self.is_running() && waited < patience {
            thread::sleep(ASK_EVERY);
            waited += ASK_EVERY;
        }
        self.kill();
    }

    /// Where its log and its files are.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    fn signal(&self, signal: Signal) {
        let mut child = self.child.lock();
        // Only while it has not been waited for is the id its own.
        if matches!(child.try_wait(), Ok(None)) {
            let id = i32::try_from(child.id()).ok().and_then(Pid::from_raw).expect("a process id");
            kill_process(id, signal).expect("a signal to our own child");
        }
    }

    fn failure(&self, what: &str) -> String {
        let log = fs::read(self.directory.join("log")).unwrap_or_default();
        let tail = String::from_utf8_lossy(&log[log.len().saturating_sub(LOG_TAIL)..]).into_owned();
        format!("{} {what}; its log in {}:\n{tail}", self.program, self.directory.display())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if thread::panicking() {
            eprintln!("{}", self.failure("was used by a test that failed"));
        } else {
            // What stays is swept by a later run.
            let _ = fs::remove_dir_all(&self.directory);
        }
    }
}

/// A port that nobody listens on now, below those that the kernel gives to connections; so is the port 10,000 above it
/// (a cluster's second one). Another process may still be faster: who can, starts again on another.
pub fn free_port() -> u16 {
    static NEXT: OnceLock<AtomicU32> = OnceLock::new();
    // Processes start at different places, so that they rarely meet.
    let next = NEXT.get_or_init(|| AtomicU32::new(std::process::id().wrapping_mul(37)));
    let is_free = |port: u16| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
    for _ in 0..10_000 {
        let port = 12_000 + (next.fetch_add(1, Ordering::Relaxed) % 10_000) as u16;
        if is_free(port) && is_free(port + 10_000) {
            return port;
        }
    }
    panic!("no free port");
}

fn is_installed(program: &str) -> bool {
    Path::new(program).is_absolute() && Path::new(program).exists()
        || std::env::var_os("PATH")
            .is_some_and(|paths| std::env::split_paths(&paths).any(|path| path.join(program).exists()))
}

/// The kernel ends a child with the *thread* that started it, and a test's thread ends with the test: one thread that
/// stays starts all of them.
fn spawn(command: Command) -> Child {
    type Order = (Command, SyncSender<std::io::Result<Child>>);
    static STARTER: OnceLock<SyncSender<Order>> = OnceLock::new();
    let starter = STARTER.get_or_init(|| {
        let (orders, inbox) = sync_channel::<Order>(16);
        thread::spawn(move || {
            for (mut command, answer) in inbox {
                // Who does not wait for the answer drops the child's handle, and the kernel cleans up at the end.
                let _ = answer.send(command.spawn());
            }
        });
        orders
    });
    let (answer, child) = sync_channel(1);
    starter.send((command, answer)).expect("the starting thread");
    child.recv().expect("the starting thread").expect("a server process")
}

/// Removes the directories of processes that are gone.
fn sweep(all: &Path) {
    for entry in fs::read_dir(all).into_iter().flatten().flatten() {
        if !Path::new("/proc").join(entry.file_name()).exists() {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}
