//! Results as trees of files: what the exporters `local` and `tar` give out.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io::{self, Cursor, Read};
use std::path::Path;

use bytes::Bytes;
use kiln_layer::meta::Meta;
use kiln_layer::union::{Node, Union};
use kiln_oci::Timestamp;
use kiln_session::fsync::{FileKind, FileStat, FsSource, GoMode, SyncError, compare_paths};

const NANOS: i64 = 1_000_000_000;
/// Attributes that belong to the image rather than to how it is stored.
const CAPABILITY: &str = "security.capability";

/// A file that is made up beside the result.
#[derive(Clone, Debug)]
pub(super) struct ExtraFile {
    pub(super) name: String,
    pub(super) bytes: Bytes,
    pub(super) mtime_ns: i64,
}

/// The files of one result.
pub(super) struct Part {
    /// The folder they are put into, if that is wanted.
    pub(super) folder: Option<String>,
    pub(super) union: Union,
    /// In the order of their names.
    pub(super) extra: Vec<ExtraFile>,
    /// The time of everything.
    pub(super) epoch: Option<Timestamp>,
}

/// The files of several results.
pub(super) struct Tree {
    pub(super) parts: Vec<Part>,
}

impl Part {
    /// The same files once more; nothing is copied.
    pub(super) fn share(&self) -> Self {
        Self {
            folder: self.folder.clone(),
            union: self.union.clone(),
            extra: self.extra.clone(),
            epoch: self.epoch,
        }
    }

    /// The time of everything here in nanoseconds, where one is set.
    fn epoch_ns(&self) -> Option<i64> {
        self.epoch.map(|epoch| i64::try_from(epoch.unix_nanos()).unwrap_or(i64::MAX))
    }

    fn path(&self, below: &str) -> String {
        match &self.folder {
            Some(folder) => format!("{folder}/{below}"),
            None => below.to_owned(),
        }
    }

    fn walk(&self, emit: &mut dyn FnMut(FileStat) -> Result<(), SyncError>) -> Result<(), SyncError> {
        if let Some(folder) = &self.folder {
            const FOLDER_MODE: u32 = 0o755;
            emit(FileStat {
                path: folder.clone(),
                mode: GoMode::new(FileKind::Directory, FOLDER_MODE),
                mtime_ns: self.epoch_ns().unwrap_or(0),
                ..FileStat::default()
            })?;
        }
        let mut extra = self.extra.iter().peekable();
        let mut first_names: HashMap<(u64, u64), String> = HashMap::new();
        let mut hidden: Option<&str> = None;
        for node in self.union.walk("").map_err(failed)?.skip(1) {
            let node = node.map_err(failed)?;
            let below = text(&node.path)?;
            if !below.contains('/') {
                while let Some(file) = extra.next_if(|file| file.name.as_str() <= below) {
                    emit(self.extra_stat(file))?;
                    hidden = Some(&file.name);
                }
            }
            // What is made up hides what is there.
            if hidden.is_some_and(|hidden| below == hidden || below.starts_with(&format!("{hidden}/"))) {
                continue;
            }
            let mut stat = self.stat(&node, below)?;
            if node.meta.nlink > 1 && !node.meta.is_dir() {
                match first_names.get(&(node.meta.dev, node.meta.ino)) {
                    Some(first) => stat.linkname = first.clone(),
                    None => {
                        first_names.insert((node.meta.dev, node.meta.ino), stat.path.clone());
                    }
                }
            }
            emit(stat)?;
        }
        for file in extra {
            emit(self.extra_stat(file))?;
        }
        Ok(())
    }

