//! The exporter `tar`: the files of a result in one archive.

use std::io::Read;

use futures::future::try_join_all;
use kiln_layer::tar::{Entry, EntryKind, Writer};
use kiln_session::fsync::{FileKind, FileStat, FsSource, SyncError};
use kiln_store::Ref;

use super::files::{FileOptions, folder_name, part, platforms};
use super::send::{Out, send_file};
use super::tree::Tree;
use super::{ExportBuild, Exported, Exporters};
use crate::attrs::Attrs;
use crate::error::ExportError;
use crate::source::Source;

/// One read of a file.
const READ_BYTES: usize = 256 << 10;
const NANOS: i64 = 1_000_000_000;

pub(super) struct TarExporter {
    options: FileOptions,
}

impl TarExporter {
    pub(super) fn new(attrs: Attrs) -> Result<Self, ExportError> {
        Ok(Self { options: FileOptions::new(attrs)? })
    }

    pub(super) async fn export(
        &self,
        id: u32,
        exporters: &Exporters,
        source: &Source<Ref>,
        build: &ExportBuild,
    ) -> Result<Exported, ExportError> {
        let platforms = platforms(source)?;
        let each = platforms.iter().map(|platform| {
            // In an archive several platforms always have folders of their own.
            let folder = source.is_map().then(|| folder_name(platform));
            part(exporters, source, build, &self.options, platform, folder)
        });
        let tree = Tree { parts: try_join_all(each).await? };
        let caller = exporters.caller(build).await?;
        let _step = build.reporter.step("sending tarball");
        let write = move |out: &mut dyn Out| write_tree(&tree, out);
        send_file(&caller, id, &Default::default(), exporters.store.pool(), write).await?;
        Ok(Exported::told(Default::default()))
    }
}

fn write_tree(tree: &Tree, out: &mut dyn Out) -> Result<(), ExportError> {
    let mut archive = Writer::new(out);
    let mut buffer = vec![0; READ_BYTES];
    let failed = |error: SyncError| ExportError::failed("failed to write the archive", error);
    tree.walk(&mut |stat| write_file(tree, &stat, &mut archive, &mut buffer)).map_err(failed)?;
    archive.finish().map(drop).map_err(|error| ExportError::failed("failed to write the archive", error))
}

fn write_file(
    tree: &Tree,
    stat: &FileStat,
    archive: &mut Writer<&mut dyn Out>,
    buffer: &mut [u8],
) -> Result<(), SyncError> {
    let failed = |source: std::io::Error| SyncError::File { action: "read", path: stat.path.clone(), source };
    let broken = |error: kiln_layer::Error| failed(std::io::Error::other(error));
    let kind = match stat.kind() {
        _ if stat.is_hard_link() => EntryKind::HardLink,
        FileKind::Regular => EntryKind::File,
        FileKind::Directory => EntryKind::Dir,
        FileKind::Symlink => EntryKind::Symlink,
        FileKind::Fifo => EntryKind::Fifo,
        FileKind::CharDevice => EntryKind::CharDevice,
        FileKind::BlockDevice => EntryKind::BlockDevice,
        FileKind::Other => return Ok(()),
    };
    let mut entry = Entry::new(kind, &stat.path);
    entry.link = stat.linkname.clone().into();
    entry.mode = stat.permissions();
    entry.uid = stat.uid;
    entry.gid = stat.gid;
    entry.mtime_s = stat.mtime_ns.div_euclid(NANOS);
    (entry.major, entry.minor) = stat.device;
    entry.xattrs = stat.xattrs.iter().map(|(key, value)| (key.into(), value.to_vec())).collect();
    if kind == EntryKind::File {
        entry.size = u64::try_from(stat.size).unwrap_or(0);
    }
    archive.start(&entry).map_err(broken)?;
    if entry.size == 0 {
        return Ok(());
    }
    let mut file = tree.open(&stat.path).map_err(failed)?;
    let mut left = entry.size;
    while left > 0 {
        let most = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let read = file.read(&mut buffer[..most]).map_err(failed)?;
        if read == 0 {
            return Err(failed(std::io::Error::from(std::io::ErrorKind::UnexpectedEof)));
        }
        archive.write_data(&buffer[..read]).map_err(broken)?;
        left -= read as u64;
    }
    Ok(())
}
