//! Configuration: one TOML file whose checked-in default is also its documentation, overridden by variables
//! `NEARBY_SECTION__KEY` and by flags. Every mistake is named before a port is bound. Nothing else reads the
//! environment.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use config::{Environment, File, FileFormat};
use model::Meters;
use serde::{Deserialize, Serialize};

/// The default configuration, every key of it.
pub const DEFAULT: &str = include_str!("../default.toml");

/// The effective configuration. `default.toml` says what each key means.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "documented in default.toml, where operators read it")]
pub struct Config {
    pub server: Server,
    pub auth: Auth,
    pub limits: Limits,
    pub location: Location,
    pub history: History,
    pub deployment: Deployment,
    pub log: Log,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "documented in default.toml, where operators read it")]
pub struct Server {
    pub roles: Vec<Role>,
    pub listen: SocketAddr,
    pub origins: Vec<String>,
    pub connections_per_address: usize,
    pub connections: usize,
    pub notice_ms: u64,
    pub drain_ms: u64,
}

/// What a process serves.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Everything that carries positions live.
    Gateway,
    /// Records over REST.
    Api,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "documented in default.toml, where operators read it")]
pub struct Auth {
    pub hs256_secret_file: PathBuf,
    pub eddsa_pem_file: PathBuf,
    pub rs256_pem_file: PathBuf,
    pub jwks_file: PathBuf,
    pub issuer: String,
    pub audience: String,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "documented in default.toml, where operators read it")]
pub struct Limits {
    pub updates_per_second: f64,
    pub update_burst: u32,
    pub connecting: usize,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "documented in default.toml, where operators read it")]
pub struct Location {
    pub ttl_s: u64,
    pub radius_m: f64,
    pub max_radius_m: f64,
    pub push_interval_ms: u64,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "documented in default.toml, where operators read it")]
pub struct History {
    pub retention_days: u64,
}

/// Where the records live: one of these, so that a mix cannot be written.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub enum Deployment {
    /// In this process.
    Embedded {
        /// Where users, friendships and history are kept.
        data_dir: PathBuf,
    },
    /// On servers that several processes share.
    Cluster(Cluster),
}

/// The servers of a fleet.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "documented in default.toml, where operators read it")]
pub struct Cluster {
    pub cache: String,
    pub etcd: Vec<String>,
    pub cassandra: Vec<String>,
    pub spool_dir: PathBuf,
    #[serde(default = "keyspace")]
    pub keyspace: String,
    #[serde(default = "replicas")]
    pub replicas: u8,
    #[serde(default = "prefix")]
    pub prefix: String,
    #[serde(default = "spool_points")]
    pub spool_points: usize,
    #[serde(default = "spool_replay_per_second")]
    pub spool_replay_per_second: usize,
}

fn keyspace() -> String {
    "nearby".into()
}

fn replicas() -> u8 {
    3
}

fn prefix() -> String {
    "nearby".into()
}

fn spool_points() -> usize {
    50_000_000
}

fn spool_replay_per_second() -> usize {
    20_000
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "documented in default.toml, where operators read it")]
pub struct Log {
    pub level: String,
    pub format: LogFormat,
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For people.
    Text,
    /// For collectors.
    Json,
}

/// Keys that hold a list: in a variable its items are parted by commas.
const LISTS: [&str; 4] = ["server.roles", "server.origins", "deployment.cluster.etcd", "deployment.cluster.cassandra"];

/// What flags may override.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// `server.listen`.
    pub listen: Option<SocketAddr>,
    /// `deployment.embedded.data_dir`.
    pub data_dir: Option<PathBuf>,
}

impl Config {
    /// Default, file, variables, flags, in this order; checked as a whole.
    pub fn load(file: Option<&Path>, overrides: &Overrides) -> anyhow::Result<Config> {
        let variables = Environment::with_prefix("NEARBY").prefix_separator("_").separator("__").try_parsing(true);
        Config::build(file, variables, overrides)
    }

