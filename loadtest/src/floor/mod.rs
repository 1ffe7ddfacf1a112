//! `floor`: the least that a server could do for the same frames.
//!
//! One thread, plain epoll, no runtime, everything in memory, no permissions, no expiry, no history: it reads the
//! frames that the server reads, and writes the pushes that the server writes, byte for byte. What it costs cannot be
//! avoided on this machine; the server's cost is told as a multiple of it.

mod board;
mod serving;

use std::io::Write as _;
use std::net::TcpListener;

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};

use crate::process;
use crate::scene::{Scene, SceneOptions};

pub use board::RADIUS_M;
pub use serving::Floor;

/// When pushes go out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Flush {
    /// F0: one write per push.
    Push,
    /// F1: one write per connection and turn of the loop, with all its pushes.
    Turn,
}

/// What to serve.
#[derive(Args, Debug, Clone)]
pub struct Options {
    /// Where to listen; port 0 takes a free one, which is printed.
    #[arg(long, default_value = "127.0.0.1:0")]
    pub listen: String,
    /// When pushes go out.
    #[arg(long, value_enum, default_value_t = Flush::Push)]
    pub flush: Flush,
    /// The user id of person 0.
    #[arg(long, default_value_t = 0)]
    pub user_base: u64,
    /// Whose friend everybody is: there is no REST here.
    #[command(flatten)]
    pub scene: SceneOptions,
    /// Stop when the standard input ends, as it does when who started this is gone.
    #[arg(long, hide = true)]
    pub until_stdin_ends: bool,
}

/// Serves until the process is killed.
pub fn run(options: &Options) -> Result<()> {
    let scene = Scene::new(&options.scene)?;
    process::allow_sockets(options.scene.connections as usize)?;
    let listener =
        TcpListener::bind(&options.listen).with_context(|| format!("cannot listen on {}", options.listen))?;
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "listening on http://{} (floor)", listener.local_addr()?)?;
    stdout.flush()?;
    let mut floor = Floor::new(listener, scene.graph, options.user_base, options.flush)?;
    if options.until_stdin_ends {
        floor.stop_with_stdin()?;
    }
    floor.serve()
}
