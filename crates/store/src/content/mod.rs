//! Content blobs: an OCI image layout on disk.

mod gc;
mod ingest;

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use kiln_layer::bulk::BulkReader;
use kiln_oci::{Descriptor, Digest};

pub use ingest::Ingest;

use crate::error::{Error, Result};
use crate::store::state_dir;

/// Mode of new files, whatever this process gives files by itself.
pub(crate) const FILE_MODE: u32 = 0o644;

const LAYOUT: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;

/// The blobs of a store. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Content {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// `<root>/content`
    layout: PathBuf,
    ingest: PathBuf,
    pins: Mutex<HashMap<Digest, usize>>,
}

/// A blob that is there, and stays as long as this does (or something in the store refers to it).
#[derive(Debug)]
pub struct Blob {
    digest: Digest,
    size: u64,
    shared: Arc<Shared>,
}

impl Content {
    pub(crate) fn open(root: &Path) -> Result<Self> {
        let layout = root.join("content");
        let ingest = root.join("ingest");
        for dir in [layout.clone(), layout.join("blobs"), layout.join("blobs/sha256")] {
            state_dir(&dir, 0o755)?;
        }
        state_dir(&ingest, 0o700)?;
        let marker = layout.join("oci-layout");
        if !marker.exists() {
            let made = File::options().write(true).create_new(true).mode(FILE_MODE).open(&marker);
            made.and_then(|mut file| file.write_all(LAYOUT)).map_err(Error::io("write", &marker))?;
        }
        Ok(Self { shared: Arc::new(Shared { layout, ingest, pins: Mutex::default() }) })
    }

    /// The image layout's directory.
    pub fn layout(&self) -> &Path {
        &self.shared.layout
    }

    /// Where a blob is, whether it is there or not.
    pub fn path(&self, digest: &Digest) -> PathBuf {
        self.shared.layout.join("blobs").join(digest.algorithm().as_str()).join(digest.hex())
    }

    /// A blob's size; `None` if it is not there.
    pub fn size(&self, digest: &Digest) -> Result<Option<u64>> {
        let path = self.path(digest);
        match std::fs::metadata(&path) {
            Ok(meta) => Ok(Some(meta.len())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io("look up", path)(error)),
        }
    }

    /// Whether a blob is there.
    pub fn has(&self, digest: &Digest) -> bool {
        matches!(self.size(digest), Ok(Some(_)))
    }

    /// Keeps a blob that is there.
    pub fn pin(&self, digest: &Digest) -> Result<Option<Blob>> {
        // Pinned before it is looked up, so that it cannot go in between.
        let mut blob = self.blob(digest.clone(), 0);
        match self.size(digest)? {
            Some(size) => {
                blob.size = size;
                Ok(Some(blob))
            }
            None => Ok(None),
        }
    }

    /// Opens a blob for reading.
    pub fn open_blob(&self, digest: &Digest) -> Result<File> {
        let path = self.path(digest);
        File::open(&path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => Error::BlobNotFound(digest.clone()),
            _ => Error::io("open", path)(error),
        })
    }

    /// Reads a blob front to back. A large one is not kept in memory for that.
    pub fn reader(&self, digest: &Digest) -> Result<BulkReader> {
        let path = self.path(digest);
        BulkReader::open(&path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => Error::BlobNotFound(digest.clone()),
            _ => Error::io("open", path)(error),
        })
    }

    /// A whole blob, which must not be larger than `max` bytes.
    pub fn read(&self, digest: &Digest, max: u64) -> Result<Bytes> {
        let file = self.open_blob(digest)?;
        let mut bytes = Vec::new();
        file.take(max + 1).read_to_end(&mut bytes).map_err(Error::io("read", self.path(digest)))?;
        if bytes.len() as u64 > max {
            let actual = self.size(digest)?.unwrap_or(max + 1);
            return Err(Error::SizeMismatch { digest: digest.clone(), expected: max, actual });
        }
        Ok(bytes.into())
    }

    /// Begins a new blob. With `expected`, only bytes of that digest become one.
    pub fn ingest(&self, expected: Option<&Digest>) -> Result<Ingest> {
        Ingest::begin(self.clone(), expected.cloned())
    }

    /// Begins a new blob whose bytes the caller hashes anyway: see [`Ingest::commit_hashed`].
    pub(crate) fn ingest_unhashed(&self) -> Result<Ingest> {
        Ingest::unhashed(self.clone())
    }

    /// Makes these bytes a blob.
    pub fn put(&self, bytes: &[u8]) -> Result<Blob> {
        let digest = Digest::sha256_of(bytes);
        if let Some(blob) = self.pin(&digest)? {
            return Ok(blob);
        }
        let mut ingest = self.ingest(Some(&digest))?;
        ingest.write_all(bytes).map_err(Error::io("write", ingest.path()))?;
        ingest.commit()
    }

    fn blob(&self, digest: Digest, size: u64) -> Blob {
        let mut pins = self.pins();
        *pins.entry(digest.clone()).or_default() += 1;
        Blob { digest, size, shared: Arc::clone(&self.shared) }
    }

    fn pins(&self) -> std::sync::MutexGuard<'_, HashMap<Digest, usize>> {
        self.shared.pins.lock().unwrap_or_else(|poison| poison.into_inner())
    }
}

impl Blob {
    /// Its digest.
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// Its length in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Its descriptor as that media type.
    pub fn descriptor(&self, media_type: impl Into<String>) -> Descriptor {
        Descriptor::new(media_type, self.digest.clone(), self.size)
    }
}

impl Clone for Blob {
    fn clone(&self) -> Self {
        Content { shared: Arc::clone(&self.shared) }.blob(self.digest.clone(), self.size)
    }
}

impl Drop for Blob {
    fn drop(&mut self) {
        let mut pins = self.shared.pins.lock().unwrap_or_else(|poison| poison.into_inner());
        if let Some(count) = pins.get_mut(&self.digest) {
            *count -= 1;
            if *count == 0 {
                pins.remove(&self.digest);
            }
        }
    }
}
