//! What a worker is made with, and what it says about itself.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use kiln_exec::Executor;
use kiln_oci::Platform;
use kiln_registry::Registry;
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
    pub platforms: Vec<Platform>,
    pub store: Store,
    pub executor: Executor,
    pub sessions: SessionManager,
    pub registry: Registry,
    /// TLS for sources over HTTP.
    pub tls: rustls::ClientConfig,
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
    pub platforms: Vec<Platform>,
}

pub(crate) struct Settings {
    pub info: WorkerInfo,
    pub step_log: StepLogLimits,
    pub git: Option<Arc<GitSettings>>,
}
