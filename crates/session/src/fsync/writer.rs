//! One file's contents on their way to the disk.

use std::fs::File;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use kiln_oci::Hasher;

use super::beneath::{Beneath, file_error, set_file_metadata};
use super::dir_sink::Shared;
use super::error::SyncError;
use super::receive::{ContentWriter, SinkError};
use super::stat::FileStat;
use super::tree::Place;

/// Writes a new file, next to the old one if there is one, and renames it when it is complete: files that are linked from elsewhere
/// never change. Dropped before that, it leaves nothing behind.
pub(super) struct FileWriter {
    shared: Arc<Shared>,
    beneath: Beneath,
    /// Where the file is noted.
    place: Place,
    stat: FileStat,
    /// Something may be at the path already.
    replaces: bool,
    open: Option<Open>,
    hasher: Option<Hasher>,
}

struct Open {
    file: File,
    /// Where it is written, if not at its own path.
    temporary: Option<String>,
}

impl FileWriter {
    pub(super) fn new(
        shared: Arc<Shared>,
        beneath: Beneath,
        place: Place,
        stat: FileStat,
        replaces: bool,
    ) -> Self {
        let hasher = shared.hasher();
        Self { shared, beneath, place, stat, replaces, open: None, hasher }
    }

    fn open(&mut self) -> Result<&mut Open, SyncError> {
        if self.open.is_none() {
            let mut open = None;
            if !self.replaces {
                match self.beneath.create(&self.stat.path, self.stat.permissions()) {
                    Ok(fd) => open = Some(Open { file: fd.into(), temporary: None }),
                    Err(error) if exists(&error) => {}
                    Err(error) => return Err(error),
                }
            }
            self.open = Some(match open {
                Some(open) => open,
                None => self.create_beside()?,
            });
        }
        Ok(self.open.as_mut().expect("was opened above"))
    }

    fn create_beside(&mut self) -> Result<Open, SyncError> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        loop {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let name = format!(".kiln-tmp.{}.{number}", std::process::id());
            let temporary = match self.stat.path.rsplit_once('/') {
                Some((dir, _)) => format!("{dir}/{name}"),
                None => name,
            };
            match self.beneath.create(&temporary, self.stat.permissions()) {
                Ok(fd) => return Ok(Open { file: fd.into(), temporary: Some(temporary) }),
                // Somebody has a file of that name.
                Err(error) if exists(&error) => {}
                Err(error) => return Err(error),
            }
        }
    }
}

fn exists(error: &SyncError) -> bool {
    matches!(error, SyncError::File { source, .. } if source.kind() == std::io::ErrorKind::AlreadyExists)
}

impl ContentWriter for FileWriter {
    fn write(&mut self, data: &[u8]) -> Result<(), SinkError> {
        if let Some(hasher) = &mut self.hasher {
            hasher.update(data);
        }
        let open = self.open()?;
        open.file.write_all(data).map_err(|error| file_error("write", &self.stat.path, error))
    }

    fn finish(mut self: Box<Self>) -> Result<(), SinkError> {
        self.open()?;
        let open = self.open.as_mut().expect("was opened above");
        set_file_metadata(&open.file, &self.stat, self.shared.chown())?;
        if let Some(temporary) = &open.temporary {
            if self.beneath.kind(&self.stat.path)?.is_some_and(|kind| kind.is_dir()) {
                self.beneath.remove_all(&self.stat.path)?;
            }
            self.beneath.rename(temporary, &self.stat.path)?;
        }
        self.open = None;
        let digest = self.hasher.take();
        let digest = digest.map(|hasher| hasher.finish().to_bytes().try_into().expect("is SHA-256"));
        self.shared.completed(self.place, digest)
    }
}

impl Drop for FileWriter {
    fn drop(&mut self) {
        if let Some(open) = self.open.take() {
            let path = open.temporary.as_deref().unwrap_or(&self.stat.path);
            if let Err(error) = self.beneath.unlink(path) {
                tracing::debug!(error = error.chain(), "unfinished file not removed");
            }
        }
    }
}
