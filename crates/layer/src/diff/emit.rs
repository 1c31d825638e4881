//! Files into archive entries.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io::{BufWriter, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::{DiffOptions, DiffSummary};
use crate::error::{Error, Result};
use crate::meta::{FileKind, Meta};
use crate::overlay::{self, Format};
use crate::tar::{Entry, EntryKind, Writer};
use crate::tree;
use crate::union::{get_xattr, list_xattrs};

const CAPABILITY: &str = "security.capability";

/// Headers and small files are gathered into writes of this size.
const OUTPUT_BYTES: usize = 256 << 10;
/// One read of a file.
const READ_BYTES: usize = 256 << 10;

/// Where a file is.
pub(super) struct Source<'a> {
    pub dir: BorrowedFd<'a>,
    pub name: &'a OsStr,
}

pub(super) struct Emitter<W: Write> {
    tar: Writer<BufWriter<W>>,
    options: DiffOptions,
    format: Format,
    /// The first name written of each file that has several.
    first_names: HashMap<(u64, u64), PathBuf>,
    summary: DiffSummary,
    buffer: Vec<u8>,
}

impl<W: Write> Emitter<W> {
    pub(super) fn new(out: W, options: DiffOptions, format: Format) -> Self {
        Self {
            tar: Writer::new(BufWriter::with_capacity(OUTPUT_BYTES, out)),
            options,
            format,
            first_names: HashMap::new(),
            summary: DiffSummary::default(),
            buffer: vec![0; READ_BYTES],
        }
    }

    /// A removed name; `marked` has the prefix already.
    pub(super) fn removal(&mut self, marked: PathBuf) -> Result<()> {
        self.summary.entries += 1;
        self.summary.whiteouts += 1;
        self.tar.start(&Entry { mode: 0, ..Entry::new(EntryKind::File, marked) })
    }

    pub(super) fn emit(&mut self, path: &Path, meta: &Meta, source: &Source<'_>) -> Result<()> {
        if meta.kind == FileKind::Socket {
            return Ok(());
        }
        let mut entry = tree::entry_of_meta(path, meta);
        entry.mtime_ns = 0;
        if let Some(epoch) = self.options.epoch {
            entry.mtime_s = entry.mtime_s.min(epoch);
        }
        if meta.is_symlink() {
            let target = rustix::fs::readlinkat(source.dir, source.name, Vec::new());
            entry.link = tree::path_of(target.map_err(Error::io("read link", path))?.into_bytes());
        }
        if meta.nlink > 1 && !meta.is_dir() {
            match self.first_names.get(&(meta.dev, meta.ino)) {
                Some(first) => {
                    entry.kind = EntryKind::HardLink;
                    entry.link = first.clone();
                    entry.size = 0;
                }
                None => {
                    self.first_names.insert((meta.dev, meta.ino), path.to_owned());
                }
            }
        }
        self.attributes(&mut entry, meta, source).map_err(Error::io("read attributes of", path))?;
        self.summary.entries += 1;
        self.tar.start(&entry)?;
        if entry.kind == EntryKind::File && entry.size > 0 {
            self.content(path, entry.size, source)?;
        }
        Ok(())
    }

    pub(super) fn finish(self) -> Result<DiffSummary> {
        self.tar.finish()?.flush().map_err(Error::Write)?;
        Ok(self.summary)
    }

    fn attributes(&self, entry: &mut Entry, meta: &Meta, source: &Source<'_>) -> Result<(), Errno> {
        if !(meta.is_file() || meta.is_dir()) {
            return Ok(());
        }
        let path = overlay::proc_path(source.dir, source.name);
        if self.options.user_xattrs {
            entry.xattrs = list_xattrs(&path)?;
            entry.xattrs.retain(|(key, _)| key == CAPABILITY || key.as_encoded_bytes().starts_with(b"user."));
        } else if meta.is_file()
            && let Some(value) = get_xattr(&path, OsStr::new(CAPABILITY))?
        {
            entry.xattrs.push((CAPABILITY.into(), value));
        }
        // The owner that stands in an attribute was put into `meta` by the union where the format says so.
        debug_assert!(self.format.owner_xattr || entry.uid == meta.uid);
        Ok(())
    }

    fn content(&mut self, path: &Path, size: u64, source: &Source<'_>) -> Result<()> {
        let failed = |error: Errno| Error::io("read", path)(error);
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = rustix::fs::openat(source.dir, source.name, flags, Mode::empty()).map_err(failed)?;
        let mut left = size;
        while left > 0 {
            let max = self.buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let len = match rustix::io::read(file.as_fd(), &mut self.buffer[..max]) {
                Err(Errno::INTR) => continue,
                read => read.map_err(failed)?,
            };
            if len == 0 {
                let source = std::io::Error::other("file became shorter while it was read");
                return Err(Error::Io { what: "read", path: path.to_owned(), source });
            }
            self.tar.write_data(&self.buffer[..len])?;
            left -= len as u64;
        }
        Ok(())
    }
}
