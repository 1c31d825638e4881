//! A blob being written.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use kiln_oci::{Digest, Hasher};

use super::{Blob, Content};
use crate::error::{Error, Result};
use crate::id::LayerId;

/// After so many bytes the disk begins to write, beside us, so that the sync at the end has little left to do.
const WRITE_BEHIND_BYTES: u64 = 32 << 20;

/// A blob being written: hashed as it comes, synced and only then named. Dropping it removes what was written.
#[derive(Debug)]
pub struct Ingest {
    content: Content,
    path: PathBuf,
    file: Option<File>,
    /// `None`: whoever writes hashes too.
    hasher: Option<Hasher>,
    expected: Option<Digest>,
    bytes: u64,
    behind: u64,
    writer: Option<JoinHandle<()>>,
}

impl Ingest {
    pub(super) fn begin(content: Content, expected: Option<Digest>) -> Result<Self> {
        let path = content.shared.ingest.join(LayerId::random().as_str());
        let file =
            File::options().write(true).create_new(true).open(&path).map_err(Error::io("create", &path))?;
        let hasher = expected.as_ref().map_or_else(Hasher::sha256, Digest::hasher);
        Ok(Self {
            content,
            path,
            file: Some(file),
            hasher: Some(hasher),
            expected,
            bytes: 0,
            behind: 0,
            writer: None,
        })
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
        self.bytes
    }

    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
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
        let blob = self.content.blob(digest.clone(), self.bytes);
        let target = self.content.path(&digest);
        if target.exists() {
            return Ok(blob);
        }
        let file = self.file.take().expect("taken only here");
        file.sync_data().map_err(Error::io("sync", &self.path))?;
        drop(file);
        if let Some(dir) = target.parent()
            && digest.algorithm() != kiln_oci::Algorithm::Sha256
        {
            std::fs::create_dir_all(dir).map_err(Error::io("create", dir))?;
        }
        std::fs::rename(&self.path, &target).map_err(Error::io("rename", &self.path))?;
        self.path = PathBuf::new();
        Ok(blob)
    }
}

impl Write for Ingest {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let file = self.file.as_mut().expect("taken only by `commit`");
        let len = file.write(buf)?;
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&buf[..len]);
        }
        self.bytes += len as u64;
        if self.bytes - self.behind >= WRITE_BEHIND_BYTES
            && self.writer.as_ref().is_none_or(JoinHandle::is_finished)
        {
            let file = file.try_clone()?;
            // Only a head start: the sync before the blob gets its name is the one that counts, and reports errors.
            self.writer = std::thread::Builder::new()
                .name("kiln-writeback".into())
                .spawn(move || drop(file.sync_data()))
                .ok();
            self.behind = self.bytes;
        }
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Ingest {
    fn drop(&mut self) {
        if !self.path.as_os_str().is_empty() {
            // What stays is removed at the next start.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}
