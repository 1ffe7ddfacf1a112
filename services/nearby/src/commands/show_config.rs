//! `nearby config`.

use crate::Config;

/// Prints the effective configuration. It holds no secrets: keys are given as files.
pub(super) fn run(config: &Config) -> anyhow::Result<()> {
    super::say(toml::to_string(config)?.trim_end())
}
