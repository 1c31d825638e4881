//! What can go wrong with a layer's archive or directory.

use std::path::{Path, PathBuf};

use kiln_oci::Digest;

/// Shorthand for this crate's results.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of this crate. Paths are those inside the layer unless a variant says otherwise.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file call failed.
    #[error("failed to {what} `{}`", path.display())]
    Io {
        /// The verb: "create", "read", ….
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The stream that carries the archive failed.
    #[error("failed to read layer archive")]
    Read(#[source] std::io::Error),
    /// The stream that takes the archive failed.
    #[error("failed to write layer archive")]
    Write(#[source] std::io::Error),
    /// The compressed stream is damaged.
    #[error("failed to decompress {compression} layer")]
    Decompress {
        /// What it claimed to be.
        compression: kiln_oci::Compression,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The bytes are no tar archive, or a damaged one.
    #[error("invalid layer archive at byte {offset}: {reason}")]
    Archive {
        /// Where in the plain archive.
        offset: u64,
        /// What is wrong.
        reason: String,
    },
    /// An entry that an honest archive does not have.
    #[error("invalid entry `{}` in layer archive: {reason}", path.display())]
    Entry {
        /// The entry's name.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The plain archive is larger than allowed.
    #[error("layer archive expands to more than the limit of {limit} bytes")]
    TooLarge {
        /// The limit in bytes.
        limit: u64,
    },
    /// The bytes are not those that were asked for.
    #[error("{what} digest mismatch: expected {expected}, got {actual}")]
    DigestMismatch {
        /// "layer" or "uncompressed layer".
        what: &'static str,
        /// What was asked for.
        expected: Digest,
        /// What came.
        actual: Digest,
    },
    /// A layer directory uses an overlayfs feature that cannot be archived.
    #[error("`{}` uses overlayfs redirects, which layers cannot carry", path.display())]
    Redirect {
        /// The directory.
        path: PathBuf,
    },
    /// A path leaves its root or runs in circles.
    #[error("`{}` cannot be resolved inside its root: {reason}", path.display())]
    Resolve {
        /// The path.
        path: PathBuf,
        /// Why.
        reason: &'static str,
    },
    /// What the caller asks for is not there yet.
    #[error("{0} is not supported")]
    Unsupported(&'static str),
    /// Someone asked this work to stop.
    #[error("canceled")]
    Canceled,
}

impl Error {
    /// An [`Error::Io`] maker for `map_err`.
    pub(crate) fn io<E: Into<std::io::Error>>(
        what: &'static str,
        path: impl AsRef<Path>,
    ) -> impl FnOnce(E) -> Self {
        move |source| Self::Io { what, path: path.as_ref().to_owned(), source: source.into() }
    }

    /// An [`Error::Entry`].
    pub(crate) fn entry(path: impl AsRef<Path>, reason: &'static str) -> Self {
        Self::Entry { path: path.as_ref().to_owned(), reason }
    }

    /// Whether the fault lies in the bytes received (so that fetching again from elsewhere may help).
    pub fn is_bad_data(&self) -> bool {
        matches!(
            self,
            Self::Decompress { .. }
                | Self::Archive { .. }
                | Self::Entry { .. }
                | Self::TooLarge { .. }
                | Self::DigestMismatch { .. }
        )
    }

    /// Whether the disk is full or a quota exceeded.
    pub fn is_no_space(&self) -> bool {
        let (Self::Io { source, .. } | Self::Write(source)) = self else { return false };
        matches!(source.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)
    }
}
