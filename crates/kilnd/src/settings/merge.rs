//! Flags over file over defaults: the one place where a setting gets its value.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::file::{self, Dns, File, GcRule, Registry};
use super::flags::Flags;
use super::provenance;
use super::units::{DiskSpace, Span};

/// What the daemon finds around itself; a test passes its own.
#[derive(Debug, Clone, Default)]
pub struct Surroundings {
    /// Name the program was started under, such as `kilnd` or `buildkitd`.
    pub program: String,
    /// Whether this process is root on the host (not merely in a user namespace).
    pub host_root: bool,
    pub home: Option<PathBuf>,
    pub xdg_config_home: Option<PathBuf>,
    pub xdg_data_home: Option<PathBuf>,
    pub xdg_runtime_dir: Option<PathBuf>,
    pub cpus: usize,
}

/// Where the daemon listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    Unix(PathBuf),
    /// `HOST:PORT`.
    Tcp(String),
    /// The first socket that the service manager passed.
    Fd,
}

/// One rule of garbage collection, with its limits in bytes (0: none).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GcPolicy {
    pub all: bool,
    pub filters: Vec<String>,
    pub keep_duration: Duration,
    pub reserved_space: u64,
    pub max_used_space: u64,
    pub min_free_space: u64,
}

/// Certificates of the tcp addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    pub cert: PathBuf,
    pub key: PathBuf,
    /// Clients must show a certificate that this one signed.
    pub client_ca: Option<PathBuf>,
}

/// How many finished builds are remembered, and how long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryLimits {
    pub max_age: Duration,
    pub max_entries: usize,
}

/// Everything the daemon is told.
#[derive(Debug)]
pub struct Settings {
    pub root: PathBuf,
    pub addresses: Vec<Address>,
    pub socket_group: Option<String>,
    pub socket_uid: Option<u32>,
    pub tls: Option<TlsFiles>,
    pub log_level: String,
    pub log_json: bool,
    pub entitlements: Vec<String>,
    pub otel_socket: Option<PathBuf>,
    pub labels: BTreeMap<String, String>,
    pub platforms: Vec<String>,
    /// `embedded`, or the name or path of an OCI runtime.
    pub runtime: String,
    pub native_snapshots: bool,
    pub network: String,
    /// `None`: no garbage is collected but on demand.
    pub gc: Option<Vec<GcRule>>,
    pub gc_limits: SpaceLimits,
    pub max_parallelism: Option<usize>,
    pub cgroup_parent: String,
    pub registries: BTreeMap<String, Registry>,
    pub registry_concurrency: usize,
    pub dns: Dns,
    pub history: HistoryLimits,
    pub dockerfile_frontend: bool,
    pub gateway_frontend: bool,
    /// Repositories whose images may be frontends; none: all may.
    pub frontend_repositories: Vec<String>,
    /// What provenance tells about the builder.
    pub provenance_env: BTreeMap<String, serde_json::Value>,
    pub idle_timeout: Option<Duration>,
    pub ready_fd: Option<i32>,
}

