//! Removing blobs that nothing refers to.

use std::collections::HashSet;

use kiln_oci::{Digest, Index, Manifest, media_type};

use super::Content;
use crate::error::{Error, Result};

/// The largest manifest or index that is read.
const DOCUMENT_BYTES_MAX: u64 = 16 << 20;

impl Content {
    /// Removes all blobs but `keep` and those pinned. Gives the number of bytes freed.
    pub(crate) fn sweep(&self, keep: &HashSet<Digest>) -> Result<u64> {
        let mut freed = 0;
        for (digest, path, size) in self.list()? {
            if keep.contains(&digest) {
                continue;
            }
            // Under the lock: a pin taken later finds the blob gone, one taken before is seen.
            let pins = self.pins();
            if pins.contains_key(&digest) {
                continue;
            }
            match std::fs::remove_file(&path) {
                Ok(()) => freed += size,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(Error::io("remove", path)(error)),
            }
        }
        Ok(freed)
    }

    /// All blobs: digest, path, length.
    pub fn list(&self) -> Result<Vec<(Digest, std::path::PathBuf, u64)>> {
        let blobs = self.layout().join("blobs");
        let failed = |error: std::io::Error| Error::io("read directory", &blobs)(error);
        let mut found = Vec::new();
        for algorithm in std::fs::read_dir(&blobs).map_err(failed)? {
            let algorithm = algorithm.map_err(failed)?;
            for file in std::fs::read_dir(algorithm.path()).map_err(failed)? {
                let file = file.map_err(failed)?;
                let text = format!("{}:{}", algorithm.file_name().display(), file.file_name().display());
                let Ok(digest) = Digest::parse(&text) else { continue };
                let size = file.metadata().map_or(0, |meta| meta.len());
                found.push((digest, file.path(), size));
            }
        }
        Ok(found)
    }

    /// Adds everything that a document refers to, itself included; what is not there is left out quietly.
    pub(crate) fn reachable(&self, digest: &Digest, media: &str, found: &mut HashSet<Digest>) -> Result<()> {
        if !found.insert(digest.clone()) || !(media_type::is_index(media) || media_type::is_manifest(media)) {
            return Ok(());
        }
        let Ok(bytes) = self.read(digest, DOCUMENT_BYTES_MAX) else { return Ok(()) };
        if media_type::is_index(media) {
            if let Ok(index) = serde_json::from_slice::<Index>(&bytes) {
                for child in &index.manifests {
                    self.reachable(&child.digest, &child.media_type, found)?;
                }
            }
        } else if let Ok(manifest) = serde_json::from_slice::<Manifest>(&bytes) {
            found.insert(manifest.config.digest);
            found.extend(manifest.layers.into_iter().map(|layer| layer.digest));
        }
        Ok(())
    }
}
