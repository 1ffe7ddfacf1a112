//! The container deployment, as far as it can be tried without an engine: what `docker compose config` makes of it,
//! and each part of it that runs anywhere.

#![expect(clippy::unwrap_used, reason = "a test ends where it fails")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use servers::cassandra::CassandraServer;
use servers::etcd::EtcdServer;
use servers::fleet::PUBSUB_OPTIONS;
use servers::nearby::{Executable, NearbyServer};

const NEARBY: &str = env!("CARGO_BIN_EXE_nearby");

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// The lines of each service, with merges done.
fn services() -> BTreeMap<String, Vec<String>> {
    let plugin = Command::new("docker").args(["compose", "version"]).output().is_ok_and(|it| it.status.success());
    let mut command = if plugin { Command::new("docker") } else { Command::new("docker-compose") };
    if plugin {
        command.arg("compose");
    }
    let config = command.args(["--profile", "tools", "config"]).current_dir(root()).output();
    let config = config.expect("docker-compose is not installed: run ./test, or apt-get install docker-compose");
    let text = said(&config);
    let (mut of_services, mut service) = (false, String::new());
    let mut services: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in text.lines() {
        let depth = line.len() - line.trim_start().len();
        match depth {
            0 => of_services = line == "services:",
            2 if of_services && line.ends_with(':') => service = line.trim().trim_end_matches(':').to_owned(),
            _ if of_services => services.entry(service.clone()).or_default().push(line.trim().to_owned()),
            _ => {}
        }
    }
    services
}

