//! Why a session could not help.

use crate::fsync::SyncError;

/// Display leaves the cause out.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody opened that session in time, or it has ended. The text is BuildKit's.
    #[error("no active session for {id}: context deadline exceeded")]
    NoSession { id: String },
    #[error("the build has no session: nobody can be asked")]
    NoSessions,
    #[error("a session with the id `{0}` is open already")]
    Taken(String),
    #[error("a session needs an id (`x-docker-expose-session-uuid`)")]
    NoId,
    #[error("the client does not answer `{0}`")]
    Unsupported(&'static str),
    #[error("secret {0} not found")]
    SecretNotFound(String),
    #[error("secret {id} has more than {max} bytes")]
    SecretTooLarge { id: String, max: usize },
    #[error("unset ssh forward key {0}")]
    NoAgent(String),
    #[error("cannot make the agent's socket")]
    Socket(#[source] std::io::Error),
    #[error("target already exists")]
    TargetExists,
    /// A transfer of files failed.
    #[error(transparent)]
    Files(Box<SyncError>),
    /// What the client answered.
    #[error("{}", .0.message())]
    Status(#[source] Box<tonic::Status>),
}

impl From<tonic::Status> for Error {
    fn from(status: tonic::Status) -> Error {
        Error::Status(Box::new(status))
    }
}

impl From<SyncError> for Error {
    fn from(error: SyncError) -> Error {
        match error {
            SyncError::Call(status) => Error::Status(status),
            error => Error::Files(Box::new(error)),
        }
    }
}

impl Error {
    /// Whether the client does not have the service at all.
    pub fn is_unsupported(&self) -> bool {
        match self {
            Error::Unsupported(_) => true,
            Error::Status(status) => status.code() == tonic::Code::Unimplemented,
            _ => false,
        }
    }

    /// Whether another session of the same build might do better: this one is gone or does not have the service.
    pub fn is_of_this_session_only(&self) -> bool {
        match self {
            Error::NoSession { .. } | Error::Unsupported(_) => true,
            Error::Status(status) => {
                matches!(
                    status.code(),
                    tonic::Code::Unavailable | tonic::Code::Unimplemented | tonic::Code::Cancelled
                )
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Error;

    #[test]
    fn a_service_that_is_not_there_is_unsupported_whoever_says_so() {
        assert!(Error::Unsupported("/a.B/C").is_unsupported());
        assert!(Error::from(tonic::Status::unimplemented("unknown service")).is_unsupported());
        assert!(!Error::from(tonic::Status::not_found("no")).is_unsupported());
    }
}
