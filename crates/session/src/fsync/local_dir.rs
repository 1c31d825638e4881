//! A directory of this host, as a source of files.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::error::SyncError;
use super::filter::Filter;
use super::send::FsSource;
use super::stat::FileStat;
use super::walk;

/// A directory that may be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalDir {
    path: PathBuf,
    reset_owner: bool,
}

impl LocalDir {
    /// The directory, with owners as they are.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), reset_owner: false }
    }

    /// The directory as a build context: everything belongs to root, whoever builds.
    pub fn context(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), reset_owner: true }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// What a filter leaves of a directory.
pub(crate) struct FilteredDir {
    pub(crate) dir: LocalDir,
    pub(crate) filter: Filter,
}

impl FsSource for FilteredDir {
    fn walk(&self, emit: &mut dyn FnMut(FileStat) -> Result<(), SyncError>) -> Result<(), SyncError> {
        let reset_owner = self.dir.reset_owner;
        walk::walk(&self.dir.path, &self.filter, &mut |mut stat| {
            if reset_owner {
                (stat.uid, stat.gid) = (0, 0);
            }
            emit(stat)
        })
    }

    fn open(&self, path: &str) -> io::Result<Box<dyn Read + Send>> {
        Ok(Box::new(File::open(self.dir.path.join(path))?))
    }
}

/// The whole directory.
impl FsSource for LocalDir {
    fn walk(&self, emit: &mut dyn FnMut(FileStat) -> Result<(), SyncError>) -> Result<(), SyncError> {
        FilteredDir { dir: self.clone(), filter: Filter::default() }.walk(emit)
    }

    fn open(&self, path: &str) -> io::Result<Box<dyn Read + Send>> {
        Ok(Box::new(File::open(self.path.join(path))?))
    }
}