    fn build(file: Option<&Path>, variables: Environment, overrides: &Overrides) -> anyhow::Result<Config> {
        let mut given = config::Config::builder();
        if let Some(file) = file {
            ensure!(file.exists(), "the configuration file {} does not exist", file.display());
            given = given.add_source(File::from(file).format(FileFormat::Toml));
        }
        let mut variables = variables.list_separator(",");
        for list in LISTS {
            variables = variables.with_list_parse_key(list);
        }
        let given = given.add_source(variables).build().context("the configuration cannot be read")?;
        let default = config::Config::builder().add_source(File::from_str(DEFAULT, FileFormat::Toml));
        // The default's deployment stands only for who names none: one of the two, never both.
        let mut sources = config::Config::builder();
        sources = match given.get_table("deployment.cluster") {
            Ok(_) => {
                let mut default: toml::Table = DEFAULT.parse().context("the default configuration")?;
                default.remove("deployment");
                sources.add_source(File::from_str(&toml::to_string(&default)?, FileFormat::Toml))
            }
            Err(_) => sources.add_source(default.build()?),
        };
        sources = sources.add_source(given);
        if let Some(listen) = overrides.listen {
            sources = sources.set_override("server.listen", listen.to_string())?;
        }
        if let Some(dir) = &overrides.data_dir {
            let dir = dir.to_str().context("the data directory's name must be UTF-8")?;
            sources = sources.set_override("deployment.embedded.data_dir", dir)?;
        }
        let read = sources.build().context("the configuration cannot be read")?;
        let config: Config = read
            .try_deserialize()
            .context("the configuration is wrong (the --config file, the variables NEARBY_* and the flags together)")?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> anyhow::Result<()> {
        let Limits { updates_per_second, update_burst, connecting } = self.limits;
        let Location { ttl_s, radius_m, max_radius_m, push_interval_ms } = self.location;
        ensure!(updates_per_second > 0.0, "limits.updates_per_second must be above 0, and is {updates_per_second}");
        ensure!(update_burst >= 1, "limits.update_burst must be at least 1");
        ensure!(connecting >= 1, "limits.connecting must be at least 1");
        ensure!((1..=86_400).contains(&ttl_s), "location.ttl_s must be from 1 to 86400, and is {ttl_s}");
        ensure!(
            max_radius_m > 0.0 && max_radius_m <= 1_000_000.0,
            "location.max_radius_m must be above 0 and at most 1000000, and is {max_radius_m}"
        );
        ensure!(
            radius_m > 0.0 && radius_m <= max_radius_m,
            "location.radius_m must be above 0 and at most location.max_radius_m ({max_radius_m}), and is {radius_m}"
        );
        ensure!(
            push_interval_ms <= 5_000,
            "location.push_interval_ms must be from 0 to 5000, and is {push_interval_ms}"
        );
        let days = self.history.retention_days;
        ensure!((1..=3_650).contains(&days), "history.retention_days must be from 1 to 3650, and is {days}");
        ensure!(!self.server.roles.is_empty(), "server.roles must name gateway, api or both");
        if let Deployment::Embedded { .. } = self.deployment {
            let both = self.serves(Role::Gateway) && self.serves(Role::Api);
            ensure!(
                both,
                "server.roles must be gateway and api: an embedded deployment is one process, which needs both"
            );
        }
        for origin in &self.server.origins {
            let path = origin.split_once("://").map(|(_, host)| host.contains('/'));
            if path != Some(false) {
                bail!("server.origins: {origin:?} is not an origin: scheme and host, as \"https://app.example.com\"");
            }
        }
        Ok(())
    }

    /// Whether this process has that role.
    pub fn serves(&self, role: Role) -> bool {
        self.server.roles.contains(&role)
    }

    /// The engine's part.
    pub fn node_settings(&self, shards: usize) -> node::Settings {
        node::Settings {
            shards,
            ttl: Duration::from_secs(self.location.ttl_s),
            radius: Meters(self.location.radius_m),
            max_radius: Meters(self.location.max_radius_m),
            updates_per_second: self.limits.updates_per_second,
            update_burst: self.limits.update_burst,
            retention: Duration::from_secs(self.history.retention_days * 86_400),
            ..node::Settings::default()
        }
    }

    /// The directory of the embedded deployment.
    pub fn data_dir(&self) -> anyhow::Result<&Path> {
        match &self.deployment {
            Deployment::Embedded { data_dir } => Ok(data_dir),
            Deployment::Cluster(_) => bail!("a cluster has no data directory: this is for `deployment.embedded`"),
        }
    }

    /// The servers of the cluster deployment.
    pub fn cluster(&self) -> anyhow::Result<&Cluster> {
        match &self.deployment {
            Deployment::Cluster(cluster) => Ok(cluster),
            Deployment::Embedded { .. } => bail!("this is for `deployment.cluster`, which is not configured"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(variables: &[(&str, &str)]) -> anyhow::Result<Config> {
        let source = variables.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
        let variables = Environment::with_prefix("NEARBY").prefix_separator("_").separator("__").try_parsing(true);
        Config::build(None, variables.source(Some(source)), &Overrides::default())
    }

    fn complaint(variables: &[(&str, &str)]) -> String {
        format!("{:#}", with(variables).unwrap_err())
    }

    #[test]
    fn the_default_is_what_the_design_says() {
        let config = with(&[]).unwrap();
        assert_eq!(config.location.radius_m, Meters::FIVE_MILES.0);
        assert_eq!((config.location.ttl_s, config.limits.update_burst), (600, 20));
    }

    #[test]
    fn variables_override() {
        let config = with(&[
            ("NEARBY_LOCATION__TTL_S", "5"),
            ("NEARBY_SERVER__ORIGINS", "https://a.example,https://b.example"),
            ("NEARBY_DEPLOYMENT__EMBEDDED__DATA_DIR", "elsewhere"),
        ])
        .unwrap();
        assert_eq!(config.location.ttl_s, 5);
        assert_eq!(config.server.origins, ["https://a.example", "https://b.example"]);
        assert_eq!(config.data_dir().unwrap(), Path::new("elsewhere"));
    }

    const CLUSTER: [(&str, &str); 4] = [
        ("NEARBY_DEPLOYMENT__CLUSTER__CACHE", "redis://127.0.0.1:6379"),
        ("NEARBY_DEPLOYMENT__CLUSTER__ETCD", "http://127.0.0.1:2379,http://127.0.0.1:2381"),
        ("NEARBY_DEPLOYMENT__CLUSTER__CASSANDRA", "127.0.0.1:9042"),
        ("NEARBY_DEPLOYMENT__CLUSTER__SPOOL_DIR", "spool"),
    ];

    #[test]
    fn a_cluster_takes_the_place_of_the_embedded_default() {
        let config = with(&CLUSTER).unwrap();
        let cluster = config.cluster().unwrap();
        assert_eq!((cluster.etcd.len(), cluster.cassandra.len(), cluster.keyspace.as_str()), (2, 1, "nearby"));
        assert!(config.data_dir().is_err());
        let both = [&CLUSTER[..], &[("NEARBY_DEPLOYMENT__EMBEDDED__DATA_DIR", "d")]].concat();
        assert!(complaint(&both).contains("deployment"));
        assert!(complaint(&CLUSTER[..3]).contains("spool_dir"));
    }

    #[test]
    fn a_role_alone_is_for_a_cluster() {
        const API: (&str, &str) = ("NEARBY_SERVER__ROLES", "api");
        let config = with(&[&CLUSTER[..], &[API]].concat()).unwrap();
        assert!(config.serves(Role::Api) && !config.serves(Role::Gateway));
        assert!(complaint(&[API]).contains("server.roles"));
    }

    #[test]
    fn a_mistake_is_named() {
        for (variable, value, named) in [
            ("NEARBY_LOCATION__TTL", "5", "ttl"),
            ("NEARBY_LOCATION__TTL_S", "soon", "ttl_s"),
            ("NEARBY_LOCATION__TTL_S", "0", "location.ttl_s"),
            ("NEARBY_LOCATION__RADIUS_M", "60000", "location.max_radius_m"),
            ("NEARBY_LOCATION__PUSH_INTERVAL_MS", "5001", "location.push_interval_ms"),
            ("NEARBY_SERVER__LISTEN", "here", "listen"),
            ("NEARBY_SERVER__ROLES", "cook", "roles"),
            ("NEARBY_SERVER__ORIGINS", "app.example.com", "server.origins"),
            ("NEARBY_LOG__FORMAT", "xml", "format"),
            ("NEARBY_DEPLOYMENT__TAPE__REEL", "1", "deployment"),
        ] {
            let complaint = complaint(&[(variable, value)]);
            assert!(complaint.contains(named), "{variable}={value}: {complaint}");
        }
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let missing = Config::load(Some(Path::new("no-such.toml")), &Overrides::default()).unwrap_err();
        assert!(missing.to_string().contains("no-such.toml"));
    }
}
