//! `nearby serve`.

use tokio::signal::unix::{SignalKind, signal};

use crate::{App, Config};

/// Serves until SIGTERM or SIGINT, then stops gracefully.
pub(super) async fn run(config: &Config) -> anyhow::Result<()> {
    super::start_log(&config.log)?;
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let app = App::start(config).await?;
    match config.data_dir() {
        Ok(dir) => super::say(format_args!("listening on http://{} (data in {})", app.address, dir.display()))?,
        Err(_) => super::say(format_args!("listening on http://{} (cluster)", app.address))?,
    }
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("stopping: closing connections");
    app.stop().await?;
    tracing::info!("stopped, nothing lost");
    Ok(())
}
