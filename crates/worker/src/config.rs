//! What a worker is made with, and what it says about itself.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};

use kiln_exec::Executor;
use kiln_oci::Platform;
use kiln_registry::{Registry, RegistryError};
use kiln_session::daemon::SessionManager;
use kiln_store::Store;

use crate::source::GitSettings;
use crate::steplog::StepLogLimits;

/// What a worker is made with.
pub struct WorkerConfig {
    /// Its name; stable across restarts.
    pub id: String,
    /// What clients see of it.
    pub labels: BTreeMap<String, String>,
    /// What steps can run on, this machine's own platform first.
    pub platforms: Platforms,
    pub store: Store,
    pub executor: Executor,
    pub sessions: SessionManager,
    pub registry: Registry,
    /// TLS for sources over HTTP, asked for when there is one.
    pub tls: fn() -> Result<rustls::ClientConfig, RegistryError>,
    /// How clients of sources over HTTP name themselves.
    pub user_agent: String,
    /// Operations that run at once; `None` is no limit.
    pub max_parallelism: Option<usize>,
    pub step_log: StepLogLimits,
    /// `None`: there is no git, and sources that need it fail.
    pub git: Option<GitSettings>,
    /// A private directory for sockets, secrets and the like; emptied when the worker starts.
    pub work_dir: PathBuf,
}

/// What a worker says about itself.
#[derive(Clone, Debug)]
pub struct WorkerInfo {
    pub id: String,
    pub labels: BTreeMap<String, String>,
    pub platforms: Platforms,
}

/// Platforms that are found out when somebody asks for them: trying emulators takes longer than all else of a start.
#[derive(Clone)]
pub struct Platforms(Arc<LazyLock<Vec<Platform>, Find>>);

type Find = Box<dyn FnOnce() -> Vec<Platform> + Send>;

impl Platforms {
    /// What `find` will say; it is called once, by whoever asks first.
    pub fn new(find: impl FnOnce() -> Vec<Platform> + Send + 'static) -> Self {
        Self(Arc::new(LazyLock::new(Box::new(find))))
    }
}

impl From<Vec<Platform>> for Platforms {
    fn from(known: Vec<Platform>) -> Self {
        Self::new(move || known)
    }
}

impl Deref for Platforms {
    type Target = [Platform];

    fn deref(&self) -> &[Platform] {
        &self.0
    }
}

impl std::fmt::Debug for Platforms {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

pub(crate) struct Settings {
    pub info: WorkerInfo,
    pub step_log: StepLogLimits,
    pub git: Option<Arc<GitSettings>>,
}
