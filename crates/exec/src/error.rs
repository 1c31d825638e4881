//! Errors of this crate.

use std::io;
use std::path::PathBuf;

use crate::mount::MountError;
use crate::user::UserError;

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a step did not run or did not succeed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The process ended with a code that is not among the valid ones.
    #[error("exit code: {code}")]
    Exit { code: u32 },
    /// The process was killed because its cgroup ran out of memory.
    #[error("cannot allocate memory")]
    OutOfMemory { code: u32 },
    /// The step was cancelled.
    #[error("exit code: {code}: context canceled")]
    Cancelled { code: u32 },
    #[error("container id must not be empty")]
    EmptyContainerId,
    #[error("invalid container id {id:?}: only letters and numbers are allowed")]
    InvalidContainerId { id: String },
    #[error("container {id} exists already")]
    ContainerExists { id: String },
    #[error("container {id} not found")]
    ContainerNotFound { id: String },
    #[error("container {id} has stopped")]
    ContainerStopped { id: String },
    #[error("process has no arguments")]
    NoArguments,
    #[error("unknown ulimit `{name}`")]
    UnknownUlimit { name: String },
    #[error("{dest:?} cannot be mounted because it is inside /proc")]
    MountInsideProc { dest: String },
    #[error(transparent)]
    User(#[from] UserError),
    /// A mount of the step could not be prepared.
    #[error("failed to mount {dest}")]
    Mount {
        dest: String,
        #[source]
        source: MountError,
    },
    #[error("failed to create working directory {path}")]
    Cwd {
        path: String,
        #[source]
        source: io::Error,
    },
    /// A call failed inside the step's new namespaces, before its process ran.
    #[error("cannot set up the step: {what}: {source}")]
    Setup { what: String, source: io::Error },
    #[error("cannot set up the step's cgroup `{path}`")]
    Cgroup {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cgroup controller `{controller}` is needed for a limit of this step but not available")]
    NoController { controller: &'static str },
    #[error("cannot set up the step's network: {what}")]
    Network {
        what: String,
        #[source]
        source: io::Error,
    },
    #[error("network mode `bridge` is not available in this build; use `host`, `none` or `auto`")]
    NoBridge,
    /// Neither this machine nor an emulator runs the platform.
    #[error("cannot run {wanted}: emulator `{emulator}` not found; platforms that can be built: {available}")]
    NoEmulator { wanted: String, emulator: String, available: String },
    #[error("no support for running processes with {wanted} platform, supported: {available}")]
    NoVariant { wanted: String, available: String },
    #[error("cannot {what} `{path}`")]
    Path {
        what: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot {what}")]
    Io {
        what: &'static str,
        #[source]
        source: io::Error,
    },
    /// The helper process of the embedded runtime is gone.
    #[error("the embedded runtime's helper process ended unexpectedly")]
    HelperGone,
    /// `crun` or `runc` reported an error of its own.
    #[error("{program}: {message}")]
    Runtime { program: String, message: String },
    #[error("cannot make a runtime spec of the step")]
    Spec(#[from] oci_spec::OciSpecError),
}

impl Error {
    /// Exit code for `ExitError` messages: the process's own, or 4294967295 (BuildKit's "unknown") when it never ran.
    pub fn exit_code(&self) -> u32 {
        match self {
            Self::Exit { code } | Self::OutOfMemory { code } | Self::Cancelled { code } => *code,
            _ => u32::MAX,
        }
    }

    /// What the person at the keyboard can do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NoEmulator { .. } => {
                Some("install the package `qemu-user-static`, or build for another platform")
            }
            Self::NoController { .. } => {
                Some("delegate the controller to the daemon, or leave the limit out")
            }
            _ => None,
        }
    }
}

/// For `map_err`: a failed call on a path.
pub(crate) fn at(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Error {
    let path = path.into();
    move |source| Error::Path { what, path, source }
}
