//! What can go wrong between here and a registry.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use kiln_oci::{Digest, ManifestError};

/// What was to be done with a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// Read it.
    Pull,
    /// Read and write it.
    Push,
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pull => "pull",
            Self::Push => "push",
        })
    }
}

/// An error of a registry or on the way there.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The registry has nothing of this name or digest.
    #[error("{0}: not found")]
    NotFound(String),
    /// The registry does not let this user (or nobody in particular) do this.
    #[error("{access} access denied, repository does not exist or may require authorization: {detail}")]
    Denied {
        /// What was tried.
        access: Access,
        /// The registry's host.
        host: String,
        /// Whether a login was sent.
        logged_in: bool,
        /// What the registry said.
        detail: String,
    },
    /// The session that keeps the credentials could not be asked.
    #[error("failed to get credentials for {host}")]
    Credentials {
        /// The registry's host.
        host: String,
        /// Why.
        #[source]
        source: crate::CredentialsError,
    },
    /// The token server of a registry gave no token.
    #[error("failed to authorize: failed to fetch {kind} token: {detail}")]
    Token {
        /// The registry's host.
        host: String,
        /// `oauth` or `anonymous`.
        kind: &'static str,
        /// What the server said.
        detail: String,
        /// Whether it may work the next time.
        transient: bool,
        /// Whether it refused the login.
        refused: bool,
    },
    /// No connection, or one that broke before the answer.
    #[error("failed to do request: {method} \"{url}\": {reason}")]
    Connect {
        /// The request's method as Go writes it, `Head`.
        method: String,
        /// The request's address without its query.
        url: String,
        /// Why, down to the system's own words.
        reason: String,
    },
    /// The connection broke while content arrived.
    #[error("failed to read {digest} from {host}: {reason}")]
    Interrupted {
        /// What was being read.
        digest: Digest,
        /// From where.
        host: String,
        /// Why.
        reason: String,
    },
    /// A status that is no success, and none with a meaning of its own here.
    #[error("unexpected status from {method} request to {url}: {status}{}", Detail(.detail))]
    Status {
        /// The request's method.
        method: String,
        /// The request's address without its query.
        url: String,
        /// The status with its name.
        status: http::StatusCode,
        /// What the registry said about it; may be empty.
        detail: String,
    },
    /// The registry asks to come back later, and that is too long to wait.
    #[error("too many requests to {host}{}", RetryAfter(.retry_after))]
    RateLimited {
        /// The registry's host.
        host: String,
        /// How long it asks to wait, if it says.
        retry_after: Option<Duration>,
    },
    /// The content is not what its digest says.
    #[error("unexpected digest of content from {host}: got {actual}, expected {expected}")]
    DigestMismatch {
        /// From where.
        host: String,
        /// What was asked for.
        expected: Digest,
        /// What came.
        actual: Digest,
    },
    /// The content is longer or shorter than its descriptor says.
    #[error("unexpected size of {digest} from {host}: got {actual} bytes, expected {expected}")]
    SizeMismatch {
        /// From where.
        host: String,
        /// What was asked for.
        digest: Digest,
        /// The size that was announced.
        expected: u64,
        /// The size that came (at least).
        actual: u64,
    },
    /// A document that is larger than any honest one.
    #[error("rejecting {size} byte document {what}: more than {max} bytes")]
    TooLarge {
        /// Which document.
        what: String,
        /// Its size in bytes.
        size: u64,
        /// The limit in bytes.
        max: u64,
    },
    /// An answer that the specification does not allow.
    #[error("malformed answer to {method} request to {url}: {detail}")]
    Malformed {
        /// The request's method.
        method: String,
        /// The request's address without its query.
        url: String,
        /// What is wrong with it.
        detail: String,
    },
    /// A manifest that is none.
    #[error("invalid manifest {what}")]
    Manifest {
        /// Its digest or name.
        what: String,
        /// Why.
        #[source]
        source: ManifestError,
    },
    /// Content that was to be sent could not be read here.
    #[error("failed to read content to push")]
    Source(#[from] std::io::Error),
    /// A reference without a registry, or one that makes no URL.
    #[error("invalid registry host {0:?}")]
    Host(String),
    /// A certificate or key that the settings name could not be used.
    #[error("failed to load {path}: {reason}")]
    Certificate {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The HTTP client could not be made.
    #[error("failed to set up connections: {0}")]
    Setup(String),
}

/// `: text` where there is a text.
struct Detail<'a>(&'a str);

impl fmt::Display for Detail<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, ": {}", self.0) }
    }
}

struct RetryAfter<'a>(&'a Option<Duration>);

impl fmt::Display for RetryAfter<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(wait) => write!(f, ", the registry asks to wait {} seconds", wait.as_secs()),
            None => Ok(()),
        }
    }
}

impl RegistryError {
    /// Whether the registry simply does not have it.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound(_))
            || matches!(self, Self::Status { status, .. } if *status == http::StatusCode::NOT_FOUND)
    }

    /// Whether the same may work a moment later.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Interrupted { .. } | Self::Connect { .. } => true,
            Self::Status { status, .. } => status.is_server_error(),
            Self::Token { transient, .. } => *transient,
            _ => false,
        }
    }

    /// Whether another host (a mirror, or the registry behind a mirror) may do better.
    pub(crate) fn allows_next_host(&self) -> bool {
        !matches!(self, Self::Source(_) | Self::TooLarge { .. })
    }

    /// How much it tells: of the errors of several hosts the one that got farthest is shown.
    pub(crate) fn priority(&self) -> u8 {
        match self {
            Self::NotFound(_) => 2,
            Self::Status { .. } | Self::RateLimited { .. } => 3,
            Self::TooLarge { .. } | Self::DigestMismatch { .. } | Self::SizeMismatch { .. } => 4,
            _ => 1,
        }
    }

    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Denied { host, logged_in: false, .. } => {
                Some(format!("log in with `docker login {host}` or check the image's name"))
            }
            Self::Denied { host, logged_in: true, access, .. } => {
                Some(format!("the login for {host} was sent but does not allow to {access}"))
            }
            Self::Token { host, refused: true, .. } => {
                Some(format!("the stored login for {host} was refused: log in again with `docker login {host}`"))
            }
            Self::Connect { url, .. } if url.starts_with("https://") => Some(
                "check the registry's address; if it speaks plain http or has a private certificate, say so in the \
                 daemon's settings (`[registry.\"host\"]` with `http`, `insecure` or `ca`)"
                    .to_owned(),
            ),
            Self::Connect { .. } => Some("check the registry's address and that it is running".to_owned()),
            Self::RateLimited { host, .. } => {
                Some(format!("log in with `docker login {host}` for a higher limit, or try again later"))
            }
            Self::DigestMismatch { .. } | Self::SizeMismatch { .. } => {
                Some("the registry or a proxy before it serves damaged content; nothing of it was kept".to_owned())
            }
            _ => None,
        }
    }
}