    fn stat(&self, node: &Node, below: &str) -> Result<FileStat, SyncError> {
        let meta = &node.meta;
        let kind = kind(meta);
        let linkname = if kind == FileKind::Symlink {
            text(&node.read_link().map_err(failed)?)?.to_owned()
        } else {
            String::new()
        };
        let mut xattrs = std::collections::BTreeMap::new();
        if matches!(kind, FileKind::Regular | FileKind::Directory) {
            for (key, value) in node.xattrs().map_err(failed)? {
                if let Some(key) = key.to_str().filter(|key| *key == CAPABILITY || key.starts_with("user.")) {
                    xattrs.insert(key.to_owned(), Bytes::from(value));
                }
            }
        }
        let size = if kind == FileKind::Directory { 0 } else { i64::try_from(meta.size).unwrap_or(i64::MAX) };
        let mtime = meta.mtime_s.saturating_mul(NANOS).saturating_add(i64::from(meta.mtime_ns));
        Ok(FileStat {
            path: self.path(below),
            mode: GoMode::new(kind, meta.mode),
            uid: meta.uid,
            gid: meta.gid,
            size,
            mtime_ns: self.epoch_ns().unwrap_or(mtime),
            linkname,
            device: (meta.rdev_major, meta.rdev_minor),
            xattrs,
        })
    }

    fn extra_stat(&self, file: &ExtraFile) -> FileStat {
        const EXTRA_MODE: u32 = 0o600;
        FileStat {
            path: self.path(&file.name),
            mode: GoMode::new(FileKind::Regular, EXTRA_MODE),
            size: file.bytes.len() as i64,
            mtime_ns: self.epoch_ns().unwrap_or(file.mtime_ns),
            ..FileStat::default()
        }
    }

    fn open(&self, path: &str) -> Option<io::Result<Box<dyn Read + Send>>> {
        let below = match &self.folder {
            Some(folder) => path.strip_prefix(folder.as_str())?.strip_prefix('/')?,
            None => path,
        };
        if let Some(file) = self.extra.iter().find(|file| file.name == below) {
            return Some(Ok(Box::new(Cursor::new(file.bytes.clone()))));
        }
        match self.union.open_file(below) {
            Ok(None) => None,
            Ok(Some(file)) => Some(Ok(Box::new(file))),
            Err(error) => Some(Err(io::Error::other(error))),
        }
    }
}

fn kind(meta: &Meta) -> FileKind {
    match meta.kind {
        kiln_layer::FileKind::Dir => FileKind::Directory,
        kiln_layer::FileKind::Symlink => FileKind::Symlink,
        kiln_layer::FileKind::Fifo => FileKind::Fifo,
        kiln_layer::FileKind::CharDevice => FileKind::CharDevice,
        kiln_layer::FileKind::BlockDevice => FileKind::BlockDevice,
        kiln_layer::FileKind::File | kiln_layer::FileKind::Socket => FileKind::Regular,
    }
}

/// Paths travel as text.
fn text(path: &Path) -> Result<&str, SyncError> {
    fn not_text(name: &OsStr) -> SyncError {
        SyncError::File {
            action: "name",
            path: name.to_string_lossy().into_owned(),
            source: io::Error::new(io::ErrorKind::InvalidData, "its name is not UTF-8"),
        }
    }
    path.to_str().ok_or_else(|| not_text(path.as_os_str()))
}

fn failed(error: kiln_layer::Error) -> SyncError {
    SyncError::File { action: "read", path: "the result".to_owned(), source: io::Error::other(error) }
}

impl FsSource for Tree {
    fn walk(&self, emit: &mut dyn FnMut(FileStat) -> Result<(), SyncError>) -> Result<(), SyncError> {
        if let [part] = self.parts.as_slice() {
            return part.walk(emit);
        }
        // Several trees in one: their common folders count once. Only metadata is gathered.
        let mut all = Vec::new();
        for part in &self.parts {
            part.walk(&mut |stat| {
                all.push(stat);
                Ok(())
            })?;
        }
        all.sort_by(|one, other| compare_paths(&one.path, &other.path));
        all.dedup_by(|later, first| later.path == first.path);
        all.into_iter().try_for_each(emit)
    }

    fn open(&self, path: &str) -> io::Result<Box<dyn Read + Send>> {
        self.parts
            .iter()
            .find_map(|part| part.open(path))
            .unwrap_or_else(|| Err(io::Error::from(io::ErrorKind::NotFound)))
    }
}
