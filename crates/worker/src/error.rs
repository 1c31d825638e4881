//! What can go wrong with a vertex. `Display` leaves causes out; printed with its chain of sources, joined by `: `, an
//! error reads as BuildKit's does, which clients and tests match on.

use rustix::io::Errno;

use crate::contenthash::{ContentError, TableError};
use crate::fileop::FileError;
use crate::ops::UnsafeContentCache;
use crate::source::{HttpError, IdentifierError, ImageError, RepositoryError};

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a vertex failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A step's process failed.
    #[error("process {} did not complete successfully", quoted(command))]
    Process {
        /// Its arguments, joined by spaces.
        command: String,
        #[source]
        source: kiln_exec::Error,
    },
    /// A step could not be run.
    #[error(transparent)]
    Exec(#[from] kiln_exec::Error),
    #[error(transparent)]
    File(#[from] FileError),
    /// Content of an input has no digest, mostly because a path is not there.
    #[error("failed to calculate checksum of ref {reference}")]
    Checksum {
        reference: String,
        #[source]
        source: ContentError,
    },
    /// What a layer holds could not be written down.
    #[error(transparent)]
    Table(TableError),
    #[error(transparent)]
    Image(#[from] ImageError),
    #[error(transparent)]
    Git(#[from] RepositoryError),
    #[error(transparent)]
    Http(#[from] HttpError),
    #[error(transparent)]
    Identifier(#[from] IdentifierError),
    #[error(transparent)]
    Path(#[from] PathError),
    #[error(transparent)]
    Llb(#[from] kiln_llb::Error),
    #[error(transparent)]
    ContentCache(#[from] UnsafeContentCache),
    #[error(transparent)]
    Session(#[from] kiln_session::daemon::Error),
    #[error(transparent)]
    Store(#[from] kiln_store::Error),
    #[error(transparent)]
    Layer(#[from] kiln_layer::Error),
    /// Nobody granted it.
    #[error("{0} is not allowed")]
    Entitlement(&'static str),
    /// A source that is denied, or a policy that could not be evaluated.
    #[error("{0}")]
    Policy(Box<dyn std::error::Error + Send + Sync>),
    /// A definition within a definition could not be solved.
    #[error(transparent)]
    Nested(Box<kiln_solver::SolveError<crate::VertexOp>>),
    #[error("failed to {what} `{path}`")]
    Io {
        what: &'static str,
        path: String,
        #[source]
        source: std::io::Error,
    },
    #[error("context canceled")]
    Cancelled,
    /// What BuildKit says in a plain sentence.
    #[error("{0}")]
    Text(String),
}

impl From<TableError> for Error {
    fn from(error: TableError) -> Error {
        match error {
            TableError::Path(error) => Error::Path(error),
            error => Error::Table(error),
        }
    }
}

impl Error {
    pub(crate) fn io(
        what: &'static str,
        path: impl Into<std::path::PathBuf>,
    ) -> impl FnOnce(std::io::Error) -> Error {
        let path = path.into();
        move |source| Error::Io { what, path: path.display().to_string(), source }
    }

    /// Exit code of the process that failed, if that is what happened.
    pub fn exit_code(&self) -> Option<u32> {
        match self {
            Error::Process { source, .. } => Some(source.exit_code()),
            Error::Nested(error) => error.op_error().and_then(Error::exit_code),
            _ => None,
        }
    }

    /// Which action of a file operation failed, if that is what happened.
    pub fn file_action(&self) -> Option<usize> {
        match self {
            Error::File(FileError::Action { index, .. }) => Some(*index),
            _ => None,
        }
    }

    /// Whether all that is wrong is that a file which was asked for is not there.
    pub fn is_missing_path(&self) -> bool {
        matches!(self, Error::Path(error) if error.errno == Errno::NOENT)
    }

    /// What to try next, where there is something.
    pub fn hint(&self) -> Option<String> {
        match self {
            Error::Store(error) => error.hint().map(str::to_owned),
            Error::Image(error) => error.hint(),
            Error::Exec(error) => error.hint().map(str::to_owned),
            Error::Nested(error) => error.op_error().and_then(Error::hint),
            Error::Entitlement(name) => {
                Some(format!("grant it with `--allow {name}`, to the builder and to the build"))
            }
            _ => None,
        }
    }
}

/// A text as Go's `%q` has it.
pub(crate) fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if (c as u32) < 0x20 || c as u32 == 0x7f => out.push_str(&format!("\\x{:02x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// A file call that failed, spelled as Go spells it: `lstat /a: no such file or directory`. The path is the one inside
/// the ref, never the daemon's.
#[derive(Debug, Clone)]
pub struct PathError {
    op: &'static str,
    path: String,
    errno: Errno,
}

impl PathError {
    pub fn new(op: &'static str, path: impl Into<String>, errno: Errno) -> PathError {
        PathError { op, path: path.into(), errno }
    }

    pub fn errno(&self) -> Errno {
        self.errno
    }
}

impl std::fmt::Display for PathError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}: {}", self.op, self.path, errno_text(self.errno))
    }
}

impl std::error::Error for PathError {}

/// The system's words for an error, in lower case and without the number.
pub fn errno_text(errno: Errno) -> String {
    let text = std::io::Error::from(errno).to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut chars = text.chars();
    match chars.next() {
        // Not for texts that begin with an abbreviation.
        Some(first) if chars.as_str().starts_with(char::is_lowercase) => {
            first.to_lowercase().chain(chars).collect()
        }
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_quoted_as_in_go() {
        assert_eq!(quoted("sh -c echo \"a\" \\ \n\u{1}é"), "\"sh -c echo \\\"a\\\" \\\\ \\n\\x01é\"");
    }

    #[test]
    fn path_errors_read_as_in_go() {
        assert_eq!(
            PathError::new("lstat", "/a", Errno::NOENT).to_string(),
            "lstat /a: no such file or directory"
        );
        assert_eq!(PathError::new("mkdir", "/a", Errno::NOTDIR).to_string(), "mkdir /a: not a directory");
    }
}
