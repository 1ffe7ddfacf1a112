//! The server as its own process: for signals, kills and what it writes to its log.

use std::ops::Deref;
use std::path::Path;
use std::process::{ExitStatus, Stdio};

use nearby::secret;
use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, prlimit};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, ChildStdout, Command};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::client::SOON;
use crate::site::Site;

/// A running `nearby serve`; killed when dropped.
pub(crate) struct Process {
    site: Site,
    child: Child,
    _stdout: BufReader<ChildStdout>,
    /// Reads standard error all the time: a server that cannot write its log would stand still.
    log: JoinSet<String>,
}

impl Deref for Process {
    type Target = Site;

    fn deref(&self) -> &Site {
        &self.site
    }
}

/// `nearby serve` on this data directory, not started yet.
pub(crate) fn command(data_dir: &Path, listen: &str, variables: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nearby"));
    command.args(["serve", "--listen", listen, "--data-dir"]).arg(data_dir);
    command.env_clear().envs(variables.iter().copied()).kill_on_drop(true);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// The same, and a limit on the size of its files is an error of the write, as a full disk is, and no signal.
fn on_a_disk_that_fills(data_dir: &Path, variables: &[(&str, &str)]) -> Command {
    let server = command(data_dir, "127.0.0.1:0", variables);
    let mut command = Command::new("sh");
    // What is ignored stays ignored in what is executed.
    command.args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\""]).arg(server.as_std().get_program());
    command.args(server.as_std().get_args());
    command.env_clear().envs(variables.iter().copied()).kill_on_drop(true);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs a server that is expected to fail at start; returns what it says on standard error.
pub(crate) async fn fails_to_start(data_dir: &Path, listen: &str) -> String {
    let output = timeout(SOON, command(data_dir, listen, &[]).output()).await.expect("an end").unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8(output.stderr).unwrap()
}

impl Process {
    pub(crate) async fn start(data_dir: &Path, variables: &[(&str, &str)]) -> Process {
        Process::of(command(data_dir, "127.0.0.1:0", variables), data_dir).await
    }

    /// One whose disk can be [filled](Process::fill_disk).
    pub(crate) async fn start_on_a_disk_that_fills(data_dir: &Path, variables: &[(&str, &str)]) -> Process {
        Process::of(on_a_disk_that_fills(data_dir, variables), data_dir).await
    }

    async fn of(mut command: Command, data_dir: &Path) -> Process {
        let mut child = command.spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        timeout(SOON, stdout.read_line(&mut line)).await.expect("the first line").unwrap();
        let address = line.strip_prefix("listening on http://").and_then(|rest| rest.split(' ').next());
        let Some(address) = address else {
            panic!("the server did not start: {line:?}");
        };
        let mut stderr = child.stderr.take().unwrap();
        let mut log = JoinSet::new();
        log.spawn(async move {
            let mut text = Vec::new();
            stderr.read_to_end(&mut text).await.unwrap();
            String::from_utf8(text).unwrap()
        });
        let secret = secret::load_or_make(data_dir).unwrap();
        Process { site: Site { address: address.parse().unwrap(), secret }, child, _stdout: stdout, log }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id().unwrap() as i32).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// From now on no write to a file succeeds, not even in what is allocated, or all do again.
    pub(crate) fn fill_disk(&self, is_full: bool) {
        let pid = Pid::from_raw(self.child.id().unwrap() as i32).unwrap();
        let limit = Rlimit { current: is_full.then_some(0), maximum: None };
        prlimit(Some(pid), Resource::Fsize, limit).unwrap();
    }

    /// Whether the process has ended.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Waits for the end; the log is returned with it.
    pub(crate) async fn ended(mut self) -> (ExitStatus, String) {
        let status = timeout(2 * SOON, self.child.wait()).await.expect("the end of the process").unwrap();
        let log = timeout(SOON, self.log.join_next()).await.expect("the end of the log").unwrap().unwrap();
        (status, log)
    }
}
