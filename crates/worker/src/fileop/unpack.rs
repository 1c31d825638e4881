//! `ADD` of archives: a tar file, compressed or not, becomes what is in it.

use std::io::{self, BufRead, BufReader, Read};
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use bytes::Bytes;
use kiln_layer::apply::{ApplyOptions, apply};
use kiln_layer::tar::{Chunks, Reader};
use kiln_layer::threads::Budget;
use kiln_layer::union::{Node, Union};

use super::copy::Source;
use super::error::FileError;
use super::owner::Owner;
use super::place::{Time, make_dirs, shown};
use super::target::{Target, show};
use crate::error::PathError;
use crate::path;

const XZ_MAGIC: &[u8] = b"\xfd7zXZ\0";
const BZIP2_MAGIC: &[u8] = b"BZh";
/// Memory that an xz stream may ask for with its dictionary, in KiB: 192 MiB, what its level 9 needs three times over.
const XZ_MEMORY_KIB_MAX: u32 = 192 << 10;
const CHUNK_BYTES: usize = 32 << 10;

/// Unpacks `from` into the folder `to` if it is an archive; says whether it was.
///
/// # Errors
/// A damaged archive, and what the file system says.
pub fn unpack(
    target: &Target,
    source: &Source<'_>,
    from: &str,
    to: &str,
    owner: Option<Owner>,
    mtime: Option<Time>,
    budget: &Budget,
    cancel: &Arc<AtomicBool>,
) -> Result<bool, FileError> {
    let Some(node) = source.union.resolve(path::rooted(from).trim_start_matches('/'), true)?.node else {
        return Ok(false);
    };
    if !node.meta.is_file() || !is_archive(&node) {
        return Ok(false);
    }
    let dest = target.resolve(&path::rooted(to))?;
    make_dirs(target, &dest, 0o755, owner, mtime)?;
    let Some(dir) = target.dir(&dest)? else {
        return Err(PathError::new("mkdir", shown(&dest), rustix::io::Errno::NOTDIR).into());
    };
    let lower = Union::open(&target.lower_dirs_at(&dest)?, target.format())?;
    let fail = |errno| PathError::new("open", shown(&dest), errno);
    let upper = dir.upper(target).map_err(fail)?;
    let options = ApplyOptions {
        format: *target.format(),
        whiteouts: false,
        lower: Some(lower),
        owner: owner.map(|owner| (owner.uid, owner.gid)),
        budget: budget.clone(),
        cancel: Some(cancel.clone()),
        ..ApplyOptions::default()
    };
    let failed = |source| FileError::Unpack { path: show(&node.path), source };
    let plain = plain(node.open()?).map_err(failed)?;
    apply(plain, &PathBuf::from(format!("/proc/self/fd/{}/.", upper.as_raw_fd())), &options)?;
    Ok(true)
}

/// Whether the file begins like an archive with something in it.
fn is_archive(node: &Node) -> bool {
    let Ok(reader) = node.open().map_err(io::Error::other).and_then(plain) else { return false };
    let Ok(reader) = kiln_layer::compress::decompressor(reader) else { return false };
    let mut archive = Reader::new(ByChunks(reader));
    matches!(archive.next_entry(), Ok(Some(_)))
}

/// Undoes the compressions that only `ADD` knows; gzip and Zstandard are undone by whoever reads layers.
fn plain(source: impl Read + Send + 'static) -> io::Result<Box<dyn Read + Send>> {
    let mut source = BufReader::with_capacity(CHUNK_BYTES, source);
    let start = source.fill_buf()?;
    Ok(if start.starts_with(XZ_MAGIC) {
        Box::new(lzma_rust2::XzReader::new_mem_limit(source, true, XZ_MEMORY_KIB_MAX))
    } else if start.starts_with(BZIP2_MAGIC) {
        Box::new(bzip2::bufread::MultiBzDecoder::new(source))
    } else {
        Box::new(source)
    })
}

struct ByChunks<R>(R);

impl<R: Read> Chunks for ByChunks<R> {
    fn next_chunk(&mut self) -> kiln_layer::Result<Option<Bytes>> {
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            match self.0.read(&mut chunk) {
                Ok(0) => return Ok(None),
                Ok(length) => {
                    chunk.truncate(length);
                    return Ok(Some(chunk.into()));
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(kiln_layer::Error::Read(error)),
            }
        }
    }
}
