//! Walking a directory in the order of path components.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use bytes::Bytes;
use rustix::io::Errno;

use super::beneath::file_error;
use super::error::SyncError;
use super::filter::{DirMatch, Filter, Verdict};
use super::mode::{FileKind, GoMode};
use super::stat::FileStat;

/// Attributes that make no sense elsewhere.
const XATTR_SKIPPED_PREFIX: &str = "com.apple.";

/// An entry of a directory before it is looked at.
struct Name {
    name: String,
    is_dir: bool,
}

/// A directory that is being walked.
struct Level {
    /// Its path; empty: the top.
    path: String,
    /// What is left in it, last first.
    names: Vec<Name>,
    matched: DirMatch,
    /// It was emitted (or is the top).
    emitted: bool,
}

/// Walks what the filter lets through, below `top` and without it. What vanishes meanwhile is left out.
pub(super) fn walk(
    top: &Path,
    filter: &Filter,
    emit: &mut dyn FnMut(FileStat) -> Result<(), SyncError>,
) -> Result<(), SyncError> {
    let mut walker = Walker { top, files: HashMap::new(), buffer: vec![0; 4096] };
    let names = walker.names("")?.unwrap_or_default();
    let mut levels = vec![Level { path: String::new(), names, matched: DirMatch::default(), emitted: true }];
    while let Some(level) = levels.last_mut() {
        let Some(entry) = level.names.pop() else {
            levels.pop();
            continue;
        };
        let path = if level.path.is_empty() { entry.name } else { format!("{}/{}", level.path, entry.name) };
        let (verdict, matched) = filter.judge(&path, entry.is_dir, &level.matched);
        if verdict == Verdict::Skip {
            continue;
        }
        if verdict == Verdict::Send {
            let Some(stat) = walker.stat(&path)? else { continue };
            emit_parents(&mut levels, &mut walker, emit)?;
            emit(stat)?;
        }
        if entry.is_dir {
            let names = match walker.names(&path) {
                // What cannot be read and would not have been sent does not matter.
                Err(SyncError::File { source, .. })
                    if verdict != Verdict::Send && source.kind() == io::ErrorKind::PermissionDenied =>
                {
                    continue;
                }
                names => names?,
            };
            if let Some(names) = names {
                levels.push(Level { path, names, matched, emitted: verdict == Verdict::Send });
            }
        }
    }
    Ok(())
}

/// A file that is sent brings the directories above it along.
fn emit_parents(
    levels: &mut [Level],
    walker: &mut Walker<'_>,
    emit: &mut dyn FnMut(FileStat) -> Result<(), SyncError>,
) -> Result<(), SyncError> {
    for level in levels.iter_mut().filter(|level| !level.emitted) {
        level.emitted = true;
        let stat = walker.stat(&level.path)?;
        emit(stat.ok_or_else(|| file_error("stat", &level.path, io::Error::from(io::ErrorKind::NotFound)))?)?;
    }
    Ok(())
}

struct Walker<'a> {
    top: &'a Path,
    /// Files with several names that were emitted, by device and inode, with their first path.
    files: HashMap<(u64, u64), String>,
    /// For lists of attributes.
    buffer: Vec<u8>,
}

impl Walker<'_> {
    /// The names in a directory, last first; none: it vanished.
    fn names(&self, path: &str) -> Result<Option<Vec<Name>>, SyncError> {
        let shown = if path.is_empty() { self.top.to_string_lossy().into_owned() } else { path.to_string() };
        let error = |error| file_error("read directory", &shown, error);
        let entries = match fs::read_dir(self.top.join(path)) {
            Ok(entries) => entries,
            Err(e) if is_absent(&e) && !path.is_empty() => return Ok(None),
            Err(e) => return Err(error(e)),
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(error)?;
            let is_dir = entry.file_type().map_err(error)?.is_dir();
            let name = entry.file_name().into_string().map_err(|name| {
                let shown = name.to_string_lossy();
                SyncError::protocol(format!("invalid file name {shown:?} in {path:?}: not UTF-8"))
            })?;
            names.push(Name { name, is_dir });
        }
        names.sort_unstable_by(|a, b| b.name.as_bytes().cmp(a.name.as_bytes()));
        Ok(Some(names))
    }

    /// What is said about a file; none: it vanished.
    fn stat(&mut self, path: &str) -> Result<Option<FileStat>, SyncError> {
        let place = self.top.join(path);
        let metadata = match fs::symlink_metadata(&place) {
            Ok(metadata) => metadata,
            Err(error) if is_absent(&error) => return Ok(None),
            Err(error) => return Err(file_error("stat", path, error)),
        };
        let mode = GoMode::from_posix(metadata.mode());
        let mut stat = FileStat {
            path: path.to_string(),
            mode,
            uid: metadata.uid(),
            gid: metadata.gid(),
            mtime_ns: metadata.mtime().saturating_mul(1_000_000_000).saturating_add(metadata.mtime_nsec()),
            size: if metadata.is_dir() { 0 } else { metadata.size() as i64 },
            ..Default::default()
        };
        match mode.kind() {
            FileKind::Symlink => {
                let target = fs::read_link(&place).map_err(|error| file_error("readlink", path, error))?;
                stat.linkname = target.into_os_string().into_string().map_err(|target| {
                    let shown = target.to_string_lossy();
                    SyncError::protocol(format!("invalid link target {shown:?} of {path:?}: not UTF-8"))
                })?;
            }
            FileKind::CharDevice | FileKind::BlockDevice => {
                let device = metadata.rdev();
                stat.device = (rustix::fs::major(device), rustix::fs::minor(device));
            }
            FileKind::Regular if metadata.nlink() > 1 => {
                let id = (metadata.dev(), metadata.ino());
                match self.files.get(&id) {
                    Some(first) => stat.linkname.clone_from(first),
                    None => drop(self.files.insert(id, path.to_string())),
                }
            }
            _ => {}
        }
        stat.xattrs = self.xattrs(&place).map_err(|error| file_error("read attributes of", path, error))?;
        Ok(Some(stat))
    }

    fn xattrs(&mut self, place: &Path) -> io::Result<BTreeMap<String, Bytes>> {
        let mut out = BTreeMap::new();
        let place = CString::new(place.as_os_str().as_bytes())?;
        let length = loop {
            match rustix::fs::llistxattr(place.as_c_str(), &mut self.buffer) {
                Ok(length) => break length,
                Err(Errno::NOTSUP | Errno::NOENT) => return Ok(out),
                Err(Errno::RANGE) => self.buffer.resize(self.buffer.len() * 2, 0),
                Err(error) => return Err(error.into()),
            }
        };
        for name in self.buffer[..length].split_inclusive(|byte| *byte == 0) {
            let Ok(name) = CStr::from_bytes_with_nul(name) else { continue };
            let Ok(text) = name.to_str() else { continue };
            if text.starts_with(XATTR_SKIPPED_PREFIX) {
                continue;
            }
            let mut value = vec![0; 256];
            loop {
                match rustix::fs::lgetxattr(place.as_c_str(), name, &mut value) {
                    Ok(length) => {
                        value.truncate(length);
                        out.insert(text.to_string(), value.into());
                        break;
                    }
                    Err(Errno::RANGE) => value.resize(value.len() * 4, 0),
                    // Not ours to read.
                    Err(_) => break,
                }
            }
        }
        Ok(out)
    }
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}
