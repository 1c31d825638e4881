//! Files whose content somebody needs and nobody knows.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use kiln_layer::threads::Budget;
use rustix::fs::{CWD, Mode};

use super::ContentError;
use super::scan::hash_file;
use super::scratch::Bounds;
use super::tree::{Here, Place, Tree};
use crate::crew;
use crate::error::PathError;
use crate::raw::DIR_FLAGS;

/// Reads files, many at once, and puts their digests into the tables of a tree.
pub(super) struct Unread<'a> {
    tree: &'a Tree,
    /// Of its layers, lowest first.
    dirs: &'a [PathBuf],
    /// The same, once one is needed.
    roots: Vec<OwnedFd>,
    budget: &'a Budget,
    bounds: Bounds,
    files: Vec<(Place, Vec<u8>)>,
    path_bytes: usize,
}

impl<'a> Unread<'a> {
    pub(super) fn new(tree: &'a Tree, dirs: &'a [PathBuf], budget: &'a Budget, bounds: Bounds) -> Unread<'a> {
        Unread { tree, dirs, roots: Vec::new(), budget, bounds, files: Vec::new(), path_bytes: 0 }
    }

    /// A file whose content is not known. It may be read now, or with others later.
    pub(super) fn add(&mut self, file: &Here<'_>) -> Result<(), ContentError> {
        let path = file.record().path;
        self.path_bytes += path.len();
        self.files.push((file.place(), path.to_vec()));
        if self.files.len() < self.bounds.unread_files && self.path_bytes < self.bounds.unread_bytes {
            return Ok(());
        }
        self.read()
    }

    /// Reads what was added.
    pub(super) fn read(&mut self) -> Result<(), ContentError> {
        /// Files in one job; few, for some are large.
        const FILES_PER_JOB: usize = 16;
        if self.files.is_empty() {
            return Ok(());
        }
        let open = |dir: &PathBuf| {
            rustix::fs::openat(CWD, dir, DIR_FLAGS, Mode::empty())
                .map_err(|errno| PathError::new("open", dir.to_string_lossy(), errno))
        };
        if self.roots.is_empty() {
            self.roots = self.dirs.iter().map(open).collect::<Result<_, _>>()?;
        }
        // Several selectors may pick the same file.
        self.files.sort_unstable();
        self.files.dedup();
        self.path_bytes = 0;
        let files = std::mem::take(&mut self.files);
        let jobs = files.chunks(FILES_PER_JOB).collect();
        crew::run(self.budget, jobs, |job: &[(Place, Vec<u8>)], _| {
            for (place, path) in job {
                let hash = hash_file(&self.roots[place.layer], path).map_err(|errno| {
                    PathError::new("open", format!("/{}", String::from_utf8_lossy(path)), errno)
                })?;
                self.tree.tables()[place.layer].set_content(place.room, &hash)?;
            }
            Ok(())
        })
    }
}
