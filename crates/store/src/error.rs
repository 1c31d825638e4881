//! What can go wrong with the store.

use std::path::{Path, PathBuf};

use kiln_oci::Digest;

use crate::id::{LayerId, RefId};
use crate::layers::BoxError;

/// Shorthand for this crate's results.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of the store.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file call failed.
    #[error("failed to {what} `{}`", path.display())]
    Io {
        /// The verb.
        what: &'static str,
        /// The path on the host.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Another process has the state directory.
    #[error("state directory `{}` is in use by another process", path.display())]
    Locked {
        /// The state directory.
        path: PathBuf,
    },
    /// The state directory was written by a newer version.
    #[error("state directory `{}` has format {found}, this program knows up to {known}", path.display())]
    Newer {
        /// The state directory.
        path: PathBuf,
        /// Its format.
        found: i64,
        /// The newest known.
        known: i64,
    },
    /// The database failed.
    #[error("failed to {what} in the state database")]
    Database {
        /// What was tried.
        what: &'static str,
        /// Why.
        #[source]
        source: rusqlite::Error,
    },
    /// A layer could not be unpacked or written.
    #[error("layer {layer}")]
    Layer {
        /// Which, by id or digest.
        layer: String,
        /// Why.
        #[source]
        source: kiln_layer::Error,
    },
    /// No such blob.
    #[error("blob {0} not found")]
    BlobNotFound(Digest),
    /// No such layer.
    #[error("layer {0} not found")]
    LayerNotFound(LayerId),
    /// No such ref.
    #[error("ref {0} not found")]
    RefNotFound(RefId),
    /// Bytes are not those that their digest promises.
    #[error("digest mismatch: expected {expected}, got {actual}")]
    DigestMismatch {
        /// What was asked for.
        expected: Digest,
        /// What came.
        actual: Digest,
    },
    /// Content of another length than promised.
    #[error("size mismatch of {digest}: expected {expected} bytes, got {actual}")]
    SizeMismatch {
        /// Of what.
        digest: Digest,
        /// What was promised.
        expected: u64,
        /// What came.
        actual: u64,
    },
    /// The layer has to be unpacked first.
    #[error("layer {0} is not unpacked")]
    NotUnpacked(LayerId),
    /// The bytes of a lazy layer are to be had from nobody.
    #[error("missing provider for lazy layer {digest}")]
    NoProvider {
        /// The blob that is missing.
        digest: Digest,
    },
    /// A provider failed.
    #[error("failed to fetch {digest}")]
    Fetch {
        /// What was fetched.
        digest: Digest,
        /// Why.
        #[source]
        source: BoxError,
    },
    /// A mount failed.
    #[error("failed to mount {what}")]
    Mount {
        /// What.
        what: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The image layout's index is damaged.
    #[error("image index `{}` is damaged", path.display())]
    ImageIndex {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// No such image.
    #[error("image `{0}` not found")]
    ImageNotFound(String),
    /// A filter of `du` or `prune` that makes no sense.
    #[error("failed to parse filter `{filter}`: {reason}")]
    Filter {
        /// The filter.
        filter: String,
        /// What is wrong.
        reason: String,
    },
    /// Shared work failed for another who wanted it too.
    #[error(transparent)]
    Shared(std::sync::Arc<Error>),
    /// A background job died.
    #[error("a job of the store died")]
    Died,
}

impl Error {
    /// Whether the bytes of a blob are not to be had, or not the right ones, wherever they were asked for.
    pub fn is_lost_blob(&self) -> bool {
        match self {
            Self::Fetch { .. }
            | Self::NoProvider { .. }
            | Self::DigestMismatch { .. }
            | Self::SizeMismatch { .. } => true,
            Self::Layer { source, .. } => source.is_bad_data(),
            Self::Shared(error) => error.is_lost_blob(),
            _ => false,
        }
    }

    pub(crate) fn io<E: Into<std::io::Error>>(
        what: &'static str,
        path: impl AsRef<Path>,
    ) -> impl FnOnce(E) -> Self {
        move |source| Self::Io { what, path: path.as_ref().to_owned(), source: source.into() }
    }

    pub(crate) fn db(what: &'static str) -> impl FnOnce(rusqlite::Error) -> Self {
        move |source| Self::Database { what, source }
    }

    pub(crate) fn layer(layer: impl ToString) -> impl FnOnce(kiln_layer::Error) -> Self {
        let layer = layer.to_string();
        move |source| Self::Layer { layer, source }
    }

    /// What to try next, where there is something.
    pub fn hint(&self) -> Option<&'static str> {
        if let Self::Shared(error) = self {
            return error.hint();
        }
        if self.is_no_space() {
            return Some(
                "the disk that holds the state directory is full: remove unused cache with `kiln prune`",
            );
        }
        if self.is_read_only() {
            return Some("the state directory must be on a file system that can be written to");
        }
        match self {
            Self::Locked { .. } => Some("end the other daemon, or choose another state directory"),
            Self::Newer { .. } => Some("use the newer program, or remove the state directory"),
            Self::ImageIndex { .. } => {
                Some("repair or remove the file; images can be loaded or pulled again")
            }
            _ => None,
        }
    }

    /// Whether the disk is full.
    pub fn is_no_space(&self) -> bool {
        match self {
            Self::Io { source, .. } | Self::Mount { source, .. } => {
                matches!(source.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)
            }
            Self::Database { source, .. } => {
                source.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull)
            }
            Self::Layer { source, .. } => source.is_no_space(),
            Self::Shared(error) => error.is_no_space(),
            _ => false,
        }
    }

    /// Whether the file system cannot be written to.
    pub fn is_read_only(&self) -> bool {
        match self {
            Self::Io { source, .. } => source.kind() == std::io::ErrorKind::ReadOnlyFilesystem,
            Self::Database { source, .. } => {
                source.sqlite_error_code() == Some(rusqlite::ErrorCode::ReadOnly)
            }
            Self::Shared(error) => error.is_read_only(),
            _ => false,
        }
    }

    /// Whether something is simply not there.
    pub fn is_not_found(&self) -> bool {
        match self {
            Self::BlobNotFound(_)
            | Self::LayerNotFound(_)
            | Self::RefNotFound(_)
            | Self::ImageNotFound(_) => true,
            Self::Shared(error) => error.is_not_found(),
            _ => false,
        }
    }
}
