//! Errors of this crate.

use std::path::PathBuf;

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
    #[error("container {id} not found")]
    ContainerNotFound { id: String },
    #[error("container {id} has stopped")]
    ContainerStopped { id: String },
    #[error("cannot {what} `{path}`")]
    Path {
        what: &'static str,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("not implemented")]
    Unfinished,
}

impl Error {
    /// Exit code for `ExitError` messages: the process's own, or 4294967295 (BuildKit's "unknown") when it never ran.
    pub fn exit_code(&self) -> u32 {
        match self {
            Self::Exit { code } | Self::OutOfMemory { code } | Self::Cancelled { code } => *code,
            _ => u32::MAX,
        }
    }
}
