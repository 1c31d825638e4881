//! Build caches outside of this daemon: in a registry, in a folder of the client, inside an image.
//!
//! A cache is a [`graph::CacheGraph`]: records (keys) linked by how one is an input of another, with layers that
//! are the results. [`document`] is its form in JSON, as all BuildKits read it; [`inline`] is the form inside
//! an image's configuration; [`keys`] lets the solver look things up in it; [`manifest`] wraps it for
//! registries.

#![forbid(unsafe_code)]

mod backlinks;
mod blobs;
mod collect;
pub mod document;
mod error;
pub mod graph;
mod import;
pub mod inline;
pub mod keys;
pub mod manifest;
pub mod options;
mod provider;
pub mod report;
mod send;

pub use blobs::BlobOrigin;
pub use collect::{Collected, Collector, ResultLayers};
pub use error::CacheError;
pub use import::{ImportContext, ImportedCache, import};
pub use provider::{ClientProvider, RegistryProvider, attach_registry};
pub use send::{SendContext, cache_vertex_name, send};
