//! `nearby serve`.

use tokio::signal::unix::{SignalKind, signal};

use crate::{App, Config};

/// Serves until SIGTERM or SIGINT, then stops gracefully. An error if not everything could be written, and if the process
/// ends by itself to be started again.
pub(super) async fn run(config: &Config) -> anyhow::Result<()> {
    super::start_log(&config.log)?;
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let app = App::start(config).await?;
    match config.data_dir() {
        Ok(dir) => super::say(format_args!("listening on http://{} (data in {})", app.address, dir.display()))?,
        Err(_) => super::say(format_args!("listening on http://{} (cluster)", app.address))?,
    }
    let must_restart = tokio::select! {
        _ = terminate.recv() => false,
        _ = interrupt.recv() => false,
        () = app.must_restart() => true,
    };
    tracing::info!("stopping: closing connections");
    app.stop().await?;
    anyhow::ensure!(!must_restart, "a write to disk failed; start this process again to recover what was acknowledged");
    tracing::info!("stopped, nothing lost");
    Ok(())
}