/// The worker's own limits, from which the default rules follow.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SpaceLimits {
    pub reserved: Option<DiskSpace>,
    pub max_used: Option<DiskSpace>,
    pub min_free: Option<DiskSpace>,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    File(#[from] file::Error),
    #[error(transparent)]
    ProvenanceEnv(#[from] provenance::Error),
    #[error("`{0}` is no address: expected unix://PATH, tcp://HOST:PORT or fd://")]
    Address(String),
    #[error("no home folder is known: give --root and --addr")]
    NoHome,
    #[error("--tlscert and --tlskey belong together: give both")]
    HalfTls,
    #[error("{flag} does not take `{value}`: {expected}")]
    Value { flag: &'static str, value: String, expected: &'static str },
}

/// Networks a step may have by default, as the flags name them.
const NETWORKS: [&str; 4] = ["auto", "host", "bridge", "none"];
const MEGABYTE: u64 = 1 << 20;

/// Reads the configuration file that applies and settles every setting.
pub fn resolve(flags: Flags, around: &Surroundings) -> Result<Settings, Error> {
    let file = match &flags.config {
        Some(path) => file::load(path)?,
        None => match default_config(around) {
            Some(path) => file::load(&path)?,
            None => File::default(),
        },
    };
    let worker = file.worker.oci;

    switched_on("--oci-worker", flags.oci_worker.as_deref(), &["true", "auto"], "kilnd has this one worker")?;
    switched_on(
        "--containerd-worker",
        flags.containerd_worker.as_deref(),
        &["false", "auto"],
        "kilnd has no containerd worker",
    )?;
    if worker.enabled == Some(false) {
        return Err(value("worker.oci.enabled", "false", "kilnd has this one worker"));
    }
    let native_snapshots = match flags.oci_worker_snapshotter.as_deref() {
        None | Some("auto" | "overlayfs") => false,
        Some("native") => true,
        Some(other) => {
            return Err(value("--oci-worker-snapshotter", other, "expected auto, overlayfs or native"));
        }
    };
    let network = flags.oci_worker_net.or(worker.network_mode).unwrap_or_else(|| "auto".to_owned());
    if !NETWORKS.contains(&network.as_str()) {
        return Err(value("--oci-worker-net", &network, "expected auto, host, bridge or none"));
    }

    let root = flags.root.or(file.root).map_or_else(|| default_root(around), Ok)?;
    let given = if flags.addr.is_empty() { file.grpc.address } else { flags.addr };
    let addresses = if given.is_empty() {
        vec![Address::Unix(default_socket(around)?)]
    } else {
        given.iter().map(|address| parse_address(address)).collect::<Result<_, _>>()?
    };

    let debug = flags.debug.unwrap_or(file.debug);
    let log_level = match (flags.log_level.or(file.log.level), debug, file.trace) {
        (_, _, true) => "trace".to_owned(),
        (_, true, _) => "debug".to_owned(),
        (Some(level), ..) => level,
        (None, ..) => "info".to_owned(),
    };
    let log_json = match flags.log_format.or(file.log.format).as_deref() {
        None | Some("text") => false,
        Some("json") => true,
        Some(other) => return Err(value("--log-format", other, "expected text or json")),
    };

    let mut labels = worker.labels;
    for label in &flags.oci_worker_labels {
        let (key, text) =
            label.split_once('=').ok_or_else(|| value("--oci-worker-labels", label, "expected KEY=VALUE"))?;
        labels.insert(key.to_owned(), text.to_owned());
    }

    let mut gc_limits = SpaceLimits {
        reserved: worker.reserved_space.or(worker.gckeepstorage),
        max_used: worker.max_used_space,
        min_free: worker.min_free_space,
    };
    if let Some(text) = &flags.oci_worker_gc_keepstorage {
        gc_limits = keep_storage(text)?;
    }
    let gc = flags.oci_worker_gc.or(worker.gc).unwrap_or(true).then_some(worker.gcpolicy);
    let max_parallelism = match flags.oci_max_parallelism.as_deref() {
        None => worker.max_parallelism.filter(|count| *count > 0),
        Some("num-cpu") => Some(around.cpus.max(1)),
        Some(text) => match text.parse::<usize>() {
            Ok(0) => None,
            Ok(count) => Some(count),
            Err(_) => return Err(value("--oci-max-parallelism", text, "expected a number or num-cpu")),
        },
    };

    let tls_cert = flags.tlscert.or(file.grpc.tls.cert);
    let tls_key = flags.tlskey.or(file.grpc.tls.key);
    let client_ca = flags.tlscacert.or(file.grpc.tls.ca);
    let tls = match (tls_cert, tls_key) {
        (Some(cert), Some(key)) => Some(TlsFiles { cert, key, client_ca }),
        (None, None) => None,
        _ => return Err(Error::HalfTls),
    };

    let enabled = |name: &str| file.frontend.get(name).and_then(|frontend| frontend.enabled).unwrap_or(true);
    Ok(Settings {
        root,
        addresses,
        socket_group: flags.group.or(file.grpc.gid.map(|gid| gid.to_string())),
        socket_uid: file.grpc.uid,
        tls,
        log_level,
        log_json,
        entitlements: if flags.allow_insecure_entitlement.is_empty() {
            file.insecure_entitlements
        } else {
            flags.allow_insecure_entitlement
        },
        otel_socket: flags
            .otel_socket_path
            .or(file.otel.socket_path)
            .filter(|path| !path.as_os_str().is_empty()),
        labels,
        platforms: if flags.oci_worker_platform.is_empty() {
            worker.platforms
        } else {
            flags.oci_worker_platform
        },
        runtime: flags
            .oci_worker_binary
            .or(worker.binary.map(|path| path.display().to_string()))
            .unwrap_or_else(|| "embedded".to_owned()),
        native_snapshots,
        network,
        gc,
        gc_limits,
        max_parallelism,
        cgroup_parent: worker.default_cgroup_parent.unwrap_or_default(),
        dockerfile_frontend: enabled("dockerfile.v0"),
        gateway_frontend: enabled("gateway.v0"),
        frontend_repositories: file
            .frontend
            .get("gateway.v0")
            .map(|frontend| frontend.allowed_repositories.clone())
            .unwrap_or_default(),
        registries: file.registry,
        registry_concurrency: file.system.max_registry_concurrency.filter(|count| *count > 0).unwrap_or(4),
        dns: file.dns,
        history: HistoryLimits {
            max_age: file.history.max_age.map_or(Duration::from_secs(48 * 3600), |span| span.0),
            max_entries: file.history.max_entries.and_then(|count| usize::try_from(count).ok()).unwrap_or(50),
        },
        provenance_env: match file.provenance_env_dir.or_else(|| default_provenance_env(around)) {
            Some(folder) => provenance::load(&folder)?,
            None => BTreeMap::new(),
        },
        idle_timeout: flags.idle_timeout.map(|Span(span)| span),
        ready_fd: flags.ready_fd,
    })
}

/// The rules of garbage collection in bytes, for a disk of this size. Without rules of one's own these are BuildKit's four:
/// contexts, cache mounts and git checkouts first, then what was not used for 60 days, then the limits alone, then the same for
/// everything.
pub fn gc_policies(rules: &[GcRule], limits: SpaceLimits, disk_bytes: u64) -> Vec<GcPolicy> {
    let bytes = |space: Option<DiskSpace>| space.map_or(0, |space| space.bytes(disk_bytes));
    if !rules.is_empty() {
        return rules
            .iter()
            .map(|rule| GcPolicy {
                all: rule.all,
                filters: rule.filters.clone(),
                keep_duration: rule.keep_duration.map_or(Duration::ZERO, |span| span.0),
                reserved_space: bytes(rule.reserved_space.or(rule.keep_bytes)),
                max_used_space: bytes(rule.max_used_space),
                min_free_space: bytes(rule.min_free_space),
            })
            .collect();
    }
    const GIGABYTE: u64 = 1_000_000_000;
    let reserved =
        limits.reserved.map_or((disk_bytes / 10).min(10 * GIGABYTE), |space| space.bytes(disk_bytes));
    let max_used =
        limits.max_used.map_or((disk_bytes / 10 * 8).min(100 * GIGABYTE), |space| space.bytes(disk_bytes));
    let min_free = limits.min_free.map_or(disk_bytes / 5, |space| space.bytes(disk_bytes));
    let limited = GcPolicy {
        reserved_space: reserved,
        max_used_space: max_used,
        min_free_space: min_free,
        ..GcPolicy::default()
    };
    let short_lived = "type==source.local,type==exec.cachemount,type==source.git.checkout";
    vec![
        GcPolicy {
            filters: vec![short_lived.to_owned()],
            keep_duration: Duration::from_secs(48 * 3600),
            max_used_space: 512 * MEGABYTE,
            ..GcPolicy::default()
        },
        GcPolicy { keep_duration: Duration::from_secs(60 * 24 * 3600), ..limited.clone() },
        limited.clone(),
        GcPolicy { all: true, ..limited },
    ]
}

fn value(flag: &'static str, value: &str, expected: &'static str) -> Error {
    Error::Value { flag, value: value.to_owned(), expected }
}

fn switched_on(
    flag: &'static str,
    given: Option<&str>,
    taken: &[&str],
    expected: &'static str,
) -> Result<(), Error> {
    match given {
        Some(text) if !taken.contains(&text) => Err(value(flag, text, expected)),
        _ => Ok(()),
    }
}

/// `RESERVED[,FREE[,MAXIMUM]]` in MB.
fn keep_storage(text: &str) -> Result<SpaceLimits, Error> {
    let wrong = || value("--oci-worker-gc-keepstorage", text, "expected RESERVED[,FREE[,MAXIMUM]] in MB");
    let mut parts = [None; 3];
    let given: Vec<&str> = text.split(',').collect();
    if given.len() > parts.len() {
        return Err(wrong());
    }
    for (part, text) in parts.iter_mut().zip(given) {
        *part = Some(if text.ends_with('%') {
            DiskSpace::parse(text).map_err(|_| wrong())?
        } else {
            DiskSpace::Bytes(text.trim().parse::<u64>().map_err(|_| wrong())?.saturating_mul(MEGABYTE))
        });
    }
    Ok(SpaceLimits { reserved: parts[0], min_free: parts[1], max_used: parts[2] })
}

fn parse_address(text: &str) -> Result<Address, Error> {
    match text.split_once("://") {
        Some(("unix", path)) if !path.is_empty() => Ok(Address::Unix(PathBuf::from(path))),
        Some(("tcp", address)) if address.contains(':') => Ok(Address::Tcp(address.to_owned())),
        Some(("fd", _)) => Ok(Address::Fd),
        _ => Err(Error::Address(text.to_owned())),
    }
}

/// Where a configuration may be, the user's before the machine's.
fn default_config(around: &Surroundings) -> Option<PathBuf> {
    config_files(around).find(|path| path.exists())
}

/// The folder beside where the configuration file is or would be.
fn default_provenance_env(around: &Surroundings) -> Option<PathBuf> {
    config_files(around).map(|path| path.with_file_name("provenance.d")).find(|path| path.exists())
}

/// Where a configuration file may be, the user's own first.
fn config_files(around: &Surroundings) -> impl Iterator<Item = PathBuf> {
    let system = [PathBuf::from("/etc/kiln/kilnd.toml"), PathBuf::from("/etc/buildkit/buildkitd.toml")];
    let config_home =
        around.xdg_config_home.clone().or_else(|| around.home.as_ref().map(|home| home.join(".config")));
    let (user, skipped) = if is_drop_in(around) {
        (config_home.filter(|_| !around.host_root).map(|folder| folder.join("buildkit/buildkitd.toml")), 1)
    } else {
        (config_home.map(|folder| folder.join("kiln/kilnd.toml")), 0)
    };
    user.into_iter().chain(system.into_iter().skip(skipped))
}

/// Started under the original's name, the daemon keeps to the original's places.
fn is_drop_in(around: &Surroundings) -> bool {
    around.program == "buildkitd"
}

fn default_root(around: &Surroundings) -> Result<PathBuf, Error> {
    let name = if is_drop_in(around) { "buildkit" } else { "kiln" };
    if around.host_root && (is_drop_in(around) || around.xdg_data_home.is_none()) {
        return Ok(Path::new("/var/lib").join(name));
    }
    let data_home = around
        .xdg_data_home
        .clone()
        .or_else(|| around.home.as_ref().map(|home| home.join(".local/share")))
        .ok_or(Error::NoHome)?;
    Ok(data_home.join(name))
}

fn default_socket(around: &Surroundings) -> Result<PathBuf, Error> {
    let name = if is_drop_in(around) { "buildkit/buildkitd.sock" } else { "kiln/kilnd.sock" };
    if around.host_root && (is_drop_in(around) || around.xdg_runtime_dir.is_none()) {
        return Ok(Path::new("/run").join(name));
    }
    around.xdg_runtime_dir.as_ref().map(|folder| folder.join(name)).ok_or(Error::NoHome)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    fn settled(arguments: &[&str]) -> Result<Settings, Error> {
        let around = Surroundings {
            program: "kilnd".to_owned(),
            home: Some(PathBuf::from("/home/someone")),
            xdg_runtime_dir: Some(PathBuf::from("/run/user/1000")),
            cpus: 2,
            ..Surroundings::default()
        };
        resolve(Flags::try_parse_from([&["kilnd"], arguments].concat()).unwrap(), &around)
    }

    #[test]
    fn a_plain_user_gets_places_of_their_own() {
        let settings = settled(&[]).unwrap();
        assert_eq!(settings.root, Path::new("/home/someone/.local/share/kiln"));
        assert_eq!(settings.addresses, [Address::Unix(PathBuf::from("/run/user/1000/kiln/kilnd.sock"))]);
        assert!(settings.gc.is_some());
    }

    #[test]
    fn flags_win_over_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c.toml");
        std::fs::write(&path, "root = \"/a\"\n[worker.oci]\ngc = true\nmax-parallelism = 7\n").unwrap();
        let config = format!("--config={}", path.display());
        let settings =
            settled(&[&config, "--root=/b", "--oci-worker-gc=false", "--oci-max-parallelism=num-cpu"])
                .unwrap();
        assert_eq!(settings.root, Path::new("/b"));
        assert!(settings.gc.is_none());
        assert_eq!(settings.max_parallelism, Some(2));
        assert_eq!(settled(&[&config]).unwrap().max_parallelism, Some(7));
    }

    #[test]
    fn what_kilnd_does_not_have_is_refused() {
        for flags in [
            ["--containerd-worker=true"],
            ["--oci-worker=false"],
            ["--oci-worker-net=cni"],
            ["--addr=npipe://x"],
        ] {
            let error = settled(&flags).unwrap_err().to_string();
            assert!(error.contains("expected") || error.contains("kilnd has"), "{error}");
        }
    }

    #[test]
    fn default_rules_follow_the_disk() {
        let rules = gc_policies(&[], SpaceLimits::default(), 1_000_000_000_000);
        assert_eq!(rules.len(), 4);
        assert_eq!(rules[2].reserved_space, 10_000_000_000);
        assert_eq!(rules[2].max_used_space, 100_000_000_000);
        assert!(rules[3].all);
        let own = [GcRule { keep_duration: Some(Span(Duration::from_secs(5))), ..GcRule::default() }];
        assert_eq!(gc_policies(&own, SpaceLimits::default(), 1)[0].keep_duration, Duration::from_secs(5));
    }
}
