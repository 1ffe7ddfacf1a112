//! What every command that goes to a server has to know beside where it is.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use crate::fleet::FleetFile;
use crate::process::Watched;
use crate::token::Tokens;

/// What opens the server, and who comes.
#[derive(Args, Debug, Clone)]
pub struct Access {
    /// The server's data directory, whose file `signing-secret` tokens are signed with. Not needed with --fleet.
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// The signing secret itself, in a file.
    #[arg(long, alias = "secret", value_name = "FILE")]
    pub secret_file: Option<PathBuf>,
    /// Whose CPU time and memory are reported too.
    #[command(flatten)]
    pub watched: Watched,
    /// The user id of person 0; another one for each run on the same server keeps runs apart.
    #[arg(long, default_value_t = 0)]
    pub user_base: u64,
    /// Requests and handshakes under way at once.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..))]
    pub at_once: u16,
    /// Users and friendships are there already.
    #[arg(long)]
    pub skip_setup: bool,
}

impl Access {
    /// What makes tokens: of the secret that was named, or of the fleet's.
    pub fn tokens(&self) -> Result<Tokens> {
        let named = self.secret_file.is_some() || self.data_dir.is_some();
        let fleet = if named { None } else { self.fleet()? };
        let secret = fleet.as_ref().and_then(FleetFile::secret_file).or(self.secret_file.as_deref());
        Tokens::open(secret, self.data_dir.as_deref())
    }

    /// The fleet, if one was named.
    pub fn fleet(&self) -> Result<Option<FleetFile>> {
        self.watched.fleet.as_deref().map(FleetFile::read).transpose()
    }
}
