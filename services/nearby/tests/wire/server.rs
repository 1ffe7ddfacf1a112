//! The server in this process.

use std::ops::Deref;

use nearby::{App, Config, secret};
use tempfile::TempDir;

use crate::site::Site;

/// A running server with a directory of its own.
pub(crate) struct Server {
    site: Site,
    app: App,
    _dir: TempDir,
}

impl Deref for Server {
    type Target = Site;

    fn deref(&self) -> &Site {
        &self.site
    }
}

/// The default configuration, on a free port and in this directory.
pub(crate) fn config(dir: &TempDir) -> Config {
    let file = dir.path().join("nearby.toml");
    let data_dir = dir.path().join("data");
    let text = format!(
        "[server]\nlisten = \"127.0.0.1:0\"\norigins = [\"https://app.example.com\"]\n\
         [deployment.embedded]\ndata_dir = {:?}\n",
        data_dir.to_str().unwrap()
    );
    std::fs::write(&file, text).unwrap();
    Config::load(Some(&file), &Default::default()).unwrap()
}

impl Server {
    pub(crate) async fn start() -> Server {
        Server::with(|_| {}).await
    }

    /// With something else than the default.
    pub(crate) async fn with(change: impl FnOnce(&mut Config)) -> Server {
        let dir = tempfile::tempdir().unwrap();
        let mut config = config(&dir);
        change(&mut config);
        let app = App::start(&config).await.unwrap();
        let secret = secret::load_or_make(config.data_dir().unwrap()).unwrap();
        Server { site: Site { address: app.address, secret }, app, _dir: dir }
    }

    pub(crate) async fn stop(self) {
        self.app.stop().await.unwrap();
    }
}
