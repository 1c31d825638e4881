//! Unpacking an archive into a layer directory while it streams by.
//!
//! One thread decompresses and hashes the compressed bytes, the caller's thread hashes the plain bytes, reads the
//! archive and makes directories and links, further ones write the small files: those of one directory always the
//! same one, so that what an archive says twice happens in its order. All of it happens on the caller's thread where
//! no helper is free.
//!
//! Names are resolved one by one beneath the layer's root; a symlink among an entry's parents leads where it would
//! lead a process whose root this is. Nothing is ever opened by a joined path that an archive could have bent.

mod pump;
mod settle;
mod tree;
mod unpack;
mod write;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use kiln_oci::{Compression, Digest};

pub use settle::settle;
pub(crate) use write::times;

use crate::error::Result;
use crate::meta::Usage;
use crate::overlay::Format;
use crate::threads::Budget;
use crate::union::Union;

/// How an archive is unpacked.
#[derive(Clone, Debug)]
pub struct ApplyOptions {
    /// How layer directories are written.
    pub format: Format,
    /// Whether `.wh.` names are a layer's whiteouts (else they are files like others).
    pub whiteouts: bool,
    /// What lies below the directory, where that is known already: missing parents are then taken from there. Without
    /// it they are reported as [`Lean`]s, to be [settled](settle) later.
    pub lower: Option<Union>,
    /// The most plain bytes the archive may expand to.
    pub bytes_max: Option<u64>,
    /// One owner for everything, instead of the archive's.
    pub owner: Option<(u32, u32)>,
    /// One modification time for everything (seconds, nanoseconds), instead of the archive's.
    pub mtime: Option<(i64, u32)>,
    /// The threads that may help.
    pub budget: Budget,
    /// Ends the work early with [`Error::Canceled`](crate::Error::Canceled) once true.
    pub cancel: Option<Arc<AtomicBool>>,
}

impl Default for ApplyOptions {
    fn default() -> Self {
        Self {
            format: Format::default(),
            whiteouts: true,
            lower: None,
            bytes_max: None,
            owner: None,
            mtime: None,
            budget: Budget::default(),
            cancel: None,
        }
    }
}

/// What came out of an archive.
#[derive(Clone, Debug)]
pub struct Applied {
    /// The digest of the bytes as they were read, to the stream's end.
    pub digest: Digest,
    /// How many they were.
    pub size: u64,
    /// The digest of the plain archive.
    pub diff_id: Digest,
    /// How many plain bytes.
    pub plain_size: u64,
    /// How it was compressed.
    pub compression: Compression,
    /// About what it takes on disk.
    pub usage: Usage,
    /// What refers to lower layers and is not settled yet. Empty if the layer stands on its own.
    pub leans: Vec<Lean>,
    /// What this system or user cannot make (devices in a user namespace, unsupported attributes), first ones only.
    pub skipped: Vec<String>,
}

/// Something in a layer that depends on the layers below.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lean {
    /// A directory that the archive only mentions as a parent: its attributes are those of the one below.
    Parent(PathBuf),
    /// A hard link to a file of a lower layer.
    Link {
        /// The new name.
        path: PathBuf,
        /// The file below.
        target: PathBuf,
    },
}

/// Unpacks `source` (compressed in whatever way) into `dir`, which is expected to be empty or of this layer.
///
/// On an error the directory holds an unknown part of the archive and is to be removed. Whether the digests are those
/// expected is for the caller to compare before giving the directory a name.
pub fn apply(source: impl std::io::Read + Send, dir: &Path, options: &ApplyOptions) -> Result<Applied> {
    unpack::unpack(source, dir, options)
}

#[cfg(test)]
mod tests;
