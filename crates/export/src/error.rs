//! What can go wrong while a result is given out. Texts are those that other builders give.

use kiln_oci::{ManifestError, PlatformError, ReferenceError, UnknownCompression};

type Cause = Box<dyn std::error::Error + Send + Sync>;

/// An exporter's error.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExportError {
    /// An exporter that does not exist.
    #[error("exporter {0:?} could not be found")]
    UnknownExporter(String),
    /// An option that is no truth value.
    #[error("non-bool value specified for {key}: strconv.ParseBool: parsing {value:?}: invalid syntax")]
    NotBool {
        /// The option.
        key: String,
        /// Its value.
        value: String,
    },
    /// An option that is no whole number.
    #[error("non-integer value {value} specified for {key}: {reason}")]
    NotInteger {
        /// The option.
        key: String,
        /// Its value.
        value: String,
        /// Why.
        reason: String,
    },
    /// An epoch in an option that is no time.
    #[error("invalid {key}: {reason}")]
    Epoch {
        /// The option.
        key: String,
        /// Why.
        reason: String,
    },
    /// An epoch from a frontend that is no time.
    #[error("invalid SOURCE_DATE_EPOCH from frontend: {value:?}: {reason}")]
    FrontendEpoch {
        /// The value.
        value: String,
        /// Why.
        reason: String,
    },
    /// A compression that does not exist.
    #[error(transparent)]
    Compression(#[from] UnknownCompression),
    /// A compression that is not there yet.
    #[error("compression=estargz is not supported yet: use gzip, zstd or uncompressed")]
    Estargz,
    /// Something that cannot be combined, said in full.
    #[error("{0}")]
    Conflict(String),
    /// An annotation for a thing that has none.
    #[error("unrecognized annotation type {0}")]
    AnnotationType(String),
    /// A platform that is none.
    #[error(transparent)]
    Platform(#[from] PlatformError),
    /// A result that is not well formed.
    #[error("{0}")]
    Result(String),
    /// An image configuration that cannot be used.
    #[error("invalid image config for export{}", Tail(.0))]
    Config(String),
    /// An image configuration that is the word `null`.
    #[error("invalid null image config for export")]
    NullConfig,
    /// A name that is no reference.
    #[error("failed to parse {name}: {source}")]
    Name {
        /// The name.
        name: String,
        /// Why.
        source: ReferenceError,
    },
    /// Why an attestation cannot be attached.
    #[error("{0}")]
    Attestation(String),
    /// A manifest that cannot be read again.
    #[error("malformed manifest {what}")]
    Manifest {
        /// Its digest.
        what: String,
        /// Why.
        #[source]
        source: ManifestError,
    },
    /// A document that could not be written as JSON.
    #[error("failed to marshal {what}")]
    Json {
        /// Which one.
        what: &'static str,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// A registry does not do what it should.
    #[error(transparent)]
    Registry(Box<kiln_registry::RegistryError>),
    /// Something below failed.
    #[error("{what}: {source}")]
    Failed {
        /// What was tried.
        what: String,
        /// Why.
        source: Cause,
    },
}

struct Tail<'a>(&'a str);

impl std::fmt::Display for Tail<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, ": {}", self.0) }
    }
}

impl ExportError {
    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Registry(error) => error.hint(),
            Self::Failed { source, .. } => source.downcast_ref::<Self>().and_then(Self::hint),
            _ => None,
        }
    }

    /// Puts what was tried before an error from below.
    pub fn failed(what: impl Into<String>, source: impl Into<Cause>) -> Self {
        Self::Failed { what: what.into(), source: source.into() }
    }
}
