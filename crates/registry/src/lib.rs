//! A client of the distribution API: resolve, pull, push, mount; tokens, mirrors, TLS, retries.
//!
//! One [`Registry`] serves a whole daemon: it keeps the connections, the tokens and the limits on how many
//! requests a host gets at once. A build makes a [`Client`] from it with the [`Credentials`] of its own
//! sessions, and from that a [`Repository`] for each name. Nothing here stores anything on disk, knows of
//! sessions or reads the environment.
//!
//! ```no_run
//! # async fn example(credentials: std::sync::Arc<dyn kiln_registry::Credentials>) -> Result<(), Box<dyn std::error::Error>> {
//! use kiln_registry::{Registry, RegistrySettings, RepositoryOptions};
//! let registry = Registry::new(RegistrySettings::default())?;
//! let reference = kiln_oci::Reference::parse_for_fetch("localhost:5000/hello")?;
//! let repository = registry.client(credentials).repository(&reference, RepositoryOptions::default())?;
//! let resolved = repository.resolve(reference.object().expect("has a tag")).await?;
//! let manifest = repository.manifest(&resolved.descriptor).await?;
//! # Ok(()) }
//! ```

#![forbid(unsafe_code)]

mod auth;
mod blob;
mod body;
mod client;
mod endpoint;
mod error;
mod limits;
mod observer;
mod pull;
mod push;
mod request;
mod retry;
mod settings;
mod tls;
mod transport;
mod upload;

pub use auth::{AnonymousCredentials, Credentials, CredentialsError, Login, Secret, Token, TokenRequest};
pub use blob::BlobReader;
pub use body::{BlobSource, BodyStream, FileSource, read_ahead};
pub use client::{Client, Registry, Repository, RepositoryOptions};
pub use error::{Access, RegistryError};
pub use observer::{NoObserver, Observer};
pub use pull::Resolved;
pub use push::{MOUNT_CANDIDATES_MAX, Pushed, best_mount_candidate};
pub use settings::{HostSettings, KeyPair, ProxySettings, RegistrySettings, is_loopback_host};
pub use upload::Upload;

/// The longest manifest or index that is read, in bytes.
pub const MANIFEST_BYTES_MAX: u64 = 8 << 20;
/// The longest image configuration or other document that is read into memory, in bytes.
pub const DOCUMENT_BYTES_MAX: u64 = 32 << 20;

/// TLS as this crate has it for a host without settings of its own: for clients of other servers. Reads the machine's
/// certificates.
///
/// # Errors
/// When the cryptography cannot be set up.
pub fn tls_config() -> Result<rustls::ClientConfig, RegistryError> {
    tls::client_config(&HostSettings::default(), false)
}
