//! Entry by entry from the archive into the tree.

use std::io::Read;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::SeekFrom;

use super::pump::{self, Inflate, Plain, Source};
use super::tree::{Tree, clean};
use super::write::{Maker, Team, What, write_all};
use super::{Applied, ApplyOptions, Lean};
use crate::error::{Error, Result};
use crate::overlay::{WHITEOUT_META_PREFIX, WHITEOUT_OPAQUE, WHITEOUT_PREFIX};
use crate::tar::{Entry, EntryKind, Reader};

/// The largest file that is handed to a writer with all of its content; larger ones are written as they come.
const SMALL_FILE_BYTES: u64 = 64 << 10;

/// Writers beside the thread that reads the archive. With one more thread for decompression, two keep up with it.
const WRITERS: usize = 2;

pub(super) fn unpack(source: impl Read + Send, dir: &Path, options: &ApplyOptions) -> Result<Applied> {
    let maker = Maker::new(options.format);
    let helpers = options.budget.take(1 + WRITERS);
    let (team, writers) = Team::new(&maker, helpers.count().saturating_sub(1));
    let bytes_max = options.bytes_max.unwrap_or(u64::MAX);
    let cancel = options.cancel.as_ref();
    let (diff_id, plain_size, source, leans) = std::thread::scope(|scope| {
        let spawn_failed = |source| Error::Io { what: "start a thread for", path: dir.to_owned(), source };
        for writer in writers {
            std::thread::Builder::new()
                .name("kiln-write".into())
                .spawn_scoped(scope, move || writer.run())
                .map_err(spawn_failed)?;
        }
        // The team goes when this closure ends, also early: that ends the writers.
        let team = team;
        if helpers.count() == 0 {
            let plain = Plain::here(Inflate::new(source)?, bytes_max, cancel);
            let (plain, leans) = entries(plain, dir, options, &maker, &team)?;
            let (diff_id, size, source) = plain.finish()?;
            return Ok((diff_id, size, source.expect("read here"), leans));
        }
        let (sender, chunks) = pump::channel();
        let inflate = std::thread::Builder::new()
            .name("kiln-inflate".into())
            .spawn_scoped(scope, move || pump::run(source, sender))
            .map_err(spawn_failed)?;
        let plain = Plain::<std::io::Empty>::threaded(chunks, bytes_max, cancel);
        let (plain, leans) = entries(plain, dir, options, &maker, &team)?;
        let (diff_id, size, _) = plain.finish()?;
        let ended = inflate.join().map_err(|_| Error::Canceled)?;
        let source: Source = ended.expect("an error before the end was given as the last chunk")?;
        Ok((diff_id, size, source, leans))
    })?;
    let (usage, skipped) = maker.finish();
    Ok(Applied {
        digest: source.digest,
        size: source.size,
        diff_id,
        plain_size,
        compression: source.compression,
        usage,
        leans,
        skipped,
    })
}

fn entries<'a, R: Read>(
    plain: Plain<'a, R>,
    dir: &Path,
    options: &ApplyOptions,
    maker: &Maker,
    team: &Team<'_>,
) -> Result<(Plain<'a, R>, Vec<Lean>)> {
    let lower = options.lower.as_ref();
    let mut tree = Tree::open(dir, options.format, lower, false, maker, team)?;
    let mut archive = Reader::new(plain);
    while let Some(mut entry) = archive.next_entry()? {
        let path = clean(&entry.path)?;
        let Some(name) = path.file_name() else {
            // The root's own attributes are not the archive's to set, as upstream has it.
            continue;
        };
        if options.whiteouts && name.as_encoded_bytes().starts_with(WHITEOUT_PREFIX) {
            whiteout(&mut tree, &path)?;
            continue;
        }
        if let Some((uid, gid)) = options.owner {
            (entry.uid, entry.gid) = (uid, gid);
        }
        if let Some((seconds, nanos)) = options.mtime {
            (entry.mtime_s, entry.mtime_ns) = (seconds, nanos);
        }
        match entry.kind {
            EntryKind::Dir => tree.directory(&path, entry)?,
            EntryKind::HardLink => {
                let target = clean(&entry.link)?;
                tree.hard_link(&path, &target, &entry)?;
            }
            EntryKind::File => file(&mut tree, &mut archive, maker, &path, entry)?,
            EntryKind::Symlink if entry.link.as_os_str().is_empty() => {
                return Err(Error::entry(path, "symbolic link to nothing"));
            }
            EntryKind::Symlink | EntryKind::CharDevice | EntryKind::BlockDevice | EntryKind::Fifo => {
                let (dir, name) = tree.claim(&path)?;
                tree.submit(dir, name, What::Entry(Box::new(entry), Vec::new()))?;
            }
        }
    }
    let open = tree.finish()?;
    let mut leans = Vec::new();
    if lower.is_none() {
        leans.extend(open.implied.into_iter().map(Lean::Parent));
        leans.extend(open.links.into_iter().map(|(path, target)| Lean::Link { path, target }));
    }
    Ok((archive.drain()?, leans))
}

fn whiteout(tree: &mut Tree<'_>, path: &Path) -> Result<()> {
    let name = path.file_name().expect("the caller has looked at it").as_encoded_bytes();
    let parent = path.parent().unwrap_or(Path::new(""));
    if name == WHITEOUT_OPAQUE {
        return tree.hide_below(parent);
    }
    if name.starts_with(WHITEOUT_META_PREFIX) {
        // Housekeeping of aufs.
        return Ok(());
    }
    let removed = &path.file_name().expect("as above").as_encoded_bytes()[WHITEOUT_PREFIX.len()..];
    if matches!(removed, b"" | b"." | b"..") {
        return Err(Error::entry(path, "whiteout of no file"));
    }
    tree.whiteout(&parent.join(crate::tree::path_of(removed.to_vec())))
}

fn file<C: crate::tar::Chunks>(
    tree: &mut Tree<'_>,
    archive: &mut Reader<C>,
    maker: &Maker,
    path: &Path,
    entry: Entry,
) -> Result<()> {
    let (dir, name) = tree.claim(path)?;
    if archive.data_left() <= SMALL_FILE_BYTES && entry.sparse.is_none() {
        let mut content = Vec::with_capacity(1);
        while let Some(bytes) = archive.next_data(usize::MAX)? {
            content.push(bytes);
        }
        return tree.submit(dir, name, What::Entry(Box::new(entry), content));
    }
    tree.settle_name(&dir, &name)?;
    let file = maker.create(dir.fd.as_fd(), &name, &entry)?;
    let failed = |error: rustix::io::Errno| Error::io("write", path)(error);
    match &entry.sparse {
        None => {
            while let Some(bytes) = archive.next_data(usize::MAX)? {
                write_all(file.as_fd(), &bytes).map_err(failed)?;
            }
        }
        Some(pieces) => {
            for piece in pieces {
                rustix::fs::seek(&file, SeekFrom::Start(piece.offset)).map_err(failed)?;
                let mut left = piece.len;
                while left > 0 {
                    let max = usize::try_from(left).unwrap_or(usize::MAX);
                    let bytes = archive.next_data(max)?.expect("pieces account for all content");
                    left -= bytes.len() as u64;
                    write_all(file.as_fd(), &bytes).map_err(failed)?;
                }
            }
            rustix::fs::ftruncate(&file, entry.size).map_err(failed)?;
        }
    }
    maker.finish_file(dir.fd.as_fd(), &name, file, &entry)
}
