//! Exporters: what becomes of a build's result.
//!
//! The pure half says what images look like: [`image`] for configuration, manifests and attestations,
//! [`archive`] for layouts in one file. The other half moves bytes between the store, registries and the client.

#![forbid(unsafe_code)]

pub mod annotations;
pub mod archive;
mod attrs;
pub mod epoch;
mod error;
mod exporter;
pub mod image;
pub mod provenance;
mod purl;
pub mod source;
pub mod verify;

pub use attrs::Attrs;
pub use error::ExportError;
pub use exporter::{
    ExportBuild, Exported, Exporter, Exporters, InlineCache, PushTarget, Reporter, Step, exporter_vertex,
};
pub use purl::image_purl;
