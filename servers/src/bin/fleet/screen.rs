//! What `./fleet` says, and the files that it leaves for others to read while it runs.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use servers::fleet::{Fleet, FleetOptions, Part};

/// Files about a running fleet.
pub(crate) struct Files {
    dir: PathBuf,
    /// Every process, by role.
    processes: PathBuf,
    /// The variables that `nearby` needs to know the fleet, for a shell.
    variables: PathBuf,
}

impl Files {
    pub(crate) fn write(fleet: &Fleet, dir: &Path) -> std::io::Result<Files> {
        let files =
            Files { dir: dir.to_owned(), processes: dir.join("fleet.json"), variables: dir.join("variables.sh") };
        fs::write(&files.processes, format!("{:#}\n", fleet.description()))?;
        let quoted = |value: &str| value.replace('\'', r"'\''");
        let lines = fleet.variables().iter().map(|(name, value)| format!("export {name}='{}'\n", quoted(value)));
        fs::write(&files.variables, lines.collect::<String>())?;
        Ok(files)
    }
}

/// Whoever reads it may be gone; that is no reason to stop a fleet.
impl Drop for Files {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.processes);
        let _ = fs::remove_file(&self.variables);
    }
}

pub(crate) fn starting(options: &FleetOptions) {
    say(&format!(
        "Starting HAProxy, {} gateways, an API, {} pub/sub Redis, a cache and its standby, etcd and Cassandra.\n\
         This takes 15 to 40 seconds; the first time, Cassandra is downloaded (54 MB).\n",
        options.gateways, options.pubsub
    ));
}

pub(crate) fn up(fleet: &Fleet, files: &Files, nearby: &Path) {
    let (url, dir, nearby) = (format!("http://{}", fleet.address()), files.dir.display(), nearby.display());
    let mut text = format!("\nThe fleet is up: {url}\n\n");
    for part in fleet.parts() {
        let _ = writeln!(text, "  {:<10} {:<24} pid {}", part.name, part.address, part.status.pid);
    }
    let _ = write!(
        text,
        "\nStatistics of HAProxy: {}\nEvery process by role: {}\n\n\
         Try it, in another terminal and the same directory:\n\n\
         \x20 APP=$({nearby} token --data-dir {dir} --scope backend)\n\
         \x20 ADA=$({nearby} token --data-dir {dir} --user 7)\n\
         \x20 BEN=$({nearby} token --data-dir {dir} --user 8)\n\
         \x20 curl -X PUT {url}/v1/users/7 -H \"Authorization: Bearer $APP\" --json '{{\"name\":\"Ada\"}}'\n\
         \x20 curl -X PUT {url}/v1/users/8 -H \"Authorization: Bearer $APP\" --json '{{\"name\":\"Ben\"}}'\n\
         \x20 curl -X PUT {url}/v1/users/7/friends/8 -H \"Authorization: Bearer $APP\"\n\
         \x20 curl {url}/v1/locations -H \"Authorization: Bearer $BEN\" \
         --json '{{\"lat\":52.5215,\"lon\":13.411,\"ts\":'$(date +%s)000'}}'\n\
         \x20 curl \"{url}/v1/nearby?lat=52.52&lon=13.405\" -H \"Authorization: Bearer $ADA\"\n\n\
         The ring of pub/sub servers:\n\n\
         \x20 (. {} && {nearby} ring status)\n\n\
         Ctrl-C stops all of it, and what it holds is forgotten.\n",
        fleet.haproxy.operations_url(),
        files.processes.display(),
        sourced(&files.variables),
    );
    say(&text);
}

/// A name without a slash would be looked for on the path.
fn sourced(path: &Path) -> String {
    if path.is_absolute() { path.display().to_string() } else { format!("./{}", path.display()) }
}

pub(crate) fn ended(part: &Part) {
    let Part { name, address, status, .. } = part;
    say(&format!(
        "{name} ({address}, pid {}) has ended; the others go on. Its log: {}\n",
        status.pid,
        status.log.display()
    ));
}

pub(crate) fn stopping() {
    say("\nStopping: connections are closed and what was taken in is written.\n");
}

/// A terminal that is gone is no reason to leave processes behind.
fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
