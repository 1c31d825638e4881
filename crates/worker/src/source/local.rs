//! Directories of clients. What was transferred for a directory before stays, and only what changed comes again.

use std::ffi::CString;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use kiln_layer::overlay::is_private_xattr;
use kiln_layer::{FileKind, Meta};
use kiln_session::daemon::{Caller, FileSyncRequest, SessionGroup, SessionId};
use kiln_session::fsync::{
    self, Differ, DirSink, DirSinkOptions, Existing, FileStat, OwnerPolicy, ReceiveLimits, Tree, TreeEntry,
    TreeError,
};
use kiln_session::patterns::PatternMatcher;
use kiln_solver::Progress;
use kiln_spool::Spools;
use kiln_store::{LayerMeta, NamedLayer, NamedSpec, RecordType, Ref, Sharing};
use rustix::fs::{CWD, Mode};

use super::identifier::LocalId;
use crate::Worker;
use crate::contenthash::{LayerTable, Record, RecordKind, TableBuilder, header_of};
use crate::encode::{Encoder, Hash};
use crate::error::{Error, PathError, Result};
use crate::raw::{DIR_FLAGS, list_xattrs, meta_of};
use crate::transfer::Task;

/// Among the values of a directory's layer: what the last transfer left there.
const TREE_KEY: &str = "local-tree";
/// How long a session that the vertex names may take to appear.
const SESSION_WAIT: Duration = Duration::from_secs(5);
/// Between two updates of the progress line.
const UPDATE_EVERY: Duration = Duration::from_millis(100);

impl LocalId {
    /// Key of what this build asks of the directory. The content is not known before it has come.
    ///
    /// # Errors
    /// Nobody can be asked.
    pub(crate) fn key(&self, first_session: &str) -> Result<Hash> {
        let session = if self.session.is_empty() { first_session } else { &self.session };
        if session.is_empty() {
            return Err(Error::Text("could not access local files without session".into()));
        }
        let mut encoder = Encoder::new("kiln.source.local.v1");
        encoder.str(session).str(&self.name).strs(&self.include).strs(&self.exclude).strs(&self.follow_paths);
        encoder.bool(self.metadata_only).strs(&self.metadata_exceptions).bool(self.differ_none);
        Ok(encoder.finish())
    }
}

impl Worker {
    /// Receives a directory and gives it as it is now.
    pub(crate) async fn receive_local(
        &self,
        id: &LocalId,
        sessions: &SessionGroup,
        progress: &Progress,
    ) -> Result<Ref> {
        if !id.session.is_empty() {
            let session = SessionId::new(&id.session);
            if let Ok(caller) = self.sessions().get(&session, SESSION_WAIT).await {
                return self.receive_from(id, &caller, progress).await;
            }
        }
        let caller = sessions.any(self.sessions(), |caller| async move { Ok(caller) }).await?;
        self.receive_from(id, &caller, progress).await
    }

    async fn receive_from(&self, id: &LocalId, caller: &Caller, progress: &Progress) -> Result<Ref> {
        let suffix = if id.metadata_only { ":metadata" } else { "" };
        let spec = NamedSpec {
            key: format!("local:{}:{}:{}{suffix}", id.name, id.shared_key_hint, caller.shared_key()),
            base: Ref::scratch(),
            // Another build that has the same directory in use goes its own way instead of waiting.
            sharing: Sharing::Private,
            meta: LayerMeta {
                description: format!("local source for {}", id.name),
                record_type: RecordType::SourceLocal,
                created_ms: None,
            },
        };
        let layer = self.store().named(&spec).await?;
        let (received, tree) = self.transfer(id, caller, &layer, progress).await?;
        let tree = match tree {
            Ok(tree) => tree,
            Err(error) => {
                // Why the transfer failed says more than that nobody knows what it left.
                received?;
                return Err(error);
            }
        };
        // Kept also after a failure, so that the next transfer goes on from here.
        let keep = {
            let (worker, layer, tree) = (self.clone(), layer.handle().clone(), tree.clone());
            self.blocking(move || worker.store().values().set_spool(&layer, TREE_KEY, tree.stored(), None))
        };
        let table = {
            let (worker, dir) = (self.clone(), layer.dir().to_owned());
            self.blocking(move || table_of(&worker, &tree, &dir))
        };
        let (kept, table) = tokio::join!(keep, table);
        kept??;
        received?;
        self.digests().put(layer.id(), Arc::new(table??));
        Ok(layer.freeze()?)
    }

