//! What the services share: the store, the worker, the solver, the sessions, the builds that run.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use kiln_exec::network::{Mode, Providers};
use kiln_exec::userns::Mapping;
use kiln_exec::{Dns, Executor, ExecutorConfig, Runtime};
use kiln_frontend::gateway::Gateway;
use kiln_frontend::gateway::image::AllowedImages;
use kiln_layer::overlay::{Format, XattrSpace};
use kiln_oci::Platform;
use kiln_registry::{HostSettings, KeyPair, Registry, RegistrySettings};
use kiln_session::daemon::SessionManager;
use kiln_solver::{Solver, SolverOptions};
use kiln_store::{Backend, Store, StoreOptions};
use kiln_worker::{GitSettings, Platforms, VertexOp, Worker, WorkerConfig};

use crate::bridge::{BuildBridge, Frontends, Origins};
use crate::builds::Builds;
use crate::garbage::Garbage;
use crate::history::History;
use crate::idle::Activity;
use crate::settings::{self, GcPolicy, Settings};
use crate::surroundings::StepLogLimits;
use crate::version;

/// Label of workers, `org.mobyproject.buildkit.worker.*`.
const LABEL: &str = "org.mobyproject.buildkit.worker";
/// The daemon's parts.
pub struct Daemon {
    pub settings: Settings,
    pub store: Store,
    pub worker: Worker,
    pub solver: Solver<VertexOp>,
    pub sessions: SessionManager,
    pub registry: Registry,
    pub gateway: Gateway<BuildBridge>,
    pub builds: Arc<Builds>,
    pub history: History,
    pub activity: Activity,
    pub garbage: Garbage,
    /// Images that may be frontends.
    pub allowed_images: AllowedImages,
    /// What made the graphs of the builds that run.
    pub origins: Origins,
}

