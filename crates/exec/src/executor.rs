//! The executor: configuration, start and end of a step.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::network::Providers;
use crate::{Error, ExecProcess, Result, Stdio, Step};

/// Who runs the OCI spec.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Runtime {
    /// This program, executed again (see [`crate::reexec`]).
    #[default]
    Embedded,
    /// `crun` at this path.
    Crun(PathBuf),
    /// `runc`, or a program with its command line, at this path.
    Runc(PathBuf),
}

/// `[dns]` of `buildkitd.toml`; empty fields keep what the host has.
#[derive(Clone, Debug, Default)]
pub struct Dns {
    pub nameservers: Vec<IpAddr>,
    pub options: Vec<String>,
    pub search_domains: Vec<String>,
}

/// Settings of an executor.
#[derive(Clone)]
pub struct ExecutorConfig {
    /// Directory of its own: generated files and bundles. Created when missing; leftovers of a dead daemon are swept.
    pub state_dir: PathBuf,
    pub runtime: Runtime,
    /// The daemon is root of a user namespace only ([`crate::userns`]); `None` means real root.
    pub rootless: Option<crate::userns::Mapping>,
    /// Parent of the steps' cgroups (`/name`, or `x.slice:prefix:` for a manager); empty is the daemon's default.
    pub cgroup_parent: String,
    pub dns: Dns,
    pub network: Providers,
    /// AppArmor profile of the steps; `None` is unconfined.
    pub apparmor_profile: Option<String>,
    pub oom_score_adj: Option<i32>,
    /// Directories searched for emulators (`qemu-aarch64-static`, `buildkit-qemu-aarch64`).
    pub emulator_dirs: Vec<PathBuf>,
}

/// How a process ended, when that counts as success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExitStatus {
    /// Exit code, or 128 + the signal that ended it.
    pub code: u32,
}

/// Runs steps. Cheap to clone.
#[derive(Clone)]
pub struct Executor {
    _config: Arc<ExecutorConfig>,
}

impl Executor {
    /// Prepares the state directory, sweeps what a dead daemon left and starts the embedded runtime.
    pub async fn new(config: ExecutorConfig) -> Result<Self> {
        Ok(Self { _config: Arc::new(config) })
    }

    /// Runs a step to its end. `started` fires when its process has been executed. On cancellation everything in the
    /// step is killed, and the call returns when nothing of it is left.
    ///
    /// # Errors
    /// [`Error::Exit`] for an exit code that is not among the valid ones, [`Error::Cancelled`] after cancellation.
    pub async fn run(
        &self,
        _step: Step,
        _stdio: Stdio,
        _started: Option<oneshot::Sender<()>>,
        _cancel: CancellationToken,
    ) -> Result<ExitStatus> {
        Err(Error::Unfinished)
    }

    /// Runs a further process in the container `id`, waiting for the container to be there if its start is under way.
    pub async fn exec(
        &self,
        _id: &str,
        _process: ExecProcess,
        _stdio: Stdio,
        _cancel: CancellationToken,
    ) -> Result<ExitStatus> {
        Err(Error::Unfinished)
    }
}
