//! Layer archives: turning a layer's tar stream into an overlay-format directory and back.
//!
//! * [`apply`]: archive → layer directory, streaming, digests of both the compressed and the plain bytes in one pass.
//! * [`diff`]: layer directory → archive, in a fixed order with fixed headers.
//! * [`compress`]: gzip and zstd whose bytes do not depend on the number of threads; detecting decompression.
//! * [`union`]: the merged, read-only view of a list of layer directories without mounting anything.
//! * [`changes`]: the difference of two unions as a new layer directory.
//! * [`join`]: layers that lie upon each other as one layer directory.
//! * [`bulk`]: large files, past the page cache.
//! * [`tree`]: copying or hard-linking one file with all that belongs to it.
//!
//! A *layer directory* is in overlayfs' own format: a removed name is a character device 0/0, a directory that hides
//! what is below carries the `overlay.opaque` attribute. No `redirect_dir`, no `metacopy`.
//!
//! This crate knows nothing of registries, databases, mounts or which layers belong together.
#![deny(unsafe_code)]

pub mod apply;
pub mod bulk;
pub mod changes;
pub mod compress;
pub mod diff;
mod digest;
mod error;
pub mod join;
pub mod meta;
pub mod overlay;
pub mod tar;
pub mod threads;
pub mod tree;
pub mod union;

pub use digest::HashingReader;
pub use error::{Error, Result};
pub use meta::{FileKind, Meta, Usage};

pub(crate) use apply::times as apply_times;
