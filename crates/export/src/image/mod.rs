//! Images: options, configuration, manifests. Pure: nothing here reads or stores anything.

pub mod attest;
mod config;
mod history;
mod manifest;
mod options;

pub use config::{BaseImage, CACHE_KEY, default_config, finish_config};
pub use history::align_history;
pub use manifest::{BuiltImage, BuiltIndex, Document, build_image, build_index};
pub use options::{CompressionOptions, ImageOptions, NewMediaTypes};

use kiln_oci::{Descriptor, Digest, Timestamp};

/// A layer of an image that is about to be described.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// Its blob.
    pub descriptor: Descriptor,
    /// Its uncompressed digest.
    pub diff_id: Digest,
    /// When it was made.
    pub created: Option<Timestamp>,
    /// What made it; empty if nobody knows.
    pub description: String,
}
