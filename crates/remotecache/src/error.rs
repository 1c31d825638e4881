//! What can go wrong with a cache.

type Cause = Box<dyn std::error::Error + Send + Sync>;

/// A cache's error.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CacheError {
    /// A kind of cache that does not exist.
    #[error("{direction} cache {kind:?} is unknown")]
    Unknown {
        /// `importing` or `exporting`.
        direction: &'static str,
        /// The kind.
        kind: String,
    },
    /// A kind of cache that is not there yet.
    #[error("{direction} cache type={kind} is not supported yet: use registry, local or inline")]
    Unsupported {
        /// `importing` or `exporting`.
        direction: &'static str,
        /// The kind.
        kind: String,
    },
    /// An option that is missing or wrong.
    #[error("{0}")]
    Option(String),
    /// A document that is none.
    #[error("malformed cache config: {0}")]
    Malformed(#[from] serde_json::Error),
    /// A document whose parts do not fit together.
    #[error("{0}")]
    Invalid(String),
    /// A manifest which is no cache's.
    #[error("invalid cache manifest: {0}")]
    Manifest(String),
    /// A registry does not do what it should.
    #[error(transparent)]
    Registry(#[from] Box<kiln_registry::RegistryError>),
    /// The client does not do what it should.
    #[error(transparent)]
    Session(#[from] kiln_session::daemon::Error),
    /// Something below failed.
    #[error("{what}: {source}")]
    Failed {
        /// What was tried.
        what: String,
        /// Why.
        source: Cause,
    },
}

impl CacheError {
    pub(crate) fn failed(what: impl Into<String>, source: impl Into<Cause>) -> Self {
        Self::Failed { what: what.into(), source: source.into() }
    }
}
