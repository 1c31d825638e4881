//! Errors of file actions, with BuildKit's texts.

use super::chmod::ModeSyntax;
use crate::error::PathError;

/// Why a file action failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    #[error(transparent)]
    Path(#[from] PathError),
    #[error(transparent)]
    Layer(#[from] kiln_layer::Error),
    /// A wildcard that matches nothing.
    #[error("{path} not found")]
    NoMatch { path: String },
    #[error("failed to stat {path}")]
    Stat {
        path: String,
        #[source]
        source: PathError,
    },
    #[error("cannot copy to non-directory: {path}")]
    NonDirectory { path: String },
    #[error("cannot replace to directory {path} with file")]
    ReplacesDirectory { path: String },
    #[error("{path}: too many links")]
    TooManyLinks { path: String },
    #[error("rmPath: invalid empty path")]
    RemovesRoot,
    #[error("symlink {target} {path}: {}", crate::error::errno_text(*errno))]
    Symlink { target: String, path: String, errno: rustix::io::Errno },
    #[error(transparent)]
    Mode(#[from] ModeSyntax),
    #[error("invalid {list}patterns: [{patterns}]")]
    Patterns {
        list: &'static str,
        patterns: String,
        #[source]
        source: kiln_session::patterns::PatternError,
    },
    #[error("{path:?} exceeds {limit} bytes")]
    UserFileSize { path: &'static str, limit: u64 },
    #[error("{path} is not a regular file")]
    NotRegular { path: String },
    #[error("invalid missing {what} mount")]
    NoUserDatabase { what: &'static str },
    #[error("{0}")]
    Invalid(String),
    #[error("failed to unpack {path}")]
    Unpack {
        path: String,
        #[source]
        source: std::io::Error,
    },
    #[error("context canceled")]
    Cancelled,
    /// An action of several failed.
    #[error("{source}")]
    Action {
        /// Which, counted from 0: clients show the source line that belongs to it.
        index: usize,
        source: Box<FileError>,
    },
}
