//! What the vertices of a build do: bring in sources, run steps, change files, put layers together.
//!
//! * [`Worker`] is what they share: the store, the executor, registries and sessions. It loads definitions
//!   ([`Worker::load`]), answers what can be known of sources ([`Worker::resolve_source_meta`]), looks into results
//!   ([`Worker::read_file`]) and runs containers beside the graph ([`Worker::new_container`]).
//! * [`VertexOp`] is a vertex as the solver runs it; its result is a [`Ref`].
//! * [`BuildContext`] is what one build brings along: sessions, privileges, a policy about its sources.
//! * [`contenthash`] digests what refs hold; [`fileop`] writes layers without a process.
//!
//! The crate decides nothing about graphs (the solver does), keeps nothing itself (the store does) and knows no
//! frontend, exporter or client.
#![forbid(unsafe_code)]

mod cache;
mod config;
mod container;
pub mod contenthash;
mod context;
mod crew;
mod digests;
pub mod encode;
mod error;
pub mod fileop;
mod files;
pub mod glob;
mod load;
mod op;
mod ops;
pub mod path;
mod raw;
mod source;
mod source_meta;
mod steplog;
mod transfer;
mod worker;

pub use cache::OWN_CACHE;
pub use config::{Platforms, WorkerConfig, WorkerInfo};
pub use container::{Container, ContainerProcess, ContainerRequest};
pub use context::{BoxError, BuildContext, Entitlements, SourcePolicy};
pub use error::{Error, PathError, Result, errno_text};
pub use files::FileRange;
pub use kiln_store::Ref;
pub use load::Loaded;
pub use op::VertexOp;
pub use ops::UnsafeContentCache;
pub use rustix::io::Errno;
pub use source::{
    BlobId, GitError, GitId, GitMetadata, GitSettings, HttpError, HttpId, HttpMetadata, Identifier,
    IdentifierError, ImageError, ImageId, LocalId, OciLayoutId, RepositoryError, ResolveMode, SourcePin,
    note_repository, repository_of,
};
pub use source_meta::{ImageMeta, MetaRequest, SourceMeta};
pub use steplog::StepLogLimits;
pub use worker::Worker;
