//! Files that are either whole or not there.

use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use kiln_layer::bulk::BulkWriter;
use tempfile::TempPath;

use crate::error::{Context as _, Error, Result};

/// Writes a file under a temporary name and renames it when it is whole.
pub fn write_atomic(path: &Path, data: &[u8]) -> Result<()> {
    let mut pending = Pending::create(path)?;
    pending.write_all(data).when(format!("write `{}`", path.display()))?;
    pending.commit()
}

/// A file that gets its name when it is committed, and is gone when it is dropped before.
#[derive(Debug)]
pub struct Pending {
    target: PathBuf,
    file: Inner,
}

#[derive(Debug)]
enum Inner {
    Temporary(BulkWriter, TempPath),
    /// A device or pipe, which cannot be replaced.
    Direct(File),
}

impl Pending {
    /// Begins a file; its folder is made where it is not there.
    pub fn create(path: &Path) -> Result<Self> {
        let what = format!("write `{}`", path.display());
        let existing = std::fs::metadata(path);
        if let Ok(found) = &existing
            && !found.is_file()
        {
            if found.is_dir() {
                return Err(Error::user(format!("cannot write `{}`: it is a folder", path.display())));
            }
            let file = File::options().write(true).open(path).when(&what)?;
            return Ok(Self { target: path.to_owned(), file: Inner::Direct(file) });
        }
        // A link to a file stays a link.
        let target = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let dir =
            target.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned();
        std::fs::create_dir_all(&dir).when(&what)?;
        let permissions = existing.map(|found| found.permissions()).ok();
        let mut builder = tempfile::Builder::new();
        builder.prefix(".kiln-");
        let mode = permissions.unwrap_or_else(|| std::os::unix::fs::PermissionsExt::from_mode(0o644));
        builder.permissions(mode);
        let file = builder.tempfile_in(&dir).when(&what)?;
        let (file, path) = file.into_parts();
        Ok(Self { target, file: Inner::Temporary(BulkWriter::new(file), path) })
    }

    /// The file itself, as long as nothing was written, for somebody else to write it. Not of devices and pipes.
    pub fn handle(&self) -> Option<OwnedFd> {
        match &self.file {
            Inner::Temporary(file, _) => file.handle(),
            Inner::Direct(_) => None,
        }
    }

    /// Gives the file its name.
    pub fn commit(self) -> Result<()> {
        let what = || format!("write `{}`", self.target.display());
        match self.file {
            Inner::Direct(_) => Ok(()),
            Inner::Temporary(file, path) => {
                file.finish().when(what())?;
                path.persist(&self.target).map_err(|error| error.error).when(what())
            }
        }
    }
}

impl Write for Pending {
    fn write(&mut self, data: &[u8]) -> std::io::Result<usize> {
        match &mut self.file {
            Inner::Temporary(file, _) => file.write(data),
            Inner::Direct(file) => file.write(data),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_whole_or_not_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sub/file");
        let mut pending = Pending::create(&path).unwrap();
        pending.write_all(b"half").unwrap();
        assert!(!path.exists());
        drop(pending);
        assert_eq!(std::fs::read_dir(dir.path().join("sub")).unwrap().count(), 0);
        write_atomic(&path, b"whole").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"whole");
        write_atomic(Path::new("/dev/null"), b"x").unwrap();
        assert!(write_atomic(dir.path(), b"x").is_err());
    }

    #[test]
    fn a_link_stays_a_link() {
        let dir = tempfile::tempdir().unwrap();
        let (file, link) = (dir.path().join("file"), dir.path().join("link"));
        std::fs::write(&file, "old").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        write_atomic(&link, b"new").unwrap();
        assert!(link.is_symlink());
        assert_eq!(std::fs::read(&file).unwrap(), b"new");
    }
}