/// Why a daemon could not be put together.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the state folder `{}` cannot be used", path.display())]
    Store { path: PathBuf, source: kiln_store::Error },
    #[error("steps cannot be run on this machine")]
    Executor(#[source] kiln_exec::Error),
    #[error("registries cannot be reached with these settings")]
    Registry(#[source] kiln_registry::RegistryError),
    #[error("`{0}` is no platform")]
    Platform(String),
    #[error("no OCI runtime `{0}` on PATH")]
    Runtime(String),
    #[error("`{0}` is no address of a name server")]
    NameServer(String),
    #[error("the list of allowed frontend images cannot be read")]
    Frontends(#[source] kiln_frontend::Error),
    #[error("the worker cannot be started")]
    Worker(#[source] kiln_worker::Error),
}

impl Daemon {
    /// Opens the state folder and puts the parts together.
    pub async fn new(
        settings: Settings,
        rootless: Option<Mapping>,
        step_log: StepLogLimits,
    ) -> Result<Daemon, Error> {
        // First: what it looks for is found while the rest goes on.
        let platforms = platforms(&settings)?;
        let store = open_store(&settings, rootless.as_ref())?;
        let registry = Registry::new(registry_settings(&settings)).map_err(Error::Registry)?;
        let executor = Executor::new(executor_config(&settings, rootless)?).await.map_err(Error::Executor)?;
        let sessions = SessionManager::new();
        let allowed = settings.frontend_repositories.iter().map(String::as_str);
        let allowed_images = AllowedImages::new(allowed).map_err(Error::Frontends)?;
        let worker = Worker::new(WorkerConfig {
            id: worker_id(&store),
            labels: labels(&settings, &store),
            platforms,
            store: store.clone(),
            executor,
            sessions: sessions.clone(),
            registry: registry.clone(),
            max_parallelism: settings.max_parallelism,
            step_log: kiln_worker::StepLogLimits {
                size_bytes_max: step_log.size_bytes_max,
                bytes_per_second_max: step_log.bytes_per_second_max,
            },
            work_dir: settings.root.join("work"),
            git: git(),
            tls: kiln_registry::tls_config,
            user_agent: user_agent(),
        })
        .map_err(Error::Worker)?;
        let solver = Solver::new(SolverOptions::new(worker.cache()));
        Ok(Daemon {
            history: History::new(settings.history.max_age, settings.history.max_entries),
            settings,
            store,
            worker,
            solver,
            sessions,
            registry,
            gateway: Gateway::default(),
            builds: Arc::default(),
            activity: Activity::default(),
            garbage: Garbage::default(),
            allowed_images,
            origins: Origins::default(),
        })
    }

    pub fn frontends(&self) -> Frontends {
        Frontends { dockerfile: self.settings.dockerfile_frontend, gateway: self.settings.gateway_frontend }
    }

    /// The rules of garbage collection, in bytes; none when it is off.
    pub fn gc_policies(&self) -> Vec<GcPolicy> {
        let Some(rules) = &self.settings.gc else { return Vec::new() };
        settings::gc_policies(rules, self.settings.gc_limits, disk_bytes(&self.settings.root))
    }
}

/// git, with what it needs of the daemon's environment: its proxies.
fn git() -> Option<GitSettings> {
    let names = ["PATH", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"];
    let env = names.iter().filter_map(|name| Some(((*name).to_owned(), std::env::var(name).ok()?))).collect();
    Some(GitSettings { program: on_path("git")?, env })
}

fn on_path(name: &str) -> Option<PathBuf> {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&folders).map(|folder| folder.join(name)).find(|path| path.is_file())
}

/// Servers that treat BuildKit in a way of its own know it by the first word.
fn user_agent() -> String {
    format!("buildkit/{} kilnd/{}", version::BUILDKIT_VERSION, version::VERSION)
}

fn disk_bytes(path: &std::path::Path) -> u64 {
    rustix::fs::statvfs(path).map_or(0, |disk| disk.f_blocks.saturating_mul(disk.f_frsize))
}

fn open_store(settings: &Settings, rootless: Option<&Mapping>) -> Result<Store, Error> {
    let format = match rootless {
        None => Format::default(),
        Some(mapping) => Format { xattrs: XattrSpace::User, owner_xattr: mapping.is_single_id() },
    };
    let backend = if settings.native_snapshots { Backend::Native } else { Backend::Auto };
    let options = StoreOptions { backend, format, ..StoreOptions::default() };
    Store::open(&settings.root, options)
        .map_err(|source| Error::Store { path: settings.root.clone(), source })
}

fn registry_settings(settings: &Settings) -> RegistrySettings {
    let hosts = settings
        .registries
        .iter()
        .map(|(host, registry)| {
            let settings = HostSettings {
                mirrors: registry.mirrors.clone(),
                plain_http: registry.http,
                insecure: registry.insecure,
                root_cas: registry.ca.clone(),
                key_pairs: registry
                    .keypair
                    .iter()
                    .map(|pair| KeyPair { key: pair.key.clone(), certificate: pair.cert.clone() })
                    .collect(),
                tls_config_dirs: registry.tlsconfigdir.clone(),
            };
            (host.clone(), settings)
        })
        .collect();
    RegistrySettings {
        hosts,
        user_agent: user_agent(),
        connections_per_host: settings.registry_concurrency,
        ..RegistrySettings::default()
    }
}

fn executor_config(settings: &Settings, rootless: Option<Mapping>) -> Result<ExecutorConfig, Error> {
    let sandbox = match settings.network.as_str() {
        "host" => Mode::Host,
        "none" => Mode::None,
        "bridge" => Mode::Bridge,
        _ => Mode::Auto,
    };
    let nameservers = settings
        .dns
        .nameservers
        .iter()
        .map(|server| server.parse::<IpAddr>().map_err(|_| Error::NameServer(server.clone())))
        .collect::<Result<_, _>>()?;
    Ok(ExecutorConfig {
        runtime: runtime(&settings.runtime)?,
        rootless,
        cgroup_parent: settings.cgroup_parent.clone(),
        dns: Dns {
            nameservers,
            options: settings.dns.options.clone(),
            search_domains: settings.dns.search_domains.clone(),
        },
        network: Providers { sandbox },
        ..ExecutorConfig::new(settings.root.join("exec"))
    })
}

fn runtime(name: &str) -> Result<Runtime, Error> {
    if name == "embedded" {
        return Ok(Runtime::Embedded);
    }
    let path = if name.contains('/') { Some(PathBuf::from(name)) } else { on_path(name) };
    let path = path.ok_or_else(|| Error::Runtime(name.to_owned()))?;
    let is_crun = path.file_name().is_some_and(|file| file.to_string_lossy().contains("crun"));
    Ok(if is_crun { Runtime::Crun(path) } else { Runtime::Runc(path) })
}

/// The platforms to offer: those that were configured, or this machine's own and those with an emulator.
fn platforms(settings: &Settings) -> Result<Platforms, Error> {
    if settings.platforms.is_empty() {
        let platforms = Platforms::new(native_and_emulated);
        let found = platforms.clone();
        // Looked for while the rest starts. Who needs them before that waits, or finds them by himself.
        let _ = std::thread::Builder::new().name("kilnd-platforms".into()).spawn(move || _ = found.len());
        return Ok(platforms);
    }
    let parse = |text: &String| Platform::parse(text).map_err(|_| Error::Platform(text.clone()));
    Ok(settings.platforms.iter().map(parse).collect::<Result<Vec<_>, _>>()?.into())
}

fn native_and_emulated() -> Vec<Platform> {
    let mut found = vec![kiln_oci::platform::default_for_host()];
    for emulator in kiln_exec::emulation::supported_platforms(&kiln_exec::emulation::default_dirs()) {
        let arch = emulator.arch;
        let text = if arch.variant.is_empty() {
            format!("linux/{}", arch.architecture)
        } else {
            format!("linux/{}/{}", arch.architecture, arch.variant)
        };
        let platform = Platform::parse(&text).expect("emulators are of architectures that have names");
        if !found.contains(&platform) {
            found.push(platform);
        }
    }
    found
}

fn labels(settings: &Settings, store: &Store) -> BTreeMap<String, String> {
    let hostname = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let snapshotter = if store.uses_overlay() { "overlayfs" } else { "native" };
    let own = [
        ("executor", "oci".to_owned()),
        ("hostname", hostname),
        ("network", if settings.network == "auto" { "host".to_owned() } else { settings.network.clone() }),
        ("oci.process-mode", "sandbox".to_owned()),
        ("selinux.enabled", "false".to_owned()),
        ("snapshotter", snapshotter.to_owned()),
    ];
    let mut labels: BTreeMap<String, String> =
        own.into_iter().map(|(name, value)| (format!("{LABEL}.{name}"), value)).collect();
    labels.extend(settings.labels.clone());
    labels
}

/// An id that stays the same for a state folder.
fn worker_id(store: &Store) -> String {
    let digest = kiln_oci::Digest::sha256_of(format!("worker {}", store.root().display()).as_bytes());
    digest.as_str().rsplit(':').next().unwrap_or_default().chars().take(25).collect()
}
