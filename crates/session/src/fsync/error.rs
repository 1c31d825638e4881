//! What can go wrong in a transfer of files.

use std::io;

/// Why files were not transferred. Display leaves the cause out.
#[derive(Debug, thiserror::Error)]
pub enum SyncError {
    /// The call broke.
    #[error("{}", .0.message())]
    Call(#[source] Box<tonic::Status>),
    /// The peer broke the rules of the protocol.
    #[error("{0}")]
    Protocol(String),
    /// The transfer failed at the other end.
    #[error("error from {peer}: {message}")]
    Peer {
        /// `sender` or `receiver`.
        peer: &'static str,
        /// Its own words.
        message: String,
    },
    /// A file could not be read or written at this end.
    #[error("{action} {path}")]
    File {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: String,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// Patterns that are none.
    #[error("invalid {field}: {patterns:?}")]
    Patterns {
        /// Which list.
        field: &'static str,
        /// The list.
        patterns: Vec<String>,
        /// What is wrong.
        #[source]
        source: crate::patterns::PatternError,
    },
    /// A header cannot carry a value.
    #[error("invalid value for header {key}")]
    Header {
        /// The header.
        key: String,
    },
    /// More than this program is willing to take.
    #[error("{what} exceed the limit of {limit}")]
    Limit {
        /// What.
        what: &'static str,
        /// How much at most.
        limit: u64,
    },
    /// A source or sink of another crate failed.
    #[error("{0}")]
    Other(String, #[source] Box<dyn std::error::Error + Send + Sync>),
}

impl SyncError {
    pub(crate) fn protocol(text: impl Into<String>) -> Self {
        Self::Protocol(text.into())
    }

    /// The error with its causes, as one line for the peer.
    pub(crate) fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            let line = match error.downcast_ref::<Box<tonic::Status>>() {
                // Its own text repeats the message beside the name of its code.
                Some(status) => status.message().to_owned(),
                None => error.to_string(),
            };
            if !text.ends_with(&line) {
                text = format!("{text}: {line}");
            }
            cause = error.source();
        }
        text
    }
}

impl From<tonic::Status> for SyncError {
    fn from(status: tonic::Status) -> Self {
        Self::Call(Box::new(status))
    }
}

/// For a server: what its client is told.
impl From<SyncError> for tonic::Status {
    fn from(error: SyncError) -> Self {
        match error {
            SyncError::Call(status) => *status,
            SyncError::Protocol(_) | SyncError::Patterns { .. } | SyncError::Header { .. } => {
                Self::invalid_argument(error.chain())
            }
            SyncError::Limit { .. } => Self::resource_exhausted(error.to_string()),
            SyncError::Peer { .. } | SyncError::File { .. } | SyncError::Other(..) => {
                Self::unknown(error.chain())
            }
        }
    }
}
