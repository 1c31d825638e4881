//! A blob being written.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use kiln_layer::bulk::BulkWriter;
use kiln_oci::{Digest, Hasher};

use super::{Blob, Content, FILE_MODE};
use crate::error::{Error, Result};
use crate::id::LayerId;
use crate::store::state_dir;

/// A blob being written: hashed as it comes, synced and only then named. Dropping it removes what was written.
#[derive(Debug)]
pub struct Ingest {
    content: Content,
    path: PathBuf,
    file: Option<BulkWriter>,
    /// `None`: whoever writes hashes too.
    hasher: Option<Hasher>,
    expected: Option<Digest>,
}

impl Ingest {
    pub(super) fn begin(content: Content, expected: Option<Digest>) -> Result<Self> {
        let path = content.shared.ingest.join(LayerId::random().as_str());
        let file = File::options().write(true).create_new(true).mode(FILE_MODE).open(&path);
        let file = file.map_err(Error::io("create", &path))?;
        let hasher = expected.as_ref().map_or_else(Hasher::sha256, Digest::hasher);
        Ok(Self { content, path, file: Some(BulkWriter::new(file)), hasher: Some(hasher), expected })
    }

    pub(super) fn unhashed(content: Content) -> Result<Self> {
        let mut ingest = Self::begin(content, None)?;
        ingest.hasher = None;
        Ok(ingest)
    }

    /// Where it is while it has no name.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How many bytes were written.
    pub fn len(&self) -> u64 {
        self.file.as_ref().map_or(0, BulkWriter::bytes)
    }

    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Checks the digest, makes the bytes durable and gives them their name.
    pub fn commit(mut self) -> Result<Blob> {
        let digest = self.hasher.take().expect("only `unhashed` ingests have none").finish();
        if let Some(expected) = &self.expected
            && *expected != digest
        {
            return Err(Error::DigestMismatch { expected: expected.clone(), actual: digest });
        }
        self.commit_hashed(digest)
    }

    /// The same for bytes that the caller has hashed on their way here.
    pub(crate) fn commit_hashed(mut self, digest: Digest) -> Result<Blob> {
        // Pinned before it is visible.
        let blob = self.content.blob(digest.clone(), self.len());
        let target = self.content.path(&digest);
        if target.exists() {
            return Ok(blob);
        }
        let file = self.file.take().expect("taken only here");
        let file = file.finish().map_err(Error::io("write", &self.path))?;
        file.sync_data().map_err(Error::io("sync", &self.path))?;
        drop(file);
        if let Some(dir) = target.parent()
            && digest.algorithm() != kiln_oci::Algorithm::Sha256
        {
            state_dir(dir, 0o755)?;
        }
        std::fs::rename(&self.path, &target).map_err(Error::io("rename", &self.path))?;
        self.path = PathBuf::new();
        Ok(blob)
    }
}

impl Write for Ingest {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let len = self.file.as_mut().expect("taken only by `commit`").write(buf)?;
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&buf[..len]);
        }
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Ingest {
    fn drop(&mut self) {
        // Nobody writes to it any more.
        self.file = None;
        if !self.path.as_os_str().is_empty() {
            // What stays is removed at the next start.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}
