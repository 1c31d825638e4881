//! What conversion needs to know from outside of the Dockerfile.

use crate::error::ResolveError;
use async_trait::async_trait;
use kiln_llb::{ResolveMode, State};
use kiln_oci::{Digest, Platform, Timestamp};
use std::collections::BTreeMap;

/// Where an image is looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageStore {
    /// Registries, and local images as the mode says.
    Registry(ResolveMode),
    /// An image layout on the side of a client.
    OciLayout {
        /// The session of that client.
        session_id: String,
        /// The name of the layout within it.
        store_id: String,
    },
}

/// Asks for the config of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageConfigRequest {
    /// The full reference, with a tag or digest.
    pub reference: String,
    pub store: ImageStore,
    pub platform: Platform,
    /// The name of the step in progress displays.
    pub log_name: String,
}

/// An image that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvedImage {
    /// The reference, which a source policy may have changed.
    pub reference: String,
    /// The digest of its manifest or index.
    pub digest: Option<Digest>,
    /// The config document.
    pub config: Vec<u8>,
}

/// The answer to an [`ImageConfigRequest`].
#[derive(Debug)]
pub enum ImageAnswer {
    Image(ResolvedImage),
    /// A source policy puts something else than an image in its place.
    OtherSource {
        /// The source's identifier, such as `https://…`.
        identifier: String,
        /// What to fail with where only an image will do.
        error: ResolveError,
    },
}

/// The main build context.
#[derive(Debug, Clone)]
pub enum MainContext {
    /// A folder of the client; only what is used will be asked for.
    Local {
        /// Its name within the session.
        name: String,
        session_id: String,
        /// Patterns of the ignore file.
        ignore: Vec<String>,
    },
    /// Anything else: a repository, a download, an input.
    State(State),
}

/// Answers questions about what lies outside of the Dockerfile. Equal requests for images may come more
/// than once and at the same time; the resolver is to answer them by one look-up.
#[async_trait]
pub trait Resolver: Send + Sync {
    /// The config of an image.
    async fn image_config(&self, request: ImageConfigRequest) -> Result<ImageAnswer, ResolveError>;

    /// The main build context. Asked for only when the Dockerfile proved to be sound.
    async fn main_context(&self) -> Result<MainContext, ResolveError>;

    /// Whether ignore patterns match a path or one of the folders that it lies in.
    fn is_ignored(&self, patterns: &[String], path: &str) -> bool;

    /// Solves `state` and reads a file from it; `None` if it has no such file.
    async fn read_file(&self, state: &State, path: &str) -> Result<Option<Vec<u8>>, ResolveError>;

    /// The definition that the client gave for an input, if it gave one.
    async fn input(&self, name: &str) -> Result<Option<State>, ResolveError>;

    /// When a source changed last: the commit's time of a repository, the time of a download, else the
    /// newest file in a downloaded archive.
    async fn source_time(
        &self,
        identifier: &str,
        attrs: &BTreeMap<String, String>,
        log_name: &str,
    ) -> Result<Option<Timestamp>, ResolveError>;
}
