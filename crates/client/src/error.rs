//! Why a call failed.

/// Errors of this crate. Display leaves the cause out; walk `source` for it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("no builder answers at `{address}`")]
    Connect { address: String, source: Box<dyn std::error::Error + Send + Sync> },
    #[error("the builder at `{address}` does not answer")]
    TimedOut { address: String },
    #[error("the TLS file `{}` cannot be used", path.display())]
    TlsFile { path: std::path::PathBuf, source: Box<dyn std::error::Error + Send + Sync> },
    #[error("the TLS certificates cannot be used")]
    Tls(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("`{0}` is no build reference")]
    BuildId(String),
    /// What the daemon answered.
    #[error("{}", .0.message())]
    Status(#[from] Box<tonic::Status>),
}

impl From<tonic::Status> for Error {
    fn from(status: tonic::Status) -> Error {
        Error::Status(Box::new(status))
    }
}

impl Error {
    /// The daemon's answer, when it was one.
    pub fn status(&self) -> Option<&tonic::Status> {
        match self {
            Error::Status(status) => Some(status),
            _ => None,
        }
    }

    /// Whether the daemon could not be reached, or was lost on the way.
    pub fn is_unreachable(&self) -> bool {
        match self {
            Error::Connect { .. } | Error::TimedOut { .. } => true,
            Error::Status(status) => status.code() == tonic::Code::Unavailable,
            _ => false,
        }
    }
}
