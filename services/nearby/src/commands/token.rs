//! `nearby token`.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::ensure;
use clap::{Args, ValueEnum};
use ports::Clock;
use web::tokens::issue;
use web::{Scope, Scopes};

use crate::config::{Config, Overrides};
use crate::secret;

#[derive(Debug, Args)]
pub(super) struct TokenArgs {
    /// The data directory of the server that is to take it
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Whom it names: a decimal user id, or any other subject
    #[arg(long, default_value = "0")]
    user: String,
    /// What it allows beside being that user
    #[arg(long, value_enum)]
    scope: Vec<ScopeArg>,
    /// For how many hours it counts
    #[arg(long, default_value_t = 24)]
    hours: u64,
}

/// The scopes a token can be given.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum ScopeArg {
    /// For an application's server: users and friendships
    Backend,
    /// For readers of everybody's history
    History,
}

pub(super) fn run(args: &TokenArgs) -> anyhow::Result<()> {
    ensure!((1..=87_600).contains(&args.hours), "--hours must be from 1 to 87600");
    let config = Config::load(None, &Overrides { listen: None, data_dir: args.data_dir.clone() })?;
    let secret = secret::load_or_make(config.data_dir()?)?;
    let scopes: Vec<Scope> = args
        .scope
        .iter()
        .map(|scope| match scope {
            ScopeArg::Backend => Scope::Backend,
            ScopeArg::History => Scope::History,
        })
        .collect();
    let expires = Clock::System.wall().after(Duration::from_secs(args.hours * 3_600));
    super::say(issue(&secret, &args.user, Scopes::of(&scopes), expires)?)
}
