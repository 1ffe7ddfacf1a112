//! `nearby migrate`.

use super::say;
use crate::Config;
use crate::backends;

/// Brings the database to the newest schema, and says what that took.
pub(super) async fn run(config: &Config) -> anyhow::Result<()> {
    let cluster = config.cluster()?;
    let migrated = backends::migrate(cluster).await?;
    if migrated.created_keyspace {
        say(format_args!("made the keyspace {} with {} copies", cluster.keyspace, cluster.replicas))?;
    }
    for name in &migrated.applied {
        say(format_args!("applied {name}"))?;
    }
    if migrated.applied.is_empty() {
        say(format_args!("nothing to do: {} migrations were there", migrated.present))?;
    }
    Ok(())
}