    /// What came of the transfer, and what is there now in any case.
    async fn transfer(
        &self,
        id: &LocalId,
        caller: &Caller,
        layer: &NamedLayer,
        progress: &Progress,
    ) -> Result<(Result<()>, Result<Tree>)> {
        let spools = Spools::new(self.store().scratch_dir());
        let stored = {
            let (worker, layer, spools) = (self.clone(), layer.handle().clone(), spools.clone());
            let take = move || {
                let values = worker.store().values();
                let stored = values.get_spool(&layer, TREE_KEY, &spools)?;
                // Should the machine die before there is another one, nobody knows what is there.
                values.remove(&layer, TREE_KEY)?;
                Ok::<_, Error>(stored)
            };
            self.blocking(take).await??
        };
        let options = DirSinkOptions {
            existing: if stored.is_some() || layer.is_fresh() { Existing::Tracked } else { Existing::Mirror },
            previous: stored.map(Arc::new),
            differ: if id.differ_none { Differ::None } else { Differ::Metadata },
            owner: if self.store().format().owner_xattr { OwnerPolicy::Own } else { OwnerPolicy::AsSent },
            metadata_only: if id.metadata_only { Some(matcher(&id.metadata_exceptions)?) } else { None },
            ..DirSinkOptions::new(spools)
        };
        let root = rustix::fs::openat(CWD, layer.dir(), DIR_FLAGS, Mode::empty())
            .map_err(|errno| PathError::new("open", "/", errno))?;
        let (sink, handle) = DirSink::new(root, options);
        let request = FileSyncRequest {
            name: id.name.clone(),
            include_patterns: id.include.clone(),
            exclude_patterns: id.exclude.clone(),
            follow_paths: id.follow_paths.clone(),
            limits: ReceiveLimits::default(),
        };
        let task = Task::doing(progress, format!("transferring {}:", id.name), "transferring");
        let line = Line::new(task);
        let received = caller.receive_files(&request, sink, |bytes, last| line.at(bytes, last)).await;
        let tree = handle.into_tree().await.map_err(kiln_session::daemon::Error::from);
        Ok((received.map_err(Error::from), tree.map_err(Error::from)))
    }
}

/// A progress line that is not updated more often than anybody looks.
struct Line(Mutex<(Option<Task>, Instant)>);

impl Line {
    fn new(task: Task) -> Line {
        Line(Mutex::new((Some(task), Instant::now())))
    }

    fn at(&self, bytes: u64, last: bool) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if last {
            if let Some(task) = state.0.take() {
                task.done(bytes);
            }
        } else if state.1.elapsed() >= UPDATE_EVERY {
            state.1 = Instant::now();
            if let Some(task) = &state.0 {
                task.at(bytes);
            }
        }
    }
}

fn matcher(patterns: &[String]) -> Result<PatternMatcher> {
    PatternMatcher::new(patterns).map_err(|error| Error::Text(error.to_string()))
}

/// What the transfer knows of the files is all that their digests need.
fn table_of(worker: &Worker, tree: &Tree, dir: &Path) -> Result<LayerTable> {
    let fail = |errno| PathError::new("lstat", "/", errno);
    let root = rustix::fs::openat(CWD, dir, DIR_FLAGS, Mode::empty()).map_err(fail)?;
    let meta = meta_of(&root, worker.store().format()).map_err(fail)?;
    let xattrs = list_xattrs(std::os::fd::AsFd::as_fd(&root), b"").map_err(fail)?;
    let header = header_of(&meta, b"", &xattrs);
    let mut builder = TableBuilder::new(worker.digests().scratch());
    let root = Record { path: b"", kind: RecordKind::Dir { opaque: false }, header: &header, content: None };
    let mut put = |record: &Record<'_>| Ok(builder.push(record)?);
    put(&root)?;
    for entry in tree.iter() {
        put_entry(tree, &entry.map_err(unread(tree))?, &mut put)?;
    }
    Ok(builder.finish()?)
}

/// A tree may lie in a file.
fn unread(tree: &Tree) -> impl FnOnce(TreeError) -> Error {
    |error| Error::io("read the list of files in", tree.stored().spools().dir())(error.into())
}

fn put_entry(tree: &Tree, entry: &TreeEntry, put: impl FnOnce(&Record<'_>) -> Result<()>) -> Result<()> {
    let stat = &entry.stat;
    let kind = match stat.kind() {
        fsync::FileKind::Directory => RecordKind::Dir { opaque: false },
        fsync::FileKind::Symlink => RecordKind::Symlink { target: stat.linkname.as_bytes() },
        fsync::FileKind::Regular => RecordKind::File,
        _ => RecordKind::Special,
    };
    let content = match (kind, stat.is_hard_link()) {
        (RecordKind::File, true) => {
            tree.get(&stat.linkname).map_err(unread(tree))?.and_then(|file| file.digest)
        }
        (RecordKind::File, false) => entry.digest,
        _ => None,
    };
    put(&Record { path: stat.path.as_bytes(), kind, header: &header(stat), content: content.as_ref() })
}

fn header(stat: &FileStat) -> Hash {
    let kind = match stat.kind() {
        fsync::FileKind::Directory => FileKind::Dir,
        fsync::FileKind::Symlink => FileKind::Symlink,
        fsync::FileKind::Regular => FileKind::File,
        fsync::FileKind::CharDevice => FileKind::CharDevice,
        fsync::FileKind::BlockDevice => FileKind::BlockDevice,
        fsync::FileKind::Fifo => FileKind::Fifo,
        _ => FileKind::Socket,
    };
    let meta = Meta {
        kind,
        mode: stat.permissions(),
        uid: stat.uid,
        gid: stat.gid,
        size: 0,
        mtime_s: 0,
        mtime_ns: 0,
        rdev_major: stat.device.0,
        rdev_minor: stat.device.1,
        dev: 0,
        ino: 0,
        nlink: 1,
        blocks: 0,
    };
    let link = if kind == FileKind::Symlink { stat.linkname.as_bytes() } else { b"" };
    let xattrs: Vec<(CString, Vec<u8>)> = stat
        .xattrs
        .iter()
        .filter(|(key, _)| !is_private_xattr(key.as_bytes()))
        .filter_map(|(key, value)| Some((CString::new(key.as_str()).ok()?, value.to_vec())))
        .collect();
    header_of(&meta, link, &xattrs)
}
