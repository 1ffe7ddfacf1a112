//! The `nearby` executable.

use std::process::ExitCode;
use std::time::Duration;

use tokio::runtime::Runtime;

/// How long threads that wait for a disk may hold up the end of the process.
const BLOCKED: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    let outcome = Runtime::new().map_err(Into::into).and_then(|runtime| {
        let outcome = runtime.block_on(nearby::commands::run());
        runtime.shutdown_timeout(BLOCKED);
        outcome
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
