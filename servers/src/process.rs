//! One server process: started, waited for, frozen, killed.

use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
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
    program: String,
    child: Mutex<Child>,
    directory: PathBuf,
}

/// How a process is.
#[derive(Clone, Debug)]
pub struct Status {
    /// Its process id.
    pub pid: u32,
    /// Whether it has not ended; a frozen one has not.
    pub is_running: bool,
    /// What it writes.
    pub log: PathBuf,
}

impl Process {
    /// Starts `program` with its standard output and error in `directory/log` (see [`Process::directory_for`]).
    ///
    /// # Panics
    ///
    /// If the program is not installed; `package` is what to install.
    pub fn start(program: &str, package: &str, arguments: &[String], directory: PathBuf) -> Process {
        let found = installed(program, package);
        Process::launch(program, tied(&found, arguments), directory)
    }

    /// The same for an executable that is there, with these variables and no others: what it does does not depend on
    /// the environment of who starts it.
    ///
    /// # Panics
    ///
    /// If `setpriv` is not installed, or the executable cannot be run.
    pub fn start_alone(
        executable: &Path,
        arguments: &[String],
        variables: &[(String, String)],
        directory: PathBuf,
    ) -> Process {
        let mut command = tied(executable, arguments);
        command.env_clear().envs(variables.iter().cloned());
        Process::launch(&executable.display().to_string(), command, directory)
    }

    fn launch(program: &str, mut command: Command, directory: PathBuf) -> Process {
        let log = File::options().create(true).append(true).open(directory.join("log")).expect("a log file");
        command.current_dir(&directory).stdin(Stdio::null());
        command.stdout(log.try_clone().expect("a log file")).stderr(log);
        // Ctrl-C in a terminal is for who started it, who decides in which order what is stopped.
        command.process_group(0);
        Process { program: program.to_owned(), child: Mutex::new(spawn(command)), directory }
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
        self.terminate();
        self.await_end(patience);
        self.kill();
    }

    /// Asks it to end (`SIGTERM`), and does not wait.
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// How it ended, if it does within `patience`.
    pub fn await_end(&self, patience: Duration) -> Option<ExitStatus> {
        let mut waited = Duration::ZERO;
        loop {
            let ended = self.child.lock().try_wait().ok().flatten();
            if ended.is_some() || waited >= patience {
                return ended;
            }
            thread::sleep(ASK_EVERY);
            waited += ASK_EVERY;
        }
    }

    /// How it is.
    pub fn status(&self) -> Status {
        let pid = self.child.lock().id();
        Status { pid, is_running: self.is_running(), log: self.directory.join("log") }
    }

    /// The end of its log.
    pub fn log_tail(&self) -> String {
        let log = fs::read(self.directory.join("log")).unwrap_or_default();
        String::from_utf8_lossy(&log[log.len().saturating_sub(LOG_TAIL)..]).into_owned()
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
        format!("{} {what}; its log in {}:\n{}", self.program, self.directory.display(), self.log_tail())
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

/// A directory that outlives its server's processes.
pub(crate) struct Data(pub(crate) PathBuf);

impl Drop for Data {
    fn drop(&mut self) {
        // What stays is swept by a later run.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Where a program is: on the path, or where Debian has what only administrators used to start.
pub fn find(program: &str) -> Option<PathBuf> {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&paths).chain([PathBuf::from("/usr/sbin")]);
    places.map(|place| place.join(program)).find(|path| path.is_file())
}

fn installed(program: &str, package: &str) -> PathBuf {
    find(program).unwrap_or_else(|| panic!("{program} is not installed: run ./test, or apt-get install {package}"))
}

/// A command that the kernel ends with the thread that starts it, also when this process is killed. `setpriv` becomes
/// the program: one process id.
pub(crate) fn tied(program: &Path, arguments: &[String]) -> Command {
    let mut command = Command::new(installed("setpriv", "util-linux"));
    command.args(["--pdeathsig", "KILL", "--"]).arg(program).args(arguments);
    command
}

/// A child ends with the *thread* that started it (see [`tied`]), and a test's thread ends with the test: one thread that
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
