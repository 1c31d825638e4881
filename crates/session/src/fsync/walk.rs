//! Walking a directory in the order of path components.
//!
//! One thread goes through the directories in order and tells what is there. Where there is much, others look into the next directories
//! before their turn: most of the time is the kernel's, which finds files for several at once.

mod ahead;
mod look;
mod names;

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use super::beneath::file_error;
use super::error::SyncError;
use super::filter::{DirMatch, Filter, Verdict};
use super::stat::FileStat;
use ahead::{Ahead, Dir};
use look::{Looked, Looker};
use names::Names;

/// A directory that is being walked.
struct Level {
    /// Its path; empty: the top.
    path: String,
    /// What is left in it.
    names: Names,
    /// The directories among them, last first.
    dirs: Vec<Arc<Dir>>,
    /// It was emitted (or is the top).
    emitted: bool,
}

/// Walks what the filter lets through, below `top` and without it. What vanishes meanwhile is left out.
pub(super) fn walk(
    top: &Path,
    filter: &Filter,
    emit: &mut dyn FnMut(FileStat) -> Result<(), SyncError>,
) -> Result<(), SyncError> {
    let ahead = Ahead::default();
    std::thread::scope(|threads| {
        let _end = ahead.end_on_drop();
        let mut walker = Walker { looker: Looker::new(top, filter), files: HashMap::new(), emit };
        let (names, dirs) = walker.looker.names("", &DirMatch::default())?.unwrap_or_default();
        let dirs = ahead.add(names.len(), dirs);
        let mut levels = vec![Level { path: String::new(), dirs, names, emitted: true }];
        while let Some(level) = levels.last_mut() {
            let Some(name) = level.names.next(&level.path) else {
                levels.pop();
                continue;
            };
            let dir = if name.is_dir { level.dirs.pop() } else { None };
            if name.verdict == Verdict::Send {
                let looked = match name.looked {
                    Some(looked) => looked,
                    None => walker.looker.look(&name.path),
                };
                let Some(looked) = looked? else { continue };
                walker.emit_parents(&mut levels)?;
                walker.emit(looked)?;
            }
            let Some(dir) = dir else { continue };
            ahead.spawn_where_much(threads, top, filter);
            let names = match ahead.names(&dir, &mut walker.looker) {
                // What cannot be read and would not have been sent does not matter.
                Err(SyncError::File { source, .. })
                    if name.verdict != Verdict::Send && source.kind() == io::ErrorKind::PermissionDenied =>
                {
                    continue;
                }
                names => names?,
            };
            if let Some((names, dirs)) = names {
                let emitted = name.verdict == Verdict::Send;
                levels.push(Level { path: name.path, names, dirs, emitted });
            }
        }
        Ok(())
    })
}

struct Walker<'a> {
    looker: Looker<'a>,
    /// Files with several names that were emitted, by device and inode, with their first path.
    files: HashMap<(u64, u64), String>,
    emit: &'a mut dyn FnMut(FileStat) -> Result<(), SyncError>,
}

impl Walker<'_> {
    /// A file that is sent brings the directories above it along.
    fn emit_parents(&mut self, levels: &mut [Level]) -> Result<(), SyncError> {
        for level in levels.iter_mut().filter(|level| !level.emitted) {
            level.emitted = true;
            let absent = || file_error("stat", &level.path, io::Error::from(io::ErrorKind::NotFound));
            let looked = self.looker.look(&level.path)?.ok_or_else(absent)?;
            (self.emit)(looked.stat)?;
        }
        Ok(())
    }

    fn emit(&mut self, looked: Looked) -> Result<(), SyncError> {
        let Looked { mut stat, shared } = looked;
        if let Some(id) = shared {
            match self.files.get(&id) {
                Some(first) => stat.linkname.clone_from(first),
                None => drop(self.files.insert(id, stat.path.clone())),
            }
        }
        (self.emit)(stat)
    }
}
