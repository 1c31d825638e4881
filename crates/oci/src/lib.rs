//! Names and documents of container images: digests, references, platforms, media types and the
//! JSON documents of the OCI image specification and its Docker ancestors.
//!
//! Everything here is pure: no I/O (but for reading which processor this host has), no network, no
//! storage. Documents serialise with the field order and the escaping of Go's `encoding/json`, so that
//! equal content gives the bytes, and therefore the digests, which other builders give it.

#![forbid(unsafe_code)]

pub mod annotations;
mod compression;
mod descriptor;
mod digest;
pub mod gojson;
mod image;
mod manifest;
pub mod media_type;
pub mod platform;
mod reference;
mod timestamp;

pub use compression::{Compression, UnknownCompression};
pub use descriptor::Descriptor;
pub use digest::{Algorithm, Digest, DigestError, Hasher};
pub use image::{Empty, HealthcheckConfig, History, Image, ImageConfig, RootFs};
pub use manifest::{
    Index, Manifest, ManifestError, ManifestKind, detect_manifest_media_type, is_attestation_manifest,
};
pub use platform::{Platform, PlatformError, PlatformMatcher};
pub use reference::{DEFAULT_DOMAIN, DEFAULT_TAG, Reference, ReferenceError};
pub use timestamp::{Timestamp, TimestampError};