fn said(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn unquoted(text: &str) -> String {
    text.trim_matches(['"', '\'']).to_owned()
}

fn variables(lines: &[String]) -> Vec<(String, String)> {
    let pairs = lines.iter().filter(|line| line.starts_with("NEARBY_")).map(|line| line.split_once(": ").unwrap());
    pairs.map(|(name, value)| (name.to_owned(), unquoted(value))).collect()
}

fn items(lines: &[String]) -> Vec<String> {
    lines.iter().filter_map(|line| line.strip_prefix("- ")).map(unquoted).collect()
}

#[test]
fn every_setting_is_one_that_the_executable_knows() {
    let services = services();
    let mut roles = Vec::new();
    for name in ["gateway-1", "gateway-2", "gateway-3", "api-1", "setup"] {
        let variables = variables(&services[name]);
        let config = Command::new(NEARBY).arg("config").env_clear().envs(variables.clone()).output().unwrap();
        let effective = said(&config);
        assert!(effective.contains("cassandra = [\"cassandra:9042\"]"), "{name}: {effective}");
        roles.extend(effective.lines().find(|line| line.starts_with("roles")).map(str::to_owned));
    }
    let gateway = "roles = [\"gateway\"]";
    assert_eq!(roles, [gateway, gateway, gateway, "roles = [\"api\"]", "roles = [\"gateway\", \"api\"]"]);
}

#[test]
fn every_image_has_a_version() {
    let ours = format!("nearby:{}", env!("CARGO_PKG_VERSION"));
    let dockerfile = fs::read_to_string(root().join("Dockerfile")).unwrap();
    let services = services();
    let images = services.values().flatten().filter_map(|line| line.strip_prefix("image: "));
    let bases = dockerfile.lines().filter_map(|line| line.strip_prefix("FROM ")?.split(' ').next());
    let mut named = Vec::new();
    for image in images.chain(bases) {
        let (name, version) = image.rsplit_once(':').unwrap_or_else(|| panic!("{image} has no version"));
        assert!(!version.is_empty() && version != "latest", "{image}");
        assert!(name != "nearby" || image == ours, "{image} is not {ours}");
        named.push(name);
    }
    assert!(["nearby", "haproxy", "redis", "cassandra", "rust"].iter().all(|name| named.contains(name)), "{named:?}");
    let toolchain = concat!("rust:", env!("CARGO_PKG_RUST_VERSION"));
    assert!(dockerfile.contains(toolchain), "the image is built by another toolchain than {toolchain}");
}

#[test]
fn pub_sub_servers_are_those_of_the_tests() {
    for (name, lines) in services().iter().filter(|(name, _)| name.starts_with("pubsub-")) {
        let items = items(lines);
        assert!(items.windows(PUBSUB_OPTIONS.len()).any(|window| window == PUBSUB_OPTIONS), "{name}: {items:?}");
    }
}

#[test]
fn haproxy_takes_its_configuration_and_finds_everybody() {
    let file = root().join("deploy/haproxy.cfg");
    let haproxy = servers::find("haproxy").expect("haproxy is not installed: run ./test, or apt-get install haproxy");
    let checked = Command::new(haproxy).args(["-c", "-f"]).arg(&file).output().unwrap();
    said(&checked);
    let log = String::from_utf8(checked.stderr).unwrap();
    // Only the deployment's own network knows these names.
    let warnings = log.lines().filter(|line| line.contains("[WARNING]") && !line.contains("could not resolve address"));
    assert_eq!(warnings.collect::<Vec<_>>(), Vec::<&str>::new());

    let services = services();
    let text = fs::read_to_string(&file).unwrap();
    let mut role = "";
    let mut behind = Vec::new();
    for line in text.lines() {
        match line.split_whitespace().collect::<Vec<_>>()[..] {
            ["backend", "gateways"] => role = "gateway",
            ["backend", "api"] => role = "api",
            ["server", name, address] => {
                assert_eq!(address, format!("{name}:8080"));
                let roles = ("NEARBY_SERVER__ROLES".to_owned(), role.to_owned());
                assert!(variables(&services[name]).contains(&roles), "{name} is no {role}");
                behind.push(name);
            }
            _ => {}
        }
    }
    assert_eq!(behind, ["gateway-1", "gateway-2", "gateway-3", "api-1"]);
}

/// What the deployment file has after `- |` for a service, as the shell gets it.
fn script(service: &str) -> String {
    let text = fs::read_to_string(root().join("docker-compose.yml")).unwrap();
    let (_, rest) = text.split_once(&format!("\n  {service}:\n")).unwrap();
    let (_, rest) = rest.split_once("- |\n").unwrap();
    let lines = rest.lines().take_while(|line| line.starts_with("        "));
    lines.map(|line| format!("{}\n", line.replace("$$", "$"))).collect()
}

#[test]
fn the_setup_may_run_again() {
    let (etcd, cassandra) = (EtcdServer::start(), CassandraServer::start());
    let dir = Path::new(NEARBY).parent().unwrap().display();
    let run = |script: &str| {
        let mut shell = Command::new("sh");
        shell.args(["-euc", script]).env("PATH", format!("{dir}:/usr/bin:/bin"));
        shell.envs(variables(&services()["setup"]));
        shell.env("NEARBY_DEPLOYMENT__CLUSTER__ETCD", etcd.endpoint());
        shell.env("NEARBY_DEPLOYMENT__CLUSTER__CASSANDRA", cassandra.address());
        said(&shell.output().unwrap())
    };
    let setup = script("setup");
    assert!(run(&setup).contains("applied 0001_history"));
    // Nobody answers by these names here, which is said beside each of them.
    let ring = || -> Vec<String> {
        let status = run("nearby ring status");
        let nodes = status.lines().filter(|line| line.starts_with("epoch ") || line.starts_with("pubsub-"));
        nodes.map(|line| line.split_whitespace().take(2).collect::<Vec<_>>().join(" ")).collect()
    };
    let made = ["epoch 3", "pubsub-1 pubsub-1:6379", "pubsub-2 pubsub-2:6379", "pubsub-3 pubsub-3:6379"];
    assert_eq!(ring(), made);
    assert!(run(&setup).contains("nothing to do"));
    assert_eq!(ring(), made);
}

#[test]
fn the_health_check_tells_who_is_ready() {
    let dir = tempfile::tempdir().unwrap();
    let data_dir = ("NEARBY_DEPLOYMENT__EMBEDDED__DATA_DIR".to_owned(), dir.path().display().to_string());
    let executable = Executable { path: NEARBY.into(), variables: vec![data_dir] };
    let server = NearbyServer::start("health", executable).unwrap();
    let text = fs::read_to_string(root().join("docker-compose.yml")).unwrap();
    let check = text.lines().find_map(|line| line.trim().strip_prefix("- exec 3<>")).unwrap();
    let check = format!("exec 3<>{}", check.replace("127.0.0.1/8080", &server.address().replace(':', "/")));
    let is_healthy = || Command::new("bash").args(["-c", &check]).status().unwrap().success();
    assert!(is_healthy(), "{check}");
    server.kill();
    assert!(!is_healthy());
}

/// The configuration of the image, as it was when this was written, becomes one that loses nothing acknowledged.
#[test]
fn cassandra_acknowledges_what_is_on_disk() {
    let dir = tempfile::tempdir().unwrap();
    let yaml = dir.path().join("cassandra.yaml");
    let given =
        "commitlog_sync: periodic\n# Min unit: ms\ncommitlog_sync_period: 10000ms\ncommitlog_segment_size: 32MiB\n";
    fs::write(&yaml, given).unwrap();
    let script = script("cassandra").replace("/etc/cassandra/cassandra.yaml", &yaml.display().to_string());
    let script = script.replace("exec docker-entrypoint.sh cassandra -f", "");
    // A container that is started again finds its own change.
    for _ in 0..2 {
        said(&Command::new("sh").args(["-euc", &script]).output().unwrap());
    }
    let settings = fs::read_to_string(&yaml).unwrap();
    let settings: Vec<&str> = settings.lines().filter(|line| !line.starts_with('#')).collect();
    assert_eq!(settings, ["commitlog_sync: batch", "commitlog_segment_size: 32MiB"]);
}
