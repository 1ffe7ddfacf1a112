//! Processes of the executable itself, from the outside: a path, variables, a port.

use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use parking_lot::Mutex;

use crate::haproxy::Behind;
use crate::http;
use crate::process::{Process, Status, free_port, tied};

/// A start reads friendships' half-done changes and joins the ring first.
const PATIENCE: Duration = Duration::from_secs(60);

/// What it says when its port is somebody else's.
const TAKEN: &str = "cannot be listened on";

/// The executable and the variables that every process of a fleet has.
#[derive(Clone, Debug)]
pub struct Executable {
    /// An absolute path.
    pub path: PathBuf,
    /// Nothing else is in its environment.
    pub variables: Vec<(String, String)>,
}

impl Executable {
    /// The same with more variables, which win.
    #[must_use]
    pub fn with(&self, more: impl IntoIterator<Item = (String, String)>) -> Executable {
        let mut with = self.clone();
        with.variables.extend(more);
        with
    }

    /// Runs a subcommand to its end and returns what it printed.
    ///
    /// # Errors
    ///
    /// With what it said, if its end was not a good one.
    ///
    /// # Panics
    ///
    /// If it cannot be run at all.
    pub fn run(&self, arguments: &[&str]) -> Result<String, String> {
        let owned: Vec<String> = arguments.iter().map(|&argument| argument.to_owned()).collect();
        let mut command = tied(&self.path, &owned);
        let output = command.env_clear().envs(self.variables.iter().cloned()).output().expect("the executable");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
        if output.status.success() {
            Ok(text(&output.stdout))
        } else {
            Err(format!("nearby {}: {}", arguments.join(" "), text(&output.stderr)))
        }
    }
}

/// One `nearby serve`.
pub struct NearbyServer {
    name: String,
    port: u16,
    executable: Executable,
    process: Mutex<Process>,
}

impl NearbyServer {
    /// Starts one on a free port, and waits until it is ready.
    ///
    /// # Errors
    ///
    /// With the end of its log, if it ends or is not ready in time.
    pub fn start(name: &str, executable: Executable) -> Result<NearbyServer, String> {
        let mut last = String::new();
        for _ in 0..3 {
            let port = free_port();
            match launch(name, port, &executable) {
                Ok(process) => {
                    return Ok(NearbyServer { name: name.to_owned(), port, executable, process: Mutex::new(process) });
                }
                // Somebody else was faster.
                Err(failure) if failure.contains(TAKEN) => last = failure,
                Err(failure) => return Err(failure),
            }
        }
        Err(last)
    }

    /// Such as `gateway-1`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// `127.0.0.1:port`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Whether it says that it should be sent work.
    pub fn is_ready(&self) -> bool {
        is_ready(self.port)
    }

    /// What it tells a collector of metrics.
    pub fn metrics(&self) -> Option<String> {
        http::get(self.port, "/metrics")
    }

    /// How its process is.
    pub fn status(&self) -> Status {
        self.process.lock().status()
    }

    /// The end of its log.
    pub fn log_tail(&self) -> String {
        self.process.lock().log_tail()
    }

    /// `SIGSTOP`.
    pub fn freeze(&self) {
        self.process.lock().freeze();
    }

    /// `SIGCONT`.
    pub fn thaw(&self) {
        self.process.lock().thaw();
    }

    /// `kill -9`.
    pub fn kill(&self) {
        self.process.lock().kill();
    }

    /// `SIGTERM`, without waiting for its end.
    pub fn terminate(&self) {
        self.process.lock().terminate();
    }

    /// How it ended, if it does within `patience`.
    pub fn await_end(&self, patience: Duration) -> Option<ExitStatus> {
        self.process.lock().await_end(patience)
    }

    /// Starts a killed or stopped one again, with its spool, on the same port, and waits until it is ready.
    ///
    /// # Panics
    ///
    /// If it does not start.
    pub fn restart(&self) {
        let mut process = self.process.lock();
        process.kill();
        *process = launch(&self.name, self.port, &self.executable).unwrap_or_else(|failure| panic!("{failure}"));
    }

    pub(crate) fn behind(&self) -> Behind {
        Behind { name: self.name.clone(), address: self.address() }
    }
}

fn launch(name: &str, port: u16, executable: &Executable) -> Result<Process, String> {
    let arguments = ["serve".to_owned(), "--listen".to_owned(), format!("127.0.0.1:{port}")];
    let directory = Process::directory_for(name);
    let process = Process::start_alone(&executable.path, &arguments, &executable.variables, directory);
    process.try_wait_until("ready", PATIENCE, || is_ready(port))?;
    if process.is_running() { Ok(process) } else { Err(format!("port {port} is somebody else's")) }
}

fn is_ready(port: u16) -> bool {
    http::get(port, "/readyz").is_some()
}
