//! Looking into one directory: the names in it that a filter lets through, and what is said about their files.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use bytes::Bytes;
use rustix::io::Errno;

use super::super::beneath::file_error;
use super::super::error::SyncError;
use super::super::filter::{DirMatch, Filter, Verdict};
use super::super::mode::{FileKind, GoMode};
use super::super::stat::FileStat;
use super::names::{Names, join};

/// Attributes that make no sense elsewhere.
const XATTR_SKIPPED_PREFIX: &str = "com.apple.";

/// Files of one directory that are looked at before their turn, at most.
const STATS_AHEAD_MAX: usize = 1024;

/// A file that was looked at.
pub(super) struct Looked {
    pub stat: FileStat,
    /// Device and inode of a regular file with several names.
    pub shared: Option<(u64, u64)>,
}

/// Directories with what is known of them for what is in them.
pub(super) type Dirs = Vec<(String, DirMatch)>;

/// Looks into directories below `top`.
pub(super) struct Looker<'a> {
    top: &'a Path,
    filter: &'a Filter,
    /// For lists of attributes.
    buffer: Vec<u8>,
}

impl<'a> Looker<'a> {
    pub(super) fn new(top: &'a Path, filter: &'a Filter) -> Self {
        Self { top, filter, buffer: vec![0; 4096] }
    }

    /// The names in a directory that matter, of which the first ones were looked at, and the directories among them, last first; none: it
    /// vanished.
    pub(super) fn names(
        &mut self,
        path: &str,
        matched: &DirMatch,
    ) -> Result<Option<(Names, Dirs)>, SyncError> {
        let shown = if path.is_empty() { self.top.to_string_lossy().into_owned() } else { path.to_string() };
        let error = |error| file_error("read directory", &shown, error);
        let entries = match fs::read_dir(self.top.join(path)) {
            Ok(entries) => entries,
            Err(e) if is_absent(&e) && !path.is_empty() => return Ok(None),
            Err(e) => return Err(error(e)),
        };
        let (mut names, mut dirs) = (Names::default(), Dirs::new());
        for entry in entries {
            let entry = entry.map_err(error)?;
            let is_dir = entry.file_type().map_err(error)?.is_dir();
            let name = entry.file_name().into_string().map_err(|name| {
                let shown = name.to_string_lossy();
                SyncError::protocol(format!("invalid file name {shown:?} in {path:?}: not UTF-8"))
            })?;
            let file = join(path, &name);
            let (verdict, matched) = self.filter.judge(&file, is_dir, matched);
            if verdict != Verdict::Skip {
                names.push(&name, is_dir, verdict)?;
                if is_dir {
                    dirs.push((file, matched));
                }
            }
        }
        names.sort();
        // All paths begin the same.
        dirs.sort_unstable_by(|(a, _), (b, _)| b.as_bytes().cmp(a.as_bytes()));
        names.look_at_first(STATS_AHEAD_MAX, |name| self.look(&join(path, name)));
        Ok(Some((names, dirs)))
    }

    /// What is said about a file; none: it vanished.
    pub(super) fn look(&mut self, path: &str) -> Result<Option<Looked>, SyncError> {
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
        let mut shared = None;
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
            FileKind::Regular if metadata.nlink() > 1 => shared = Some((metadata.dev(), metadata.ino())),
            _ => {}
        }
        stat.xattrs = self.xattrs(&place).map_err(|error| file_error("read attributes of", path, error))?;
        Ok(Some(Looked { stat, shared }))
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
